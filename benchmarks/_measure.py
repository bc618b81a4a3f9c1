"""Timing in turn, the machine's matrix rate, and the memory of a process tree."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil
import torch

Clock = Callable[[], float]


def processor_clock() -> float:
    """Seconds that this process and those it has waited for have had a processor.

    What else runs on the machine disturbs it less than the time on the wall.
    """
    return sum(os.times()[:4])


def best_of_turns(
    sides: Mapping[str, Callable[[], object]], turns: int, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Least seconds of each side, run in turn so that a slow spell of the machine hits all."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, run in sides.items():
            started = clock()
            run()
            times[name].append(clock() - started)
    return {name: min(seconds) for name, seconds in times.items()}


def matrix_rate(
    dtype: torch.dtype = torch.float32, *, edge: int = 3072, clock: Clock = time.perf_counter
) -> float:
    """GFLOP/s of a square matrix product with torch's threads, the best of eight."""
    a, b = (torch.randn(edge, edge).to(dtype) for _ in range(2))
    best = min(best_of_turns({"product": lambda: a @ b}, 8, clock).values())
    return 2 * edge**3 / best / 1e9


def peak_memory(*arguments: str, shows_output: bool = False) -> float:
    """MiB of resident memory that a Python process and its children reach together at most."""
    stdout = None if shows_output else subprocess.DEVNULL
    with subprocess.Popen([sys.executable, *arguments], stdout=stdout) as process:
        peak = 0
        watched = psutil.Process(process.pid)
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.05):
                with suppress(psutil.Error):
                    tree = [watched, *watched.children(recursive=True)]
                    # Unique memory: the pages of a library that all of them map count once.
                    peak = max(peak, sum(p.memory_full_info().uss for p in tree))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        done.set()
        watcher.join()
    if code:
        raise RuntimeError(f"{' '.join(arguments)} ended with code {code}")
    return peak / 2**20
