"""Progress of a training on stderr: a bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vlpipe.pipelines.cli.output import messages, remark

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from vlpipe.pipelines.training.loop import TrainingObserver
    from vlpipe.pipelines.training.material import Material
    from vlpipe.pipelines.training.state import Progress

_LINE_EVERY_S = 30.0


@contextmanager
def show_training(*, is_plain: bool = False) -> Iterator["TrainingObserver"]:
    """An observer that draws a bar when stderr is a terminal, and writes plain lines if not.

    is_plain: lines in any case; these can be sent to another process.
    """
    if is_plain or not sys.stderr.isatty():
        yield TrainingLines()
        return
    with training_bar() as bar:
        yield _Drawn(bar)


def training_bar() -> "Bar":
    """A bar on stderr whose tasks have a field `figures`."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
        console=messages(),
    )


class TrainingLines:
    """Plain lines: the start, the end of each epoch, and every half minute within one."""

    def __init__(self) -> None:
        self._epochs: int | None = None
        self._last_line = float("-inf")

    def on_start(self, material: "Material", progress: "Progress") -> None:
        self._epochs = material.job.settings.epochs
        self._last_line = time.monotonic()
        counts = ", ".join(f"{len(e)} {name}" for name, e in material.splits.items())
        begun = f", from epoch {progress.epoch}, step {progress.step}" if progress.step else ""
        remark(f"{material.model.name} {material.task.name}: {counts} examples{begun}")

    def on_step(self, progress: "Progress", num_batches: int) -> None:
        if time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            remark(f"epoch {progress.epoch}, batch {progress.batch} of {num_batches}")

    def on_epoch(self, row: dict[str, float]) -> None:
        self._last_line = time.monotonic()
        remark(f"epoch {row['epoch']:.0f} of {self._epochs}: {figures_line(row)}")


class _Drawn:
    def __init__(self, bar: "Bar") -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._figures = ""

    def on_start(self, material: "Material", progress: "Progress") -> None:
        epochs = material.job.settings.epochs or 1
        self._task = self._bar.add_task(
            f"{material.model.name} {material.task.name}", total=epochs, figures=""
        )
        self._bar.update(self._task, completed=progress.epoch)

    def on_step(self, progress: "Progress", num_batches: int) -> None:
        if self._task is not None:
            done = progress.epoch + progress.batch / max(1, num_batches)
            self._bar.update(self._task, completed=done, figures=self._figures)

    def on_epoch(self, row: dict[str, float]) -> None:
        self._figures = figures_line(row)
        if self._task is not None:
            self._bar.update(self._task, completed=row["epoch"] + 1, figures=self._figures)


def figures_line(row: dict[str, float]) -> str:
    """The figures of an epoch in a line; those of parts are left out."""
    shown = [f"loss {row['loss']:.4g}"]
    shown += [
        f"{name.removeprefix('validation/')} {value:.4g}"
        for name, value in row.items()
        if name.startswith("validation/") and name.count("/") == 1
    ]
    return ", ".join([*shown, f"{row['examples_per_s']:.3g} examples/s"])
