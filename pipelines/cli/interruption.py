"""Ctrl-C: once to stop when the videos in flight are stored, twice to stop at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED_EXIT_CODE = 130


class Interrupted(BaseException):
    """The user wants to stop now. Not KeyboardInterrupt: libraries turn that into exit code 1."""


def raise_interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """The handler of SIGINT outside long work."""
    del number, frame
    raise Interrupted


@contextmanager
def stop_on_interrupt(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) sets `stop`, the second raises Interrupted."""

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if stop.is_set():
            raise Interrupted
        stop.set()
        # Not through the console: this may interrupt a write to it.
        os.write(
            2,
            b"\ninterrupted: finishing and storing the videos in flight; "
            b"once more to stop at once; the same command carries on later\n",
        )

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
