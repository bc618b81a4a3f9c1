"""What a runner is, and the one loop that feeds it: no more batches than it has workers for."""

import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Protocol, Self

from vlpipe.pipelines.extraction.batches import Batch
from vlpipe.pipelines.extraction.observer import Observer
from vlpipe.pipelines.extraction.receipts import BatchReceipt
from vlpipe.stores import FeatureStore

RunBatch = Callable[[Batch], BatchReceipt]

# How often a stop is looked for, and workers that came or went are counted.
_LOOK_S = 0.5

# Threads that only wait; each stands for a batch that a worker somewhere is busy with.
_MOST_IN_FLIGHT = 4096


class Runner(Protocol):
    """Runs batches on its workers; `run` may be called from as many threads as there are slots."""

    @property
    def store(self) -> FeatureStore:
        """The store that its workers write, opened by this process."""
        ...

    @property
    def num_slots(self) -> int:
        """Batches that it takes at a time, now; 1 for a runner that works in the calling thread."""
        ...

    def run(self, batch: Batch, *, observer: Observer, stop: threading.Event) -> BatchReceipt:
        """The receipt of the batch, committed to the store.

        observer: told of every video. stop: once set, no further video is begun. Raises only what
        is no single video's fault.
        """
        ...

    def abandon(self) -> None:
        """Gives up the batches in flight; their `run` raises if it can be reached."""
        ...

    def close(self) -> None:
        """Ends what it started."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def run_batches(
    runner: Runner, batches: Sequence[Batch], run_batch: RunBatch, *, stop: threading.Event
) -> list[BatchReceipt]:
    """The receipts of the batches that were begun before `stop` was set.

    run_batch is called in a thread for each slot, or in the caller's for a single one; what waits
    is the plan alone. The first error ends the rest of the work, after the batches in flight, and
    is raised.
    """
    if runner.num_slots > 1:
        return _run_in_threads(runner, iter(batches), run_batch, stop=stop)
    receipts = []
    for batch in batches:
        if stop.is_set():
            break
        receipts.append(run_batch(batch))
    return receipts


def _run_in_threads(
    runner: Runner, waiting: Iterator[Batch], run_batch: RunBatch, *, stop: threading.Event
) -> list[BatchReceipt]:
    receipts: list[BatchReceipt] = []
    errors: list[BaseException] = []
    running: set[Future[BatchReceipt]] = set()
    with ThreadPoolExecutor(_MOST_IN_FLIGHT, "batch") as threads:
        try:
            while True:
                num_free = 0 if errors or stop.is_set() else runner.num_slots - len(running)
                for batch in islice(waiting, max(0, num_free)):
                    # Prefect knows from context variables which flow run a task belongs to.
                    context = contextvars.copy_context()
                    running.add(threads.submit(context.run, run_batch, batch))
                if not running:
                    break
                done, running = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                for future in done:
                    error = future.exception()
                    if error is None:
                        receipts.append(future.result())
                    else:
                        errors.append(error)
        except BaseException:
            runner.abandon()
            raise
    if errors:
        raise errors[0]
    return receipts
