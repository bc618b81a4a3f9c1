"""The parts of one batch: opened when a feature gets its first rows, closed when they are full."""

import logging
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores import zarr_metadata
from vlpipe.stores.change import VIDEO_COLUMNS, PendingPart
from vlpipe.stores.errors import StoreUnwritable, VlpipeError
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.layout import DATA, NODE_FILE, generation_folder
from vlpipe.stores.part import Part, PartWriter
from vlpipe.stores.storage import Storage

logger = logging.getLogger(__name__)

PART_MAX_VIDEOS = 4096  # more would make a ledger entry slow to read
PART_MAX_BYTES = 256 * 2**20
GRACE_S = 24 * 3600.0  # collection leaves parts alone that are younger


@dataclass
class _OpenPart:
    writer: PartWriter
    facts: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        writer = self.writer
        return len(writer.video_ids) >= PART_MAX_VIDEOS or writer.num_bytes >= PART_MAX_BYTES


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
            self._make_nodes(definition)
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

    def check(self, part: Part) -> None:
        """Raises unless a finished part is as it was written and young enough to be committed."""
        part.check_files(self._storage)
        written = self._storage.modified(f"{part.folder}/{NODE_FILE}")
        age_s = math.inf if written is None else self._storage.now() - written
        if age_s > GRACE_S / 2:
            # It could be collected as a leftover in the moment in which it is committed.
            raise StoreUnwritable(
                f"{self._storage.url}/{part.folder} is {age_s / 3600:.0f} hours old",
                hint="commit smaller batches",
            )

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

    def _make_nodes(self, definition: FeatureDefinition) -> None:
        """The Zarr groups above a part. All writers make them alike, so it matters not who."""
        folder = generation_folder(definition.name, definition.generation)
        for name, node in (
            (f"{DATA}/{definition.name}/{NODE_FILE}", zarr_metadata.group()),
            (f"{folder}/{NODE_FILE}", zarr_metadata.generation_group(definition)),
        ):
            if self._storage.size(name) is None:
                self._storage.create(name, zarr_metadata.encode(node))

    def _finish_part(self, name: str) -> None:
        part = self._open[name]
        writer = part.writer
        finished = writer.close()
        del self._open[name]
        columns: list[list[Any]] = [
            writer.video_ids,
            writer.row_starts,
            writer.row_sizes,
            writer.crc32cs,
            writer.spans_crc32cs,
            *(list(column) for column in zip(*part.facts, strict=True)),
        ]
        videos = dict(zip(VIDEO_COLUMNS, columns, strict=True))
        self._finished.append(PendingPart(writer.definition, finished, videos))
