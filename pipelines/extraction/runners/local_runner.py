"""The runner without a cluster: this process and its children, one worker for each device."""

import queue
import threading
from contextlib import ExitStack
from typing import Self

from vlpipe.pipelines.extraction.batches import Batch
from vlpipe.pipelines.extraction.cores import available_cores
from vlpipe.pipelines.extraction.observer import Observer
from vlpipe.pipelines.extraction.planning import Plan
from vlpipe.pipelines.extraction.receipts import BatchReceipt
from vlpipe.pipelines.extraction.worker import ExtractionWorker
from vlpipe.stores import FeatureStore


class LocalRunner:
    """A worker for each device of the job; the decoding processes are divided among them."""

    def __init__(self, plan: Plan) -> None:
        from vlpipe.extractors.device import open_device

        job = plan.job
        # Before the store is made: a machine without the device leaves nothing behind.
        for device in job.devices:
            open_device(device)
        decoders = job.decode_workers or max(1, available_cores() - 1)
        self._stack = ExitStack()
        self._workers = [
            self._stack.enter_context(
                ExtractionWorker(
                    job,
                    specs=[spec.on(device) for spec in plan.specs],
                    num_decoders=max(1, decoders // len(job.devices)),
                )
            )
            for device in job.devices
        ]
        self._idle = queue.SimpleQueue[ExtractionWorker]()
        for worker in self._workers:
            self._idle.put(worker)

    @property
    def store(self) -> FeatureStore:
        return self._workers[0].store

    @property
    def num_slots(self) -> int:
        return len(self._workers)

    def run(self, batch: Batch, *, observer: Observer, stop: threading.Event) -> BatchReceipt:
        """The receipt of the batch, run on the next device that is free."""
        worker = self._idle.get()
        try:
            return worker.run(batch, observer=observer, stop=stop)
        finally:
            self._idle.put(worker)

    def abandon(self) -> None:
        """Nothing: a batch that runs in another thread ends with the videos in flight."""

    def close(self) -> None:
        """Ends all decoding processes and closes the store."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
