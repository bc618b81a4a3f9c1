"""A worker: what the batches on one device share while they run."""

import threading
import uuid
from collections.abc import Sequence
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
        self._pool = self._stack.enter_context(job.decode_pool(num_decoders))

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
