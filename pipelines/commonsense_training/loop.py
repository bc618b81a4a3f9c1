"""The training loop of VC R-CNN: counted in iterations, on one device or several, resumable.

Lightning Fabric does precision, devices and gradient exchange. Nothing is drawn while it runs:
the order of the images and their flips follow from the seed and the epoch, so that a checkpoint
needs no state of generators.
"""

import math
import threading
import time
from typing import Any, Protocol, cast

from lightning_fabric import Fabric
from torch import Tensor

from vlpipe.extractors.networks.vc_intervention import CausalPredictor, Confounders
from vlpipe.extractors.networks.vc_rcnn import VcRcnnNetwork
from vlpipe.pipelines.commonsense_training.images import (
    EpochPlaces,
    RegionBatch,
    RegionDataset,
    region_loader,
)
from vlpipe.pipelines.commonsense_training.job import CommonsenseJob
from vlpipe.pipelines.commonsense_training.network import (
    CommonsenseLearner,
    CommonsenseModules,
    make_optimiser,
    set_rate,
)
from vlpipe.pipelines.training.agreement import any_device
from vlpipe.pipelines.training.data import EpochBatches
from vlpipe.pipelines.training.determinism import deterministic_algorithms
from vlpipe.pipelines.training.log import TrainingLog
from vlpipe.pipelines.training.run_folder import RunFolder
from vlpipe.pipelines.training.state import Progress, read_state, write_state
from vlpipe.stores.datasets.coco_instances import CocoInstances
from vlpipe.stores.errors import VlpipeError

_MOST_ROWS = 1000
"""Of the history; a row is the mean over as many steps as that takes."""


class CommonsenseObserver(Protocol):
    """Is told how a training goes, by the process of the first device."""

    def on_confounders(self, done: int, total: int) -> None: ...
    def on_start(self, num_images: int, total: int, progress: Progress) -> None: ...
    def on_step(self, step: int, total: int) -> None: ...
    def on_figures(self, row: dict[str, float]) -> None: ...


class Unwatched:
    """An observer that does nothing."""

    def on_confounders(self, done: int, total: int) -> None: ...
    def on_start(self, num_images: int, total: int, progress: Progress) -> None: ...
    def on_step(self, step: int, total: int) -> None: ...
    def on_figures(self, row: dict[str, float]) -> None: ...


def build_modules(job: CommonsenseJob) -> CommonsenseModules:
    """Networks of the job's size, to be filled from a checkpoint."""
    return CommonsenseModules(
        VcRcnnNetwork(job.settings.depth), CausalPredictor(job.settings.causal_width)
    )


class CommonsenseLoop:
    """What one process of a training holds."""

    def __init__(
        self,
        fabric: Fabric,
        run: RunFolder,
        job: CommonsenseJob,
        instances: CocoInstances,
        observer: CommonsenseObserver,
        stop: threading.Event,
    ) -> None:
        self.fabric, self.run_folder, self.observer, self.stop = fabric, run, observer, stop
        self.settings = settings = job.settings
        self.modules = build_modules(job)
        confounders = Confounders.read(run.path / "dictionary.npy", run.path / "prior.npy")
        learner = CommonsenseLearner(self.modules, confounders)
        optimiser = make_optimiser(learner, settings)
        # Fabric wraps both, and types neither.
        self.learner, self.optimiser = cast(tuple[Any, Any], fabric.setup(learner, optimiser))
        self.progress = Progress()
        self.window: dict[str, float] = {}
        self._restore(read_state(run.state))
        self.batches = EpochBatches(
            len(instances.images),
            settings.batch_size,
            seed=settings.seed,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
        self.places = EpochPlaces(self.batches)
        data = RegionDataset(instances.images, job.images, settings)
        self.loader = region_loader(data, self.places, workers=settings.workers)
        self.num_images = len(data)
        self.row_steps = max(1, settings.iterations // _MOST_ROWS)
        self.saved_at = self.timed_from = time.monotonic()

    def run(self) -> bool:
        """Trains to the end; False if it was stopped first, with a checkpoint of the last step."""
        progress, total = self.progress, self.settings.iterations
        is_first = self.fabric.is_global_zero
        if is_first:
            self.observer.on_start(self.num_images, total, progress)
        self.learner.train()
        # Hides what was written from a step on, and that of the checkpoint's own step counts.
        with (
            deterministic_algorithms(self.settings.deterministic),
            TrainingLog(self.run_folder.path, progress.step + 1, is_active=is_first) as log,
        ):
            while progress.step < total:
                self.places.start(progress.epoch, progress.batch)
                for batch in self.loader:
                    figures = self._learn(batch.to(self.fabric.device))
                    progress.batch += 1
                    progress.step += 1
                    self._count(figures, log)
                    is_over = progress.step == total
                    age_s = time.monotonic() - self.saved_at
                    is_stopped, is_due = any_device(
                        self.fabric, self.stop.is_set(), age_s >= self.settings.checkpoint_every_s
                    )
                    if is_stopped or is_due or is_over:
                        self._save()
                    if is_stopped or is_over:
                        return is_over
                progress.epoch, progress.batch = progress.epoch + 1, 0
        return True

    def _learn(self, batch: RegionBatch) -> dict[str, Tensor]:
        set_rate(self.optimiser, self.settings.rate(self.progress.step))
        figures = self.learner(batch.images, batch.boxes, batch.labels)
        self.fabric.backward(figures["loss"])
        self.optimiser.step()
        self.optimiser.zero_grad()
        return {name: value.detach() for name, value in figures.items()}

    def _count(self, figures: dict[str, Tensor], log: TrainingLog) -> None:
        """Adds the figures of a step to the window, which is of the first device."""
        progress = self.progress
        for name, value in figures.items():
            self.window[name] = self.window.get(name, 0.0) + float(value)
        progress.loss_count += 1
        if not self.fabric.is_global_zero:
            return
        rate = self.settings.rate(progress.step - 1)
        if log.is_due(progress.step):
            seen = {name: float(value) for name, value in figures.items()}
            log.write(progress.step, {**seen, "learning_rate": rate})
        self.observer.on_step(progress.step, self.settings.iterations)
        if progress.step % self.row_steps == 0 or progress.step == self.settings.iterations:
            means = {name: value / progress.loss_count for name, value in self.window.items()}
            self._require_finite(means["loss"])
            row = {"step": float(progress.step), "learning_rate": rate, **means}
            progress.history.append(row)
            self.window, progress.loss_count = {}, 0
            self.observer.on_figures(row)

    def _save(self) -> None:
        progress, fabric = self.progress, self.fabric
        now = time.monotonic()
        progress.seconds += now - self.timed_from
        self._require_finite(self.window.get("loss", 0.0))
        if fabric.is_global_zero:
            state = start_state(self.modules) | {
                "optimizer": self.optimiser.state_dict(),
                "precision": fabric.strategy.precision.state_dict(),
                "progress": progress.to_json(),
                "window": self.window,
                "devices": fabric.world_size,
            }
            write_state(self.run_folder.state, state)
            self.run_folder.write_json("history.json", progress.history)
        fabric.barrier()
        self.saved_at = self.timed_from = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        restore_modules(self.modules, state)
        if "progress" not in state:
            return
        if state["devices"] != self.fabric.world_size:
            raise VlpipeError(
                f"{self.run_folder.path} was trained on {state['devices']} devices, and "
                f"{self.fabric.world_size} are asked for: the order of the images would change",
                hint=f"--set devices={state['devices']}",
            )
        self.optimiser.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.progress, self.window = Progress(**state["progress"]), state["window"]

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise VlpipeError(
                f"training diverged: the loss is {loss} near step {self.progress.step}",
                hint="a lower learning_rate or longer warmup_iterations; the last checkpoint is "
                f"{self.run_folder.state}",
            )


def start_state(modules: CommonsenseModules) -> dict[str, Any]:
    """The part of a checkpoint that holds the networks, and all of it before the first step."""
    return {"network": modules.network.state_dict(), "causal": modules.causal.state_dict()}


def restore_modules(modules: CommonsenseModules, state: dict[str, Any]) -> None:
    """Fills the networks from a checkpoint."""
    modules.network.load_state_dict(state["network"])
    modules.causal.load_state_dict(state["causal"])
