"""The runner on a Dask cluster: a batch is a task, and each worker commits its batches itself.

Dask runs the batch of a worker that was lost on another one. Whatever the first had committed
stays, and the store refuses it a second time. A batch that keeps losing its workers is halved until
the video that does it is alone, which goes into quarantine.
"""

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import ExitStack
from typing import Self

from distributed import Future, KilledWorker

from vlpipe.pipelines.extraction.batches import Batch
from vlpipe.pipelines.extraction.job import DaskOptions
from vlpipe.pipelines.extraction.observer import Observer
from vlpipe.pipelines.extraction.planning import Plan
from vlpipe.pipelines.extraction.receipts import BatchReceipt, Failure, merge_receipts
from vlpipe.pipelines.extraction.runners.dask_cluster import GPU, open_client
from vlpipe.pipelines.extraction.runners.dask_worker import (
    ExtractionPlugin,
    finish_early,
    run_batch,
)
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import EnvironmentLacks, UsageError

logger = logging.getLogger(__name__)

# How often a stop is looked for, and the workers are counted.
_LOOK_S = 1.0
_COUNT_S = 5.0


class DaskRunner:
    """The workers of a cluster.

    As many batches are handed out as there are workers, and one more, so that nothing piles up on
    the scheduler and no worker waits for the next one.
    """

    def __init__(self, plan: Plan, *, notify: Callable[[str], None]) -> None:
        job = plan.job.with_absolute_paths()
        if job.store.startswith("memory:"):
            raise UsageError(
                f"{job.store}: workers cannot see a store in the memory of this process",
                hint="name a folder that all of them can reach",
            )
        self._plan = plan
        self._notify = notify
        self._name = f"extract-{uuid.uuid4().hex[:12]}"
        self._needs_gpu = any(device.startswith("cuda") for device in job.devices)
        self._lock = threading.Lock()
        self._in_flight: set[Future] = set()
        self._is_finishing = False
        self._counted_at = float("-inf")
        self._stack = ExitStack()
        with ExitStack() as opening:
            options = job.dask or DaskOptions()
            self._client = opening.enter_context(open_client(options, job.devices, notify=notify))
            self.store = opening.enter_context(FeatureStore.open_or_create(job.store))
            plugin = ExtractionPlugin(
                self._name,
                job,
                {d.name: d.generation for ds in plan.definitions.values() for d in ds},
                num_threads=options.threads,
            )
            self._client.register_plugin(plugin)
            opening.callback(self._client.unregister_worker_plugin, self._name)
            self._count_workers()
            if not self._num_workers:
                notify("no Dask worker is there yet; the first batch waits for one")
            self._stack = opening.pop_all()

    @property
    def num_slots(self) -> int:
        if time.monotonic() - self._counted_at > _COUNT_S:
            self._count_workers()
        return max(1, self._num_workers) + 1

    def run(self, batch: Batch, *, observer: Observer, stop: threading.Event) -> BatchReceipt:
        """The receipt of the batch, run by a worker that is free, or by several one after the
        other if it cost the first ones their lives."""
        receipt = self._run_or_halve(batch, stop)
        failures: dict[str, list[Failure]] = {}
        for failure in receipt.failed:
            failures.setdefault(failure.id, []).append(failure)
        done = {video.id for video in receipt.stored} | {*receipt.kept, *receipt.deleted}
        for task in batch.tasks:
            if task.id in done or task.id in failures:
                observer.on_video(task.id, tuple(failures.get(task.id, ())))
        return receipt

    def abandon(self) -> None:
        """Forgets the batches in flight; a cluster that goes on commits those that have begun."""
        with self._lock:
            futures = list(self._in_flight)
        self._client.cancel(futures)

    def close(self) -> None:
        """Ends the workers of a cluster of its own; lets those of another forget the networks."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run_or_halve(self, batch: Batch, stop: threading.Event) -> BatchReceipt:
        try:
            return self._run_on_cluster(batch, stop)
        except KilledWorker as error:
            deaths = error.allowed_failures + 1
        if len(batch.tasks) == 1:
            return self._quarantine(batch, deaths)
        self._notify(
            f"batch {batch.id} lost {deaths} workers; its {len(batch.tasks)} videos are done in "
            "halves, to find the one that does it"
        )
        return merge_receipts(batch.id, [self._run_or_halve(h, stop) for h in batch.halves()])

    def _run_on_cluster(self, batch: Batch, stop: threading.Event) -> BatchReceipt:
        """Raises KilledWorker when so many workers were lost over it as Dask allows."""
        tasks = tuple(t.model_copy(update={"path": t.path.absolute()}) for t in batch.tasks)
        future = self._client.submit(
            run_batch,
            batch.model_copy(update={"tasks": tasks}).model_dump_json(),
            plugin=self._name,
            workers_here=self._most_on_a_machine,
            key=f"extract-batch-{batch.id}-{uuid.uuid4().hex[:8]}",
            resources={GPU: 1} if self._needs_gpu and self._declares_gpus else None,
        )
        with self._lock:
            self._in_flight.add(future)
        try:
            if not self._wait(future, stop):
                return _receipt(batch, was_interrupted=True)
            return BatchReceipt.model_validate_json(future.result())
        except CancelledError as error:
            raise EnvironmentLacks(
                f"batch {batch.id} was cancelled, or the Dask scheduler is gone",
                hint="the same command carries on, with whatever runner",
            ) from error
        finally:
            with self._lock:
                self._in_flight.discard(future)
            future.release()

    def _wait(self, future: Future, stop: threading.Event) -> bool:
        """Whether the batch was done; False when it is to stop and no worker could begin it."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        while not done.wait(_LOOK_S):
            if stop.is_set():
                self._finish_early()
                self._count_workers()
                if not self._num_workers:
                    return False
        return True

    def _finish_early(self) -> None:
        """Once: tells the workers to begin no further video."""
        with self._lock:
            if self._is_finishing:
                return
            self._is_finishing = True
        self._client.run(finish_early, plugin=self._name, on_error="ignore")

    def _quarantine(self, batch: Batch, deaths: int) -> BatchReceipt:
        """The receipt of a video that no worker survived, after it was committed as failed."""
        (task,) = batch.tasks
        definitions = [d for name in task.extractors for d in self._plan.definitions[name]]
        message = (
            f"{task.path}: {deaths} Dask workers died, one after the other, while each had this "
            "video alone: of memory, or of a crash in a library"
        )
        with self._lock, self.store.writer(definitions, batch=batch.id) as writer:
            writer.fail(task.id, None, "killed_worker", message, retry=True)
        features = tuple(d.name for d in definitions)
        failure = Failure(id=task.id, features=features, kind="killed_worker", message=message)
        return _receipt(batch, failed=(failure,), version=writer.receipt.version)

    def _count_workers(self) -> None:
        # Not by `scheduler_info`: a periodic update of the client can empty what that returns.
        identity = self._client.sync(self._client.scheduler.identity, n_workers=-1)
        workers = identity["workers"].values()
        self._declares_gpus = any(GPU in worker["resources"] for worker in workers)
        if self._needs_gpu and self._declares_gpus:
            workers = [worker for worker in workers if GPU in worker["resources"]]
        self._num_workers = len(workers)
        self._most_on_a_machine = max(Counter(w["host"] for w in workers).values(), default=1)
        self._counted_at = time.monotonic()


def _receipt(
    batch: Batch,
    *,
    failed: tuple[Failure, ...] = (),
    version: int = 0,
    was_interrupted: bool = False,
) -> BatchReceipt:
    """Of a batch of which nothing was stored."""
    return BatchReceipt(
        batch=batch.id,
        version=version,
        stored=(),
        failed=failed,
        num_bytes=0,
        stage_s={},
        wall_s=0.0,
        was_interrupted=was_interrupted,
    )
