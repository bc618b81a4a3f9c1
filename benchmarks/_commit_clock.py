"""When batches of an extraction were committed, and the rate while all workers have one."""

import threading
import time
from collections.abc import Callable

from vlpipe.pipelines.extraction.observer import Silent
from vlpipe.pipelines.extraction.receipts import BatchReceipt


class CommitClock(Silent):
    """Notes when how many videos were committed; calls `then` after as many batches as workers."""

    def __init__(self, num_workers: int, then: Callable[[], None] = lambda: None) -> None:
        self.num_workers, self._then = num_workers, then
        self.commits: list[tuple[float, int]] = []
        self._lock = threading.Lock()

    def on_batch(self, receipt: BatchReceipt) -> None:
        with self._lock:
            self.commits.append((time.monotonic(), len(receipt.stored)))
            is_time = len(self.commits) == self.num_workers
        if is_time:
            self._then()

    def rate(self) -> float:
        """Videos a second without as many batches as there are workers at the beginning, while they
        start, and at the end, when they run out of work."""
        steady = self.commits[self.num_workers - 1 : -self.num_workers]
        seconds = steady[-1][0] - steady[0][0]
        return sum(count for _, count in steady[1:]) / seconds
