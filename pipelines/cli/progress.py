"""Progress of an extraction on stderr: a bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from vlpipe.pipelines.cli.output import messages, remark
from vlpipe.pipelines.extraction.observer import Observer
from vlpipe.pipelines.extraction.planning import Plan
from vlpipe.pipelines.extraction.receipts import BatchReceipt, Failure

_LINE_EVERY_S = 30.0


@contextmanager
def show_progress() -> Iterator[Observer]:
    """An observer that draws a bar when stderr is a terminal, and writes plain lines if not."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    progress = Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=messages(),
    )
    with progress:
        yield _Bar(progress)


@contextmanager
def show_count(description: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that draws a bar when stderr is a terminal, and writes a line
    now and then if not."""
    if sys.stderr.isatty():
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        text = TextColumn("[progress.description]{task.description}")
        with Progress(text, *columns, console=messages(), transient=True) as progress:
            task = progress.add_task(description, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)
        return
    last_line = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last_line
        if time.monotonic() - last_line >= _LINE_EVERY_S:
            last_line = time.monotonic()
            remark(f"{description}: {done} of {total}")

    yield show


class _Count:
    """What has happened so far in the newest extraction, in numbers."""

    def __init__(self) -> None:
        self._begin(0)

    def _begin(self, total: int) -> None:
        self.total, self.done, self.failed = total, 0, 0
        self.media_s = 0.0
        self.started = time.monotonic()

    def on_plan(self, plan: Plan) -> None:
        self._begin(plan.num_tasks)

    def on_notice(self, text: str) -> None:
        remark(text)

    def on_video(self, video_id: str, failures: tuple[Failure, ...]) -> None:
        del video_id
        self.done += 1
        self.failed += bool(failures)

    def on_batch(self, receipt: BatchReceipt) -> None:
        self.media_s += sum(video.media_s for video in receipt.stored)

    def rate(self) -> str:
        seconds = max(1e-9, time.monotonic() - self.started)
        text = f"{self.done / seconds:.1f} videos/s"
        if self.media_s:
            text += f", {self.media_s / seconds:.1f} s of media/s"
        return text + (f", {self.failed} failed" if self.failed else "")


class _Lines(_Count):
    def __init__(self) -> None:
        super().__init__()
        self._last_line = float("-inf")

    def on_plan(self, plan: Plan) -> None:
        super().on_plan(plan)
        remark(
            f"{plan.job.source_name}: {plan.num_tasks} of {len(plan.selected)} videos to do in "
            f"{len(plan.batches)} batches, {len(plan.stored)} stored, {len(plan.missing)} not on "
            f"disk"
        )

    def on_video(self, video_id: str, failures: tuple[Failure, ...]) -> None:
        super().on_video(video_id, failures)
        if time.monotonic() - self._last_line >= _LINE_EVERY_S or self.done == self.total:
            self._last_line = time.monotonic()
            remark(f"{self.done} of {self.total} videos, {self.rate()}, now {video_id}")


class _Bar(_Count):
    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._task: TaskID | None = None

    def on_plan(self, plan: Plan) -> None:
        super().on_plan(plan)
        self._task = self._progress.add_task(plan.job.source_name, total=self.total, rate="")

    def on_video(self, video_id: str, failures: tuple[Failure, ...]) -> None:
        super().on_video(video_id, failures)
        if self._task is not None:
            self._progress.update(self._task, completed=self.done, rate=self.rate())
