"""An `os` that counts the calls that write, and fails or kills on order."""

import os
from collections.abc import Callable
from typing import Any


class WatchedOs:
    """The module `os` for the storage modules; `before(number, name, arguments)` is called ahead of
    each call that writes, and may raise or kill, or return a function to call instead."""

    _WRITING = frozenset(
        "open write pwrite fsync link unlink mkdir makedirs rename rmdir utime".split()  # noqa: SIM905
    )

    def __init__(self, before: Callable[[int, str, tuple[Any, ...]], Any]) -> None:
        self._before = before
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self._WRITING:
            return real

        def call(*arguments: Any, **keywords: Any) -> Any:
            if name == "open" and not arguments[1] & os.O_CREAT:
                return real(*arguments, **keywords)
            self.count += 1
            instead = self._before(self.count, name, arguments)
            return (instead or real)(*arguments, **keywords)

        return call
