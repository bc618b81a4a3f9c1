"""Extraction without an orchestrator: plan, run batch after batch, commit each.

The command line, the Prefect flow and other runners are thin shells over this module, and all of
them write the same store, so that each carries on what another began.
"""

import os
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, Self

from vlpipe.pipelines.batch_run import BatchRun
from vlpipe.pipelines.batches import Batch
from vlpipe.pipelines.job import ExtractionJob
from vlpipe.pipelines.planning import Plan, make_plan
from vlpipe.pipelines.receipts import BatchReceipt, ExtractionSummary, Failure, summarise
from vlpipe.stores import FeatureDefinition, FeatureStore
from vlpipe.stores.errors import StoreNotFound, UsageError

if TYPE_CHECKING:
    from vlpipe.extractors import Extractor, ExtractorSpec


class Observer(Protocol):
    """Is told how an extraction goes; the command line draws progress from it."""

    def on_plan(self, plan: Plan) -> None: ...

    def on_video(self, video_id: str, failures: tuple[Failure, ...]) -> None: ...

    def on_batch(self, receipt: BatchReceipt) -> None: ...


class Silent:
    """An observer that says nothing."""

    def on_plan(self, plan: Plan) -> None:
        del plan

    def on_video(self, video_id: str, failures: tuple[Failure, ...]) -> None:
        del video_id, failures

    def on_batch(self, receipt: BatchReceipt) -> None:
        del receipt


class ExtractionWorker:
    """Everything that batches share in one process: networks, decoding processes, the store.

    Networks are built when a batch first needs them, and once. specs: those of the job, where
    the caller has them already.
    """

    def __init__(
        self,
        job: ExtractionJob,
        *,
        specs: "Sequence[ExtractorSpec] | None" = None,
    ) -> None:
        from vlpipe.extractors.device import open_device
        from vlpipe.extractors.media import DecodePool

        # Before the store is made: a machine without the device leaves nothing behind.
        open_device(job.device)
        self._specs = {spec.name: spec for spec in specs or job.specs()}
        self._definitions: dict[str, tuple[FeatureDefinition, ...]] = {
            name: spec.definitions() for name, spec in self._specs.items()
        }
        self._extractors: dict[str, Extractor] = {}
        self._run_id = f"extract-{uuid.uuid4().hex[:12]}"
        self._restores_deleted = job.restore_deleted
        self._is_lenient = job.damaged_media == "lenient"
        self._stack = ExitStack()
        self.store = self._stack.enter_context(FeatureStore.open_or_create(job.store))
        self._num_decoders = job.decode_workers or max(1, available_cores() - 1)
        self._pool = self._stack.enter_context(
            DecodePool(
                workers=self._num_decoders,
                tolerance=job.damaged_media,
            )
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
        names = [n for n in self._specs if any(n in task.extractors for task in batch.tasks)]
        for name in names:
            if name not in self._extractors:
                self._extractors[name] = self._specs[name].build()
        run = BatchRun(
            batch,
            {name: self._extractors[name] for name in names},
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


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plan_extraction(job: ExtractionJob) -> Plan:
    """The work of the job against its store, which need not exist yet; nothing is written."""
    try:
        store = FeatureStore.open(job.store)
    except StoreNotFound:
        return make_plan(job, None)
    with store:
        return make_plan(job, store)


def quarantine_problems(plan: Plan, store: FeatureStore) -> None:
    """Commits the videos that cannot be tried at all to the quarantine."""
    if not plan.problems:
        return
    definitions = [d for spec in plan.specs for d in plan.definitions[spec.name]]
    with store.writer(definitions) as writer:
        for problem in plan.problems:
            writer.fail(problem.id, None, problem.kind, problem.message)


def run_extraction(
    job: ExtractionJob,
    *,
    observer: Observer | None = None,
    stop: threading.Event | None = None,
) -> ExtractionSummary:
    """The summary of the whole job, run in this process batch after batch.

    stop: once set, videos in flight are finished and committed and the rest is left for the next
        run of the same job.
    """
    observer = observer or Silent()
    stop = stop or threading.Event()
    started = time.monotonic()
    plan = plan_extraction(job)
    observer.on_plan(plan)
    receipts: list[BatchReceipt] = []
    with ExtractionWorker(job, specs=plan.specs) as worker:
        quarantine_problems(plan, worker.store)
        for batch in plan.batches:
            if stop.is_set():
                break
            receipts.append(worker.run(batch, observer=observer, stop=stop))
            observer.on_batch(receipts[-1])
        return conclude(
            plan,
            receipts,
            worker.store,
            wall_s=time.monotonic() - started,
            was_stopped=stop.is_set(),
        )


def conclude(
    plan: Plan,
    receipts: Sequence[BatchReceipt],
    store: FeatureStore,
    *,
    wall_s: float,
    was_stopped: bool = False,
) -> ExtractionSummary:
    """The summary, after readers were let go over to what is complete now."""
    store.refresh()
    activated, inactive = _activate_complete(plan, receipts, store)
    summary = summarise(plan, receipts, version=store.version, wall_s=wall_s)
    return summary.model_copy(
        update={
            "activated": activated,
            "inactive": inactive,
            "was_interrupted": was_stopped and summary.not_reached > 0,
        }
    )


def _activate_complete(
    plan: Plan, receipts: Sequence[BatchReceipt], store: FeatureStore
) -> tuple[dict[str, str], dict[str, str]]:
    """Lets readers of a feature go over to its new generation once that covers the old one.

    Returns the features for which it did, and those for which it did not, with the reason: until
    then a reader gets the old generation, and the new one by `NAME@GENERATION`. Only a generation
    that this run added to is considered, so that jobs with different settings do not take turns
    (or any, where readers get none at all), and random numbers never replace features of trained
    weights.
    """
    activated: dict[str, str] = {}
    inactive: dict[str, str] = {}
    grown = {feature for r in receipts for video in r.stored for feature in video.rows}
    for definition in (d for ds in plan.definitions.values() for d in ds):
        active = store.features.get(definition.name)
        if active is None:
            is_due = definition.name in store.feature_names
        else:
            is_due = definition.name in grown and active.generation != definition.generation
        if not is_due:
            continue
        if active is not None and definition.is_untrained and not active.is_untrained:
            inactive[definition.name] = (
                f"readers go on to get generation {active.generation}, of trained weights; this "
                f"untrained one is {definition.name}@{definition.generation}"
            )
            continue
        try:
            store.activate(definition.name, definition.generation)
        except UsageError as error:
            inactive[definition.name] = error.message
        else:
            activated[definition.name] = f"readers now get generation {definition.generation}" + (
                f" instead of {active.generation}" if active else ""
            )
    return activated, inactive
