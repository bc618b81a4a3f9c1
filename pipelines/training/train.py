"""Training from a job to a finished run: prepare, train, evaluate, report."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlpipe.pipelines.training.evaluation import Evaluated, evaluate_run
from vlpipe.pipelines.training.job import TrainingJob
from vlpipe.pipelines.training.loop import Silent, TrainingObserver, make_fabric, train
from vlpipe.pipelines.training.material import TEST, VALIDATION, prepare_run
from vlpipe.pipelines.training.run_folder import RunFolder
from vlpipe.stores.errors import EnvironmentLacks, UsageError


@dataclass(frozen=True)
class TrainingOutcome:
    """What became of a run. evaluated: by split; empty if it was interrupted."""

    run: Path
    was_interrupted: bool
    evaluated: dict[str, Evaluated]

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "was_interrupted": self.was_interrupted,
            "metrics": {name: found.metrics for name, found in self.evaluated.items()},
            "baseline": {name: found.baseline for name, found in self.evaluated.items()},
        }


def run_training(
    job: TrainingJob,
    *,
    observer: TrainingObserver | None = None,
    stop: threading.Event | None = None,
    earlier: RunFolder | None = None,
) -> TrainingOutcome:
    """Makes a run of the job; see `prepare_run` for `earlier`, `resume_training` for the rest.

    A run that cannot begin, for want of a device or a file that the job names, leaves nothing.
    """
    is_new = not job.out.exists()
    run = prepare_run(job, earlier)
    with discarded_unless_begun(run, with_folder=is_new):
        return resume_training(run.path, observer=observer, stop=stop)


@contextmanager
def discarded_unless_begun(run: RunFolder, *, with_folder: bool) -> Iterator[None]:
    """Around the work of a new run: when it ends in a UsageError or EnvironmentLacks before it has
    learnt anything, what it has written goes, so that the corrected command finds its place free.

    with_folder: its folder as well, since it was made for the run.
    """
    try:
        yield
    except (UsageError, EnvironmentLacks):
        if not run.has_begun:
            with suppress(OSError):  # the error itself is what the user is to see
                run.discard(with_folder=with_folder)
        raise


def resume_training(
    path: Path,
    *,
    device: str | None = None,
    observer: TrainingObserver | None = None,
    stop: threading.Event | None = None,
) -> TrainingOutcome:
    """Carries a run on to its end, from wherever it was stopped or killed; evaluates it on
    validation and, if the dataset has one, on test; writes the report.

    device: `cpu`, `cuda` or `auto`, where it is to go on on another one than it began on.

    Once `stop` is set the run keeps the step it is at, and the outcome says so.
    With several devices each is a process of its own, and a copy of the observer goes to the first.
    """
    run = RunFolder(path)
    if device is not None:
        run.change_device(device)
    facts = run.read_facts()
    settings = run.job().settings
    fabric = make_fabric(settings.device, settings.devices, settings.precision)
    if settings.devices == 1:
        is_done = train(fabric, path, observer or Silent(), stop)
    else:
        launch: Any = fabric.launch
        is_done = launch(_train_in_process, path, observer or Silent())
    if not is_done:
        run.write_json("run.json", run.read_facts() | {"status": "interrupted"})
        return TrainingOutcome(path, True, {})
    if not run.best.is_file():
        raise UsageError(f"{run.best} is missing: the run has lost its best model")
    splits = [name for name in (VALIDATION, TEST) if facts["examples"].get(name)]
    evaluated = {name: evaluate_run(path, name, is_final=True) for name in splits}
    run.write_json("run.json", run.read_facts() | {"status": "finished"})
    from vlpipe.pipelines.training.report import write_training_report

    write_training_report(run)
    return TrainingOutcome(path, False, evaluated)


def _train_in_process(fabric: Any, path: Path, observer: TrainingObserver) -> bool:  # noqa: ANN401
    import signal

    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        return train(fabric, path, observer, stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
