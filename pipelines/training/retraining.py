"""Training again when what is read has changed, and going over to the new run if it is better.

The core of the scheduled retraining; it knows nothing of what calls it, or when.
"""

import math
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vlpipe.models import find_model
from vlpipe.models.registry import parse_config
from vlpipe.pipelines.training.data import ExampleDataset, PreparedVideos, available_examples
from vlpipe.pipelines.training.devices import choose_device
from vlpipe.pipelines.training.job import TrainingJob
from vlpipe.pipelines.training.loop import TrainingObserver, predict
from vlpipe.pipelines.training.material import (
    TRAIN,
    VALIDATION,
    Material,
    open_material,
    prepare_run,
    survey_job,
)
from vlpipe.pipelines.training.run_folder import RunFolder, load_model
from vlpipe.pipelines.training.runs_folder import (
    RunsFolder,
    promote_run,
    read_notes,
    write_notes,
)
from vlpipe.pipelines.training.train import (
    TrainingOutcome,
    discarded_unless_begun,
    resume_training,
)
from vlpipe.pipelines.training.what_is_read import Json, changes_between, what_is_read
from vlpipe.stores.errors import SnapshotGone, UsageError

Verdict = Literal["unchanged", "promoted", "refused", "interrupted"]


class RetrainingJob(TrainingJob):
    """A training to be repeated. out: the folder of its runs, see `runs_folder`.

    min_gain: by how much the validation figure must be better than that of the current run; at 0
        any gain will do, an equal figure will not.
    force: trains although nothing has changed.
    """

    min_gain: float = Field(default=0.0, ge=0)
    force: bool = False

    def training_job(self, out: Path) -> TrainingJob:
        """The job of one run."""
        fields = TrainingJob.model_fields
        return TrainingJob(**{name: getattr(self, name) for name in fields} | {"out": out})


@dataclass(frozen=True)
class Comparison:
    """The figure by which the task's runs are compared, of both runs on the same examples: those
    of the new run's validation split that the current run was not trained on."""

    figure: str
    is_higher_better: bool
    new: float
    current: float
    num_examples: int

    @property
    def gain(self) -> float:
        """By how much the new run is better; negative if it is worse."""
        return self.new - self.current if self.is_higher_better else self.current - self.new


@dataclass(frozen=True)
class Retraining:
    """What a retraining came to, and why.

    changes: what had changed since the last run. run: the one trained, None if none was.
    current: the run in use now.
    """

    verdict: Verdict
    reason: str
    changes: tuple[str, ...]
    run: Path | None
    current: Path | None
    comparison: Comparison | None = None
    outcome: TrainingOutcome | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "changes": list(self.changes),
            "run": None if self.run is None else str(self.run),
            "current": None if self.current is None else str(self.current),
            "comparison": None if self.comparison is None else asdict(self.comparison),
            "metrics": None if self.outcome is None else self.outcome.to_json()["metrics"],
        }


def retrain(
    job: RetrainingJob,
    *,
    observer: TrainingObserver | None = None,
    stop: threading.Event | None = None,
) -> Retraining:
    """Trains if what the job reads is not what the last run read, and promotes the new run if it is
    better on validation. A run that was interrupted is carried on while its data are the same.

    Raises UsageError when the folder holds runs of another task or dataset, or another retraining
    is at work in it.
    """
    folder = RunsFolder(job.out.absolute())
    with folder.locked():
        current, runs = folder.current, folder.runs()
        reads = what_is_read(survey_job(job.training_job(folder.path)))
        _check_lineage(job, folder)
        last = runs[-1] if runs else None
        notes = None if last is None else read_notes(last)
        changes = _changes(notes, reads, is_forced=job.force)
        if last is not None and notes is not None and not changes and "verdict" in notes:
            return Retraining(
                "unchanged",
                f"{job.store} and the annotations hold for this training what {last.path.name} "
                f"read, which was {notes['verdict']}: {notes['reason']}",
                (), None, None if current is None else current.path,
            )  # fmt: skip
        run = last if last is not None and notes is not None and not changes else None
        run, outcome = _train(job, folder, run, reads, observer, stop)
        if outcome.was_interrupted:
            reason = f"stopped; the next retraining carries {run.path.name} on"
            now = None if current is None else current.path
            return Retraining("interrupted", reason, changes, run.path, now)
        return _conclude(job, run, current, changes, outcome)


def _check_lineage(job: RetrainingJob, folder: RunsFolder) -> None:
    for run in folder.runs()[-1:]:
        before = run.job()
        if (before.task, before.dataset) != (job.task, job.dataset):
            raise UsageError(
                f"{folder.path} holds runs of {before.task} of {before.dataset}, which cannot be "
                f"compared with {job.task} of {job.dataset}",
                hint="choose another --out",
            )


def _changes(notes: Json | None, reads: Json, *, is_forced: bool) -> tuple[str, ...]:
    if notes is None:
        return ("there is no run yet",)
    changes = changes_between(notes["reads"], reads)
    is_over = "verdict" in notes
    return changes or (("asked for although nothing has changed",) if is_forced and is_over else ())


def _train(
    job: RetrainingJob,
    folder: RunsFolder,
    begun: RunFolder | None,
    reads: Json,
    observer: TrainingObserver | None,
    stop: threading.Event | None,
) -> tuple[RunFolder, TrainingOutcome]:
    """The run, begun now or before, and how its training ended."""
    if begun is not None:
        try:
            device = job.settings.device
            return begun, resume_training(begun.path, device=device, observer=observer, stop=stop)
        except SnapshotGone:
            # Its rows are the same in the newest version, but a run keeps to its own.
            reason = "its version of the store was collected before it was carried on"
            write_notes(begun, read_notes(begun) | {"verdict": "refused", "reason": reason})
    run = prepare_run(job.training_job(folder.next_run()), folder.current)
    with discarded_unless_begun(run, with_folder=True):
        write_notes(run, {"reads": reads})
        return run, resume_training(run.path, observer=observer, stop=stop)


def _conclude(
    job: RetrainingJob,
    run: RunFolder,
    current: RunFolder | None,
    changes: tuple[str, ...],
    outcome: TrainingOutcome,
) -> Retraining:
    is_in_use = current is not None and current.path == run.path.resolve()
    found = None if current is None or is_in_use else compare_runs(run, current)
    verdict, reason = _judge(found, current, job.min_gain)
    if is_in_use:  # killed after the link had turned, or turned by hand
        verdict, reason = "promoted", "it is in use already"
    elif verdict == "promoted":
        promote_run(run, reason)
        current = run
    comparison = found if isinstance(found, Comparison) else None
    write_notes(
        run,
        read_notes(run)
        | {"verdict": verdict, "reason": reason, "changes": list(changes)}
        | {"comparison": None if comparison is None else asdict(comparison)},
    )
    now = None if current is None else current.path
    return Retraining(verdict, reason, changes, run.path, now, comparison, outcome)


def _judge(
    found: Comparison | str | None, current: RunFolder | None, min_gain: float
) -> tuple[Literal["promoted", "refused"], str]:
    if found is None or current is None:
        return "promoted", "there was no run in use to compare it with"
    if isinstance(found, str):
        return "promoted", found
    name = current.path.name
    figures = (
        f"{found.figure} on {found.num_examples} validation examples: {found.new:.4g}, "
        f"{name} {found.current:.4g}"
    )
    if found.num_examples == 0:
        return "refused", f"{name} was trained on every validation example: nothing to compare"
    is_first_number = math.isnan(found.current) and not math.isnan(found.new)
    if is_first_number or found.gain > min_gain:
        return "promoted", f"better than {name}; {figures}"
    wanted = f" by more than {min_gain:g}" if min_gain else ""
    return "refused", f"not better than {name}{wanted}; {figures}"


def compare_runs(new: RunFolder, current: RunFolder) -> Comparison | str:
    """Both runs on the same examples and the new run's snapshot, each with the generations of
    features that it learnt from; or, in words, why the current run cannot be asked any more."""
    material = open_material(new)
    slots = _slots_with_generations(current)
    gone = [feature for feature in slots.values() if feature not in material.store]
    if gone:
        return f"{current.path.name} reads {gone[0]}, which the store no longer holds"
    learnt = set(current.read_json("splits.json")["ids"][TRAIN])
    unseen = [e for e in material.splits[VALIDATION] if e.id not in learnt]
    its_model = find_model(current.job().model)
    examples = available_examples(unseen, material.store, slots, its_model).examples
    own = _figure(new, material, material.slots, examples)
    return Comparison(
        material.task.figure,
        material.task.is_higher_better,
        own,
        _figure(current, material, slots, examples),
        len(examples),
    )


def _slots_with_generations(run: RunFolder) -> dict[str, str]:
    facts = run.read_facts()
    of_feature = facts["store"]["features"]
    return {
        slot: f"{feature.partition('@')[0]}@{of_feature[feature]['generation']}"
        for slot, feature in facts["slots"].items()
    }


def _figure(
    run: RunFolder, material: Material, slots: dict[str, str], examples: tuple[Any, ...]
) -> float:
    if not examples:
        return math.nan
    job, settings = run.job(), run.job().settings
    model_class = find_model(job.model)
    config = parse_config(model_class, run.read_facts()["model_config"])
    videos = PreparedVideos(material.store, slots, model_class, config, settings.cache_mb * 2**20)
    device = choose_device(material.job.settings.device)
    model, task = load_model(run.best)
    records = predict(
        model.to(device), task, ExampleDataset(examples, videos), settings.batch_size or 1, device,
        workers=settings.workers,
    )  # fmt: skip
    return task.metrics(records).get(task.figure, math.nan)
