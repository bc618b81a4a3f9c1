"""Ctrl-C: once to stop when the work in hand is kept, twice to stop at once."""

import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

INTERRUPTED_EXIT_CODE = 130

SAME_COMMAND = "the same command carries on"

KEEPING_THE_STEP = "keeping the step in hand"
"""What trainings do after the first Ctrl-C."""


class Interrupted(BaseException):
    """The user wants to stop now; its text says how to carry on.

    Not KeyboardInterrupt: libraries turn that into exit code 1.
    """


def raise_interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """The handler of SIGINT outside long work."""
    del number, frame
    raise Interrupted(SAME_COMMAND)


@contextmanager
def stop_on_interrupt(
    stop: threading.Event,
    *,
    finishing: str = "finishing and storing the videos in flight",
    later: Callable[[], str] = lambda: SAME_COMMAND,
) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) sets `stop`, the second raises Interrupted.

    finishing: what happens after the first. later: how to carry on after either.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if stop.is_set():
            raise Interrupted(later())
        stop.set()
        # Not through the console: this may interrupt a write to it.
        text = f"\ninterrupted: {finishing}; once more to stop at once; {later()}\n"
        os.write(2, text.encode())

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_training_on_interrupt(
    stop: threading.Event, command: str, run: Path
) -> AbstractContextManager[None]:
    """`stop_on_interrupt` of a command that trains into the folder of that run."""

    def later() -> str:  # before there is a run, the command begins anew
        return resuming(command, run) if (run / "run.json").exists() else SAME_COMMAND

    return stop_on_interrupt(stop, finishing=KEEPING_THE_STEP, later=later)


def resuming(command: str, run: Path) -> str:
    """How a run is carried on, to be pasted into a shell."""
    return f"`vlpipe {command} --resume {shlex.quote(str(run))}` carries on"
