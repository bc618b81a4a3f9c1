"""The training loop: model x task over batches, on one device or several, resumable at any step.

It knows neither the model nor the task. Lightning Fabric does precision, devices and gradient
exchange; everything else that happens is in this file.
"""

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vlpipe.models.tasks import Batch, Record, Task
from vlpipe.pipelines.training.agreement import any_device
from vlpipe.pipelines.training.data import EpochBatches, ExampleDataset, batch_loader, in_order
from vlpipe.pipelines.training.determinism import deterministic_algorithms
from vlpipe.pipelines.training.devices import choose_device
from vlpipe.pipelines.training.log import TrainingLog
from vlpipe.pipelines.training.material import Material, open_material
from vlpipe.pipelines.training.run_folder import RunFolder, save_model
from vlpipe.pipelines.training.schedule import LearningRate, is_better
from vlpipe.pipelines.training.state import (
    Progress,
    random_state,
    read_state,
    restore_random_state,
    write_state,
)
from vlpipe.stores.errors import VlpipeError

_LOG = logging.getLogger(__name__)
_PIN_HOURS = 24.0


class TrainingObserver(Protocol):
    """Is told how a training goes, by the process of the first device."""

    def on_start(self, material: Material, progress: Progress) -> None: ...
    def on_step(self, progress: Progress, num_batches: int) -> None: ...
    def on_epoch(self, row: dict[str, float]) -> None: ...


class Silent:
    """An observer that does nothing."""

    def on_start(self, material: Material, progress: Progress) -> None: ...
    def on_step(self, progress: Progress, num_batches: int) -> None: ...
    def on_epoch(self, row: dict[str, float]) -> None: ...


def train(
    fabric: Fabric,
    run_path: Path,
    observer: TrainingObserver | None = None,
    stop: threading.Event | None = None,
) -> bool:
    """Trains a prepared run to its end, from its last checkpoint if it has one.

    Returns False if `stop` was set first; then the checkpoint is of the step just made.
    Raises VlpipeError when the loss is no longer a number.
    """
    loop = _Loop(fabric, RunFolder(run_path), observer or Silent(), stop or threading.Event())
    return loop.run()


class _Loop:
    """What one process of a training holds."""

    def __init__(
        self, fabric: Fabric, run: RunFolder, observer: TrainingObserver, stop: threading.Event
    ) -> None:
        self.fabric, self.run_folder, self.observer, self.stop = fabric, run, observer, stop
        self.material = material = open_material(run)
        self.settings = settings = material.job.settings
        self.task: Task[Any] = material.task
        assert settings.learning_rate is not None
        assert settings.epochs is not None
        _seed(settings.seed)
        self.plain_model = material.build_model()
        trained = [p for p in self.plain_model.parameters() if p.requires_grad]
        # Without weight decay this is Adam.
        adam = torch.optim.AdamW(
            trained, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        # Fabric wraps both, and types neither.
        self.model, self.optimizer = cast(tuple[Any, Any], fabric.setup(self.plain_model, adam))
        _seed(settings.seed + fabric.global_rank)  # dropout differs between devices
        self.rate = LearningRate(
            settings.learning_rate,
            settings.schedule,
            settings.epochs,
            settings.warmup_epochs,
            self.task.is_higher_better,
        )
        self.progress = Progress()
        if run.state.exists():
            self._restore(read_state(run.state))
        videos = material.videos()
        self.train_data = ExampleDataset(material.splits["train"], videos)
        self.validation_data = ExampleDataset(material.splits["validation"], videos)
        self.batches, self.loader = self._training_loader()
        self.saved_at = time.monotonic()

    def _training_loader(self) -> tuple[EpochBatches, DataLoader[Batch[Any]]]:
        settings = self.settings
        assert settings.batch_size is not None
        batches = EpochBatches(
            len(self.train_data),
            settings.batch_size,
            seed=settings.seed,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
        )
        loader = batch_loader(
            self.train_data,
            self.task,
            batches,
            workers=settings.workers,
            pin_memory=self.fabric.device.type == "cuda",
        )
        return batches, loader

    def run(self) -> bool:
        progress = self.progress
        assert self.settings.epochs is not None
        if progress.is_finished:
            return True
        is_first = self.fabric.is_global_zero
        if is_first:
            self.observer.on_start(self.material, progress)
        with (
            deterministic_algorithms(self.settings.deterministic),
            TrainingLog(self.run_folder.path, progress.step, is_active=is_first) as log,
        ):
            while progress.epoch < self.settings.epochs and not progress.is_finished:
                if not self._train_epoch(log):
                    return False
                self._end_epoch(log)
        return True

    def _train_epoch(self, log: TrainingLog) -> bool:
        progress, fabric = self.progress, self.fabric
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate.rate(progress.epoch)
        self.batches.start(progress.epoch, progress.batch)
        total = self.batches.num_batches
        loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=fabric.device)
        begun = started = asked = time.monotonic()
        waited_s, seen = 0.0, 0
        for batch in self.loader:
            waited_s += time.monotonic() - asked
            loss = self._learn(batch.to(fabric.device), progress.batch, total)
            loss_sum += loss * len(batch.examples)
            progress.loss_count += len(batch.examples)
            seen += len(batch.examples)
            progress.batch += 1
            if self._is_step_end(progress.batch, total):
                progress.step += 1
                self._after_step(loss_sum, total, log)
                age_s = time.monotonic() - self.saved_at
                is_stopped, is_due = any_device(
                    fabric, self.stop.is_set(), age_s >= self.settings.checkpoint_every_s
                )
                if is_stopped:
                    self._count_time(started)
                    self._save(loss_sum)
                    return False
                if is_due:
                    self._count_time(started)
                    started = time.monotonic()
                    self._save(loss_sum)
            asked = time.monotonic()
        self._count_time(started)
        progress.loss_sum = _finite(float(loss_sum), progress)
        seconds = max(time.monotonic() - begun, 1e-9)
        self.speed = {
            "examples_per_s": seen / seconds,
            "data_wait_share": waited_s / seconds,
        }
        return True

    def _learn(self, batch: Batch[Any], number: int, total: int) -> Tensor:
        """One forward and backward pass, and a step of the optimiser where its group ends."""
        settings = self.settings
        group_start = number - number % settings.accumulate
        group_size = min(settings.accumulate, total - group_start)
        is_end = self._is_step_end(number + 1, total)
        with self.fabric.no_backward_sync(self.model, enabled=not is_end):
            outputs = self.model(**batch.inputs)
            loss = self.task.loss(outputs, batch)
            own = self.plain_model.auxiliary_loss(outputs, batch.targets)
            loss = loss if own is None else loss + own
            self.fabric.backward(loss / group_size)
        if is_end:
            if settings.gradient_clip is not None:
                self.fabric.clip_gradients(
                    self.model, self.optimizer, max_norm=settings.gradient_clip
                )
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss.detach().double()

    def _is_step_end(self, batches_done: int, total: int) -> bool:
        return batches_done % self.settings.accumulate == 0 or batches_done == total

    def _after_step(self, loss_sum: Tensor, total: int, log: TrainingLog) -> None:
        progress = self.progress
        if not self.fabric.is_global_zero:
            return
        self.observer.on_step(progress, total)
        if log.is_due(progress.step):
            log.write(progress.step, {"loss": float(loss_sum) / max(progress.loss_count, 1)})

    def _end_epoch(self, log: TrainingLog) -> None:
        progress, task = self.progress, self.task
        records = self._predict(self.validation_data)
        metrics = task.metrics(records)
        figure = metrics[task.figure]
        row = {
            "epoch": float(progress.epoch),
            "step": float(progress.step),
            "loss": progress.loss_sum / progress.loss_count,
            "learning_rate": self.rate.rate(progress.epoch),
            **{f"validation/{name}": value for name, value in metrics.items()},
            **self.speed,
        }
        self.rate.validated(figure)
        progress.waited += 1
        is_gain = progress.best is None or is_better(figure, progress.best, task.is_higher_better)
        # Of epochs with equal figures the last is kept: it has learnt longer.
        if is_gain or figure == progress.best:
            progress.waited = 0 if is_gain else progress.waited
            progress.best, progress.best_epoch = figure, progress.epoch
            if self.fabric.is_global_zero:
                save_model(
                    self.run_folder.best,
                    self.plain_model,
                    self.material.config.model_dump(mode="json"),
                    task,
                )
        progress.history.append(row)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.loss_sum, progress.loss_count = 0.0, 0
        patience = self.settings.patience
        progress.is_finished = progress.epoch == self.settings.epochs or (
            patience is not None and progress.waited >= patience
        )
        self._save(torch.tensor(0.0))
        if self.fabric.is_global_zero:
            self.run_folder.write_json("history.json", progress.history)
            log.write(progress.step, {k: v for k, v in row.items() if k not in ("epoch", "step")})
            self.observer.on_epoch(row)

    def _predict(self, data: ExampleDataset) -> list[Record]:
        """The records of all examples, in order, on every device."""
        fabric, task = self.fabric, self.task
        is_parted = task.is_shardable and fabric.world_size > 1
        rank, world = (fabric.global_rank, fabric.world_size) if is_parted else (0, 1)
        own = predict(
            self.model, task, data, self.settings.batch_size or 1, fabric.device,
            rank=rank, world_size=world,
        )  # fmt: skip
        if not is_parted:
            return own
        parts: list[Any] = [None] * world
        torch.distributed.all_gather_object(parts, own)
        merged: list[Any] = [None] * len(data)
        for number, part in enumerate(parts):
            merged[number::world] = part
        return merged

    def _count_time(self, started: float) -> None:
        self.progress.seconds += time.monotonic() - started

    def _save(self, loss_sum: Tensor) -> None:
        progress, fabric = self.progress, self.fabric
        progress.loss_sum = _finite(float(loss_sum), progress)
        states: list[Any] = [random_state()]
        if fabric.world_size > 1:
            states = [None] * fabric.world_size
            torch.distributed.all_gather_object(states, random_state())
        if fabric.is_global_zero:
            state = {
                "model": self.plain_model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "precision": fabric.strategy.precision.state_dict(),
                "rate": self.rate.state(),
                "progress": progress.to_json(),
                "random": states,
            }
            write_state(self.run_folder.state, state)
            self._pin()
        fabric.barrier()
        self.saved_at = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        if len(state["random"]) != self.fabric.world_size:
            raise VlpipeError(
                f"{self.run_folder.path} was trained on {len(state['random'])} devices, and "
                f"{self.fabric.world_size} are asked for: the order of the examples would change",
                hint=f"--set devices={len(state['random'])}",
            )
        self.plain_model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.rate.restore(state["rate"])
        self.progress = Progress(**state["progress"])
        restore_random_state(state["random"][self.fabric.global_rank])

    def _pin(self) -> None:
        try:
            self.material.store.pin(self.material.pin_name, hours=_PIN_HOURS)
        except VlpipeError as error:
            _LOG.warning("the snapshot of the store is not protected from collection: %s", error)


@torch.no_grad()
def predict(
    model: nn.Module,
    task: Task[Any],
    data: ExampleDataset,
    batch_size: int,
    device: torch.device,
    *,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    on_batch: Callable[[int], None] | None = None,
) -> list[Record]:
    """The records of every world_size-th example from rank on, by the model in evaluation mode."""
    model.eval()
    indices = in_order(len(data), batch_size, rank, world_size)
    loader = batch_loader(data, task, indices, workers=workers)

    def on_device() -> Iterator[Batch[Any]]:
        for batch in loader:
            yield batch.to(device)
            if on_batch is not None:
                on_batch(len(batch.examples))

    return task.predict(model, on_device())


def make_fabric(device: str, devices: int, precision: str) -> Fabric:
    """Fabric for these settings; several devices are processes of their own.

    Raises EnvironmentLacks where this machine has not as many.
    """
    # Its remarks about devices and precision go to nobody.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    names = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    device = choose_device(device, devices).type
    strategy = "auto" if devices == 1 else "ddp_spawn"
    chosen: Any = names[precision]
    return Fabric(accelerator=device, devices=devices, strategy=strategy, precision=chosen)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _finite(loss: float, progress: Progress) -> float:
    if not math.isfinite(loss):
        raise VlpipeError(
            f"training diverged: the loss is {loss} in epoch {progress.epoch}",
            hint="a lower learning_rate, gradient_clip=1, or precision=fp32",
        )
    return loss
