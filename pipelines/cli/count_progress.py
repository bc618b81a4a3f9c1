"""Progress of work that is counted, on stderr: a bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress

from vlpipe.pipelines.cli.output import messages, remark

_LINE_EVERY_S = 30.0


@contextmanager
def show_count(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function that is told how many of how many are done."""
    if sys.stderr.isatty():
        with Progress(console=messages()) as bar:
            task = bar.add_task(what, total=None)

            def draw(done: int, of: int) -> None:
                bar.update(task, completed=done, total=of)

            yield draw
        return
    told = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _LINE_EVERY_S or done == of:
            told = time.monotonic()
            remark(f"{done:,} of {of:,} {what}")

    yield tell
