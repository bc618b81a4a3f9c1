"""The same training with several seeds: one run each, and the mean and spread of their figures."""

import statistics
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlpipe.pipelines.training.job import TrainingJob
from vlpipe.pipelines.training.loop import TrainingObserver
from vlpipe.pipelines.training.run_folder import RunFolder, write_json
from vlpipe.pipelines.training.train import TrainingOutcome, resume_training, run_training
from vlpipe.stores.errors import UsageError


@dataclass(frozen=True)
class Sweep:
    """The outcomes by seed. figures: split -> metric -> mean and standard deviation (of the sample;
    0 for one run) over the seeds that came to an end."""

    outcomes: dict[int, TrainingOutcome]
    figures: dict[str, dict[str, dict[str, float]]]

    @property
    def was_interrupted(self) -> bool:
        return any(outcome.was_interrupted for outcome in self.outcomes.values())

    def to_json(self) -> dict[str, Any]:
        runs = {str(seed): outcome.to_json() for seed, outcome in self.outcomes.items()}
        return {"runs": runs, "figures": self.figures}


def run_sweep(
    job: TrainingJob,
    seeds: Sequence[int],
    *,
    observer: TrainingObserver | None = None,
    stop: threading.Event | None = None,
) -> Sweep:
    """Trains the job once for each seed into OUT/seed-N, and writes OUT/sweep.json.

    A seed whose run is there already is carried on, or, where it is finished, only read: the same
    call completes an interrupted sweep. Raises UsageError if a run there is of another job.
    """
    if len(set(seeds)) != len(seeds) or not seeds:
        raise UsageError(f"the seeds {list(seeds)} must be different, and one at least")
    stop = stop or threading.Event()
    outcomes: dict[int, TrainingOutcome] = {}
    for seed in seeds:
        if stop.is_set():
            break
        settings = job.settings.model_copy(update={"seed": seed})
        out = job.out / f"seed-{seed}"
        one = job.model_copy(update={"settings": settings, "out": out})
        if RunFolder(out).facts.exists():
            _check_same(one)
            outcomes[seed] = resume_training(out, observer=observer, stop=stop)
        else:
            outcomes[seed] = run_training(one, observer=observer, stop=stop)
    sweep = Sweep(outcomes, _figures(list(outcomes.values())))
    if outcomes:
        write_json(job.out / "sweep.json", sweep.to_json())
    return sweep


def _check_same(job: TrainingJob) -> None:
    from vlpipe.models import find_model

    settings = job.settings.resolved(find_model(job.model), job.task)
    wanted = job.model_copy(update={"settings": settings, "root": job.root.absolute()})
    if RunFolder(job.out).job() != wanted:
        raise UsageError(f"{job.out} holds a run with other settings", hint="choose another --out")


def _figures(outcomes: Sequence[TrainingOutcome]) -> dict[str, dict[str, dict[str, float]]]:
    done = [outcome for outcome in outcomes if not outcome.was_interrupted]
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for split in done[0].evaluated if done else ():
        names = done[0].evaluated[split].metrics
        by_name = {
            n: [o.evaluated[split].metrics.get(n, float("nan")) for o in done] for n in names
        }
        figures[split] = {
            name: {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values) if len(values) > 1 else 0.0,
            }
            for name, values in by_name.items()
        }
    return figures
