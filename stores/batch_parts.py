"""The parts of one batch: opened when a feature gets its first rows, closed when they are full."""

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores import zarr_metadata
from vlpipe.stores.change import VIDEO_COLUMNS, PendingPart
from vlpipe.stores.errors import VlpipeError
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.part import PartWriter
from vlpipe.stores.storage import Storage

logger = logging.getLogger(__name__)

PART_MAX_VIDEOS = 4096  # more would make a ledger entry slow to read
PART_MAX_BYTES = 256 * 2**20


@dataclass
class _OpenPart:
    writer: PartWriter
    facts: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        writer = self.writer
        return len(writer.videos) >= PART_MAX_VIDEOS or writer.num_bytes >= PART_MAX_BYTES


class BatchParts:
    """Streams the rows of a batch into parts, usually one a feature."""

    def __init__(self, storage: Storage, batch: str) -> None:
        self._storage = storage
        self._batch = batch
        self._open: dict[str, _OpenPart] = {}
        self._finished: list[PendingPart] = []
        self._folders: list[str] = []  # of all parts, finished or not

    def append(
        self,
        definition: FeatureDefinition,
        video_id: str,
        rows: npt.NDArray[Any],
        spans: npt.NDArray[np.float64],
        facts: tuple[Any, ...],
    ) -> None:
        """Adds a video; `facts` are its values of the last columns of VIDEO_COLUMNS."""
        part = self._open.get(definition.name)
        if part is None:
            make_nodes(self._storage, definition)
            part = _OpenPart(PartWriter(self._storage, definition, self._batch))
            self._folders.append(part.writer.folder)
            self._open[definition.name] = part
        part.writer.append(video_id, rows, spans)
        part.facts.append(facts)
        if part.is_full:
            self._finish_part(definition.name)

    def finish(self) -> list[PendingPart]:
        """All parts, complete and durable."""
        for name in list(self._open):
            self._finish_part(name)
        return self._finished

    def abandon(self, *, is_removed: bool) -> None:
        """Closes all files, and removes the parts unless a ledger entry may name them."""
        for part in self._open.values():
            part.writer.abandon()
        self._open.clear()
        if is_removed:
            for folder in self._folders:
                self.remove(folder)

    def remove(self, folder: str) -> None:
        try:
            self._storage.remove(folder)
        except VlpipeError as error:
            logger.info("a leftover stays until it is collected: %s", error)

    def _finish_part(self, name: str) -> None:
        part = self._open[name]
        writer = part.writer
        finished = writer.close()
        del self._open[name]
        columns: list[list[Any]] = [
            *writer.columns(),
            *(list(column) for column in zip(*part.facts, strict=True)),
        ]
        videos = dict(zip(VIDEO_COLUMNS, columns, strict=True))
        self._finished.append(PendingPart(writer.definition, finished, videos))


def make_nodes(storage: Storage, definition: FeatureDefinition) -> None:
    """The Zarr groups above a part. All writers make them alike, so it matters not who."""
    for name, node in zarr_metadata.groups_above(definition).items():
        if storage.size(name) is None:
            storage.create(name, zarr_metadata.encode(node))
