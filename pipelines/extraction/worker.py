"""Workers: what batches share while they run, one worker for each device of the job."""

import contextvars
import os
import queue
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from vlpipe.pipelines.extraction.batch_run import BatchRun
from vlpipe.pipelines.extraction.batches import Batch
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.extraction.observer import Observer, Silent
from vlpipe.pipelines.extraction.receipts import BatchReceipt
from vlpipe.stores import FeatureDefinition, FeatureStore

if TYPE_CHECKING:
    from vlpipe.extractors import Extractor, ExtractorSpec


class ExtractionWorker:
    """What the batches on one device share: networks, decoding processes, the store.

    Networks are built when a batch first needs them, and once. specs: those of the job, for the
    worker's device. num_decoders: processes that decode for it.
    """

    def __init__(
        self, job: ExtractionJob, *, specs: "Sequence[ExtractorSpec]", num_decoders: int
    ) -> None:
        from vlpipe.extractors.graph import make_graph
        from vlpipe.extractors.media import DecodePool

        self._definitions: dict[str, tuple[FeatureDefinition, ...]] = {
            spec.name: spec.definitions() for spec in specs
        }
        self._graph = make_graph(specs)
        self._extractors: dict[str, Extractor] = {}
        self._run_id = f"extract-{uuid.uuid4().hex[:12]}"
        self._restores_deleted = job.restore_deleted
        self._is_lenient = job.damaged_media == "lenient"
        self._stack = ExitStack()
        self.store = self._stack.enter_context(FeatureStore.open_or_create(job.store))
        self._num_decoders = num_decoders
        self._pool = self._stack.enter_context(
            DecodePool(workers=num_decoders, tolerance=job.damaged_media)
        )

    def run(
        self,
        batch: Batch,
        *,
        observer: Observer | None = None,
        stop: threading.Event | None = None,
    ) -> BatchReceipt:
        """The receipt of the batch, committed to the store.

        Raises only what is no single video's fault, after which the store is as it was before.
        """
        from vlpipe.extractors.graph import with_sources

        keys = with_sources(self._graph, {n for task in batch.tasks for n in task.extractors})
        for key in keys:
            if key not in self._extractors:
                self._extractors[key] = self._graph[key].spec.build()
        run = BatchRun(
            batch,
            self._graph,
            {key: self._extractors[key] for key in keys},
            self._definitions,
            self._pool,
            num_decoders=self._num_decoders,
            on_video=(observer or Silent()).on_video,
            stop=stop or threading.Event(),
            restores_deleted=self._restores_deleted,
            is_lenient=self._is_lenient,
        )
        return run.run(self.store, run_id=self._run_id)

    def close(self) -> None:
        """Ends the decoding processes and closes the store."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class WorkerTeam:
    """A worker for each device of the job; the decoding processes are divided among them."""

    def __init__(
        self, job: ExtractionJob, *, specs: "Sequence[ExtractorSpec] | None" = None
    ) -> None:
        from vlpipe.extractors.device import open_device

        # Before the store is made: a machine without the device leaves nothing behind.
        for device in job.devices:
            open_device(device)
        wanted = specs or job.specs()
        decoders = job.decode_workers or max(1, available_cores() - 1)
        self._stack = ExitStack()
        self._workers = [
            self._stack.enter_context(
                ExtractionWorker(
                    job,
                    specs=[spec.on(device) for spec in wanted],
                    num_decoders=max(1, decoders // len(job.devices)),
                )
            )
            for device in job.devices
        ]

    @property
    def store(self) -> FeatureStore:
        return self._workers[0].store

    def run_all(
        self,
        batches: Sequence[Batch],
        run_batch: Callable[[ExtractionWorker, Batch], BatchReceipt],
        *,
        stop: threading.Event,
    ) -> list[BatchReceipt]:
        """The receipts of the batches that were begun before `stop` was set.

        run_batch is called in a thread for each worker, or in the caller's for a single one. The
        first error ends the rest of the work, after the batches in flight, and is raised.
        """
        waiting = queue.SimpleQueue[Batch]()
        for batch in batches:
            waiting.put(batch)
        receipts: list[BatchReceipt] = []
        has_failed = threading.Event()

        def work(worker: ExtractionWorker) -> None:
            while not stop.is_set() and not has_failed.is_set():
                try:
                    batch = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    receipts.append(run_batch(worker, batch))
                except BaseException:
                    has_failed.set()
                    raise

        if len(self._workers) == 1:
            work(self._workers[0])
            return receipts
        with ThreadPoolExecutor(len(self._workers), "device") as threads:
            # Prefect knows from context variables which flow run a task belongs to.
            futures = [
                threads.submit(contextvars.copy_context().run, work, worker)
                for worker in self._workers
            ]
        for future in futures:
            future.result()
        return receipts

    def close(self) -> None:
        """Ends all decoding processes and closes the store."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
