"""Training of VC R-CNN on annotated images, from a job to a checkpoint that `commonsense` loads.

Paper: Visual Commonsense R-CNN (Wang et al., 2020). The run's folder:

run.json                       the job, hashes of what it read, versions, what came out
categories.json                the name of each label
dictionary.npy, prior.npy      the confounders, in the published layout
checkpoints/last.pt            what `--resume` reads
history.json, tensorboard/     loss, its parts, and accuracy, of the first device
model_final.pth                the published layout, and model_final.safetensors with the same
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlpipe.extractors.weights.checkpoint import sha256_of
from vlpipe.extractors.weights.source import UNTRAINED
from vlpipe.pipelines.commonsense_training.confounders import (
    compute_confounders,
    read_confounders,
    require_label_space,
    write_confounders,
)
from vlpipe.pipelines.commonsense_training.images import RegionDataset, require_images
from vlpipe.pipelines.commonsense_training.job import CommonsenseJob
from vlpipe.pipelines.commonsense_training.loop import (
    CommonsenseLoop,
    CommonsenseObserver,
    Unwatched,
    build_modules,
    restore_modules,
    start_state,
)
from vlpipe.pipelines.commonsense_training.network import CommonsenseModules
from vlpipe.pipelines.commonsense_training.weights import (
    published_state,
    save_published,
    starting_weights,
)
from vlpipe.pipelines.training.devices import choose_device
from vlpipe.pipelines.training.loop import make_fabric
from vlpipe.pipelines.training.run_folder import RUN_VERSION, RunFolder, code_version
from vlpipe.pipelines.training.state import read_state, write_state
from vlpipe.stores.datasets.coco_instances import CocoInstances, read_instances
from vlpipe.stores.errors import UsageError

KIND = "vc_rcnn"


@dataclass(frozen=True)
class CommonsenseOutcome:
    """What became of a run. checkpoints: the published layout; empty if it was interrupted.
    figures: the last means of loss and accuracy."""

    run: Path
    was_interrupted: bool
    step: int
    checkpoints: tuple[Path, ...]
    figures: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "was_interrupted": self.was_interrupted,
            "step": self.step,
            "checkpoints": [str(path) for path in self.checkpoints],
            "figures": self.figures,
        }


def run_commonsense_training(
    job: CommonsenseJob,
    *,
    observer: CommonsenseObserver | None = None,
    stop: threading.Event | None = None,
) -> CommonsenseOutcome:
    """Makes a run of the job; see `resume_commonsense_training` for the rest.

    Raises UsageError for annotations, images, weights or a dictionary that do not fit.
    """
    return resume_commonsense_training(prepare_commonsense(job), observer=observer, stop=stop)


def prepare_commonsense(job: CommonsenseJob) -> Path:
    """Checks all that the job names and makes the folder of its run; the folder comes back."""
    job = job.with_absolute_paths()
    choose_device(job.settings.device, job.settings.devices)
    instances = read_instances(job.instances, min_objects=job.settings.min_objects)
    require_label_space(instances)
    require_images(instances, job.images)
    found = None
    if job.dictionary is not None and job.prior is not None:
        found = read_confounders(job.dictionary, job.prior, job.dictionary_names, instances)
    modules, taken = starting_modules(job)
    run = RunFolder(job.out)
    run.create()
    run.write_json("categories.json", list(instances.categories))
    if found is not None:
        write_confounders(run.path, found)
    write_state(run.state, start_state(modules))
    run.write_json(
        "run.json",
        {
            "run_version": RUN_VERSION,
            "kind": KIND,
            "status": "prepared",
            "job": job.model_dump(mode="json"),
            "instances_sha256": sha256_of(job.instances),
            "images": len(instances.images),
            "objects": int(instances.label_counts().sum()),
            "left_out": dict(instances.left_out),
            "weights": {
                "untrained": job.weights == UNTRAINED,
                "sha256": None if job.weights == UNTRAINED else sha256_of(Path(job.weights)),
                "taken": taken,
            },
            "confounders": "supplied" if found is not None else "computed",
            "code": code_version(),
        },
    )
    return run.path


def starting_modules(job: CommonsenseJob) -> tuple[CommonsenseModules, list[str]]:
    """The networks as training begins, and the parts that came from the job's weights; the rest
    is drawn from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.settings.seed)
        modules = build_modules(job)
        taken = starting_weights(modules.network, modules.causal, job.weights)
    return modules, taken


def resume_commonsense_training(
    path: Path,
    *,
    device: str | None = None,
    observer: CommonsenseObserver | None = None,
    stop: threading.Event | None = None,
) -> CommonsenseOutcome:
    """Carries a run on to its end, from wherever it was stopped or killed.

    device: `cpu`, `cuda` or `auto`, where it is to go on on another one than it began on.
    Once `stop` is set the run keeps the step it is at, and the outcome says so.
    With several devices each is a process of its own, and a copy of the observer goes to the first.
    """
    run, observer, stop = RunFolder(path), observer or Unwatched(), stop or threading.Event()
    if device is not None:
        run.change_device(device)
    job, instances = open_commonsense(run)
    if not (path / "prior.npy").is_file() and not _compute(run, job, instances, observer, stop):
        return _outcome(run, was_interrupted=True)
    settings = job.settings
    fabric = make_fabric(settings.device, settings.devices, settings.precision)
    if settings.devices == 1:
        is_done = CommonsenseLoop(fabric, run, job, instances, observer, stop).run()
    else:
        launch: Any = fabric.launch
        is_done = launch(_train_in_process, path, observer)
    if not is_done:
        return _outcome(run, was_interrupted=True)
    return _finish(run, job)


def open_commonsense(run: RunFolder) -> tuple[CommonsenseJob, CocoInstances]:
    """The job of a prepared run and its annotations; UsageError if these have changed since."""
    facts = run.read_facts()
    if facts.get("kind") != KIND:
        raise UsageError(
            f"{run.path} is no training of VC R-CNN", hint=f"vlpipe train --resume {run.path}"
        )
    job = CommonsenseJob.model_validate(facts["job"])
    if not job.instances.is_file() or sha256_of(job.instances) != facts["instances_sha256"]:
        raise UsageError(
            f"{job.instances} is not what {run.path} was begun with",
            hint="put the annotations back, or train again on what they are now",
        )
    return job, read_instances(job.instances, min_objects=job.settings.min_objects)


def _compute(
    run: RunFolder,
    job: CommonsenseJob,
    instances: CocoInstances,
    observer: CommonsenseObserver,
    stop: threading.Event,
) -> bool:
    """Makes the confounders of a run from its data; False if stopped."""
    settings = job.settings
    modules = build_modules(job)
    restore_modules(modules, read_state(run.state))
    partial = run.checkpoints / "confounders.pt"
    found = compute_confounders(
        modules.network,
        RegionDataset(instances.images, job.images, settings),
        partial,
        device=choose_device(settings.device),
        workers=settings.workers,
        keep_every_s=settings.checkpoint_every_s,
        on_image=observer.on_confounders,
        stop=stop,
    )
    if found is None:
        return False
    write_confounders(run.path, found)
    partial.unlink(missing_ok=True)
    return True


def _train_in_process(fabric: Any, path: Path, observer: CommonsenseObserver) -> bool:  # noqa: ANN401
    import signal

    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        run = RunFolder(path)
        job, instances = open_commonsense(run)
        return CommonsenseLoop(fabric, run, job, instances, observer, stop).run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(run: RunFolder, job: CommonsenseJob) -> CommonsenseOutcome:
    modules: CommonsenseModules = build_modules(job)
    state = read_state(run.state)
    restore_modules(modules, state)
    final = published_state(modules.network, modules.causal)
    paths = save_published(run.path, final, state["progress"]["step"])
    outcome = _outcome(run, was_interrupted=False, checkpoints=paths)
    checkpoints = {path.name: sha256_of(path) for path in paths}
    run.write_json(
        "run.json", run.read_facts() | {"checkpoints": checkpoints, "figures": outcome.figures}
    )
    return outcome


def _outcome(
    run: RunFolder, *, was_interrupted: bool, checkpoints: tuple[Path, ...] = ()
) -> CommonsenseOutcome:
    progress = read_state(run.state).get("progress", {"step": 0, "history": []})
    figures = dict(progress["history"][-1]) if progress["history"] else {}
    status = "interrupted" if was_interrupted else "finished"
    run.write_json("run.json", run.read_facts() | {"status": status})
    return CommonsenseOutcome(run.path, was_interrupted, progress["step"], checkpoints, figures)
