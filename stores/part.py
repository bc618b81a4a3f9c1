"""A part: the immutable folder with the rows of one feature for a batch of videos."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores import zarr_metadata
from vlpipe.stores.checksum import crc32c
from vlpipe.stores.errors import StoreDamaged, StoreUnwritable
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.layout import NODE_FILE, array_file, new_part_id, part_folder
from vlpipe.stores.row_file import BASE, RowFileShape, RowFileWriter, row_size_bytes
from vlpipe.stores.small_array import encode_numbers, encode_texts
from vlpipe.stores.storage import Storage
from vlpipe.stores.stored_dtypes import stored_dtype

GRACE_S = 24 * 3600.0  # collection leaves parts alone that are younger

_SPANS_DTYPE = np.dtype("<f8")


@dataclass(frozen=True, eq=False)  # compared by identity: parts are keys of large tables
class Part:
    """What a ledger entry says about a part.

    base, spans_base: the byte of its file at which the first row, and the first span, begins.
    """

    id: str
    feature: str
    generation: str
    num_rows: int
    num_videos: int
    dtype: str
    row_shape: tuple[int, ...]
    chunk_rows: int
    codec: str
    base: int
    rows_bytes: int
    spans_bytes: int
    form: str
    version: int
    created: str
    spans_base: int = BASE

    @property
    def folder(self) -> str:
        return part_folder(self.feature, self.generation, self.id)

    @cached_property
    def rows_file(self) -> str:
        return array_file(self.folder, "rows", 1 + len(self.row_shape))

    @cached_property
    def spans_file(self) -> str:
        return array_file(self.folder, "spans", 2)

    @cached_property
    def rows_shape(self) -> RowFileShape:
        dtype = np.dtype(self.dtype).newbyteorder("<")
        return RowFileShape(self.num_rows, dtype, self.row_shape, self.chunk_rows)

    @property
    def num_bytes(self) -> int:
        """Size of its row files together."""
        return self.rows_bytes + self.spans_bytes

    @cached_property
    def rows_dtype(self) -> np.dtype[Any]:
        return self.rows_shape.dtype

    @property
    def spans_shape(self) -> RowFileShape:
        return RowFileShape.of(self.num_rows, _SPANS_DTYPE, (2,))

    @property
    def is_folder(self) -> bool:
        """Whether it has a folder, with metadata and small arrays that say what the ledger says."""
        return True

    @cached_property
    def is_plain(self) -> bool:
        """Whether the rows lie uncompressed, one after the other, behind the header."""
        return self.codec == "none" and self.form == "zarr"

    def to_json(self) -> dict[str, Any]:
        """The value of `part` in an `add` operation."""
        return {
            "id": self.id,
            "rows": self.num_rows,
            "videos": self.num_videos,
            "dtype": self.dtype,
            "row_shape": list(self.row_shape),
            "chunk_rows": self.chunk_rows,
            "codec": self.codec,
            "base": self.base,
            "files": {"rows": {"bytes": self.rows_bytes}, "spans": {"bytes": self.spans_bytes}},
        }

    @classmethod
    def from_json(
        cls, value: dict[str, Any], feature: str, generation: str, version: int, created: str
    ) -> "Part":
        return cls(
            id=value["id"],
            feature=feature,
            generation=generation,
            num_rows=value["rows"],
            num_videos=value["videos"],
            dtype=value["dtype"],
            row_shape=tuple(value["row_shape"]),
            chunk_rows=value["chunk_rows"],
            codec=value["codec"],
            base=value["base"],
            rows_bytes=value["files"]["rows"]["bytes"],
            spans_bytes=value["files"]["spans"]["bytes"],
            form=value.get("form", "zarr"),
            version=version,
            created=created,
        )

    def check_files(self, storage: Storage) -> None:
        """Raises StoreDamaged unless both row files exist with their sizes."""
        for name, expected in (
            (self.rows_file, self.rows_bytes),
            (self.spans_file, self.spans_bytes),
        ):
            found = storage.size(name)
            if (found or 0) != expected:
                raise StoreDamaged(
                    f"{storage.url}/{name} "
                    + ("is missing" if found is None else f"has {found} bytes")
                    + f", expected {expected} bytes"
                )

    def check_committable(self, storage: Storage) -> None:
        """Raises unless a finished part is as it was written and young enough to be committed."""
        self.check_files(storage)
        age_s = storage.age_s(f"{self.folder}/{NODE_FILE}")
        if age_s is None or age_s > GRACE_S / 2:
            # It could be collected as a leftover in the moment in which it is committed.
            raise StoreUnwritable(
                f"{storage.url}/{self.folder} "
                + ("has gone" if age_s is None else f"is {age_s / 3600:.0f} hours old"),
                hint="commit smaller batches",
            )


class PartWriter:
    """Streams videos into a new part. The part counts only when a ledger entry names it."""

    def __init__(self, storage: Storage, definition: FeatureDefinition, batch: str) -> None:
        self.definition = definition
        self.id = new_part_id(batch)
        self.folder = part_folder(definition.name, definition.generation, self.id)
        self._storage = storage
        dtype = stored_dtype(definition.dtype)
        num_axes = 1 + len(definition.row_shape)
        self._rows = RowFileWriter(
            storage, array_file(self.folder, "rows", num_axes), dtype, definition.row_shape
        )
        self._spans = RowFileWriter(
            storage, array_file(self.folder, "spans", 2), _SPANS_DTYPE, (2,)
        )
        self._row_bytes = row_size_bytes(dtype, definition.row_shape)
        # Of each video: id, row_start, row_size, crc32c, spans_crc32c.
        self.videos: list[tuple[str, int, int, int, int]] = []

    @property
    def num_bytes(self) -> int:
        """Bytes of rows so far."""
        return self._rows.num_rows * self._row_bytes

    def append(self, video_id: str, rows: npt.NDArray[Any], spans: npt.NDArray[np.float64]) -> None:
        """Adds a video; rows and spans are C-contiguous, little endian, of the stored dtype."""
        start, crc, spans_crc = self._rows.num_rows, crc32c(rows), crc32c(spans)
        self._rows.append(rows)
        self._spans.append(spans)
        self.videos.append((video_id, start, len(rows), crc, spans_crc))

    def append_many(
        self,
        videos: Sequence[tuple[str, int, int, int]],
        rows: npt.NDArray[Any],
        spans: npt.NDArray[np.float64],
    ) -> None:
        """Adds videos whose rows follow each other; of each its id, its number of rows, and the
        CRC-32C of its rows and of its spans."""
        start = self._rows.num_rows
        self._rows.append(rows)
        self._spans.append(spans)
        for video_id, size, crc, spans_crc in videos:
            self.videos.append((video_id, start, size, crc, spans_crc))
            start += size

    def close(self) -> Part:
        """Finishes all files and makes them durable, the part's own zarr.json last."""
        rows, spans = self._rows.close(), self._spans.close()
        arrays = zarr_metadata.part_arrays(self.definition, rows, spans, len(self.videos))
        video_ids, *columns = self.columns()
        files = [
            name
            for name, shape in (
                (array_file(self.folder, "rows", 1 + len(rows.row_shape)), rows),
                (array_file(self.folder, "spans", 2), spans),
            )
            if shape.num_rows
        ]
        for name, metadata in arrays.items():
            files.append(f"{self.folder}/{name}/{NODE_FILE}")
            self._storage.write(files[-1], zarr_metadata.encode(metadata))
        number_arrays = list(zarr_metadata.SMALL_ARRAYS.items())[1:]
        for (name, dtype), values in zip(number_arrays, columns, strict=True):
            files.append(array_file(self.folder, name, 1))
            self._storage.write(files[-1], encode_numbers(values, dtype))
        files.append(array_file(self.folder, "video_id", 1))
        self._storage.write(files[-1], encode_texts(video_ids))
        self._storage.sync(files)
        own = f"{self.folder}/{NODE_FILE}"
        node = zarr_metadata.part_group(self.definition, self.id, arrays)
        self._storage.write(own, zarr_metadata.encode(node))
        self._storage.sync([own])
        return Part(
            id=self.id,
            feature=self.definition.name,
            generation=self.definition.generation,
            num_rows=rows.num_rows,
            num_videos=len(self.videos),
            dtype=rows.dtype.name,
            row_shape=self.definition.row_shape,
            chunk_rows=rows.chunk_rows,
            codec="none",
            base=BASE,
            rows_bytes=rows.num_bytes,
            spans_bytes=spans.num_bytes,
            form="zarr",
            version=0,  # not committed yet
            created="",
        )

    def columns(self) -> tuple[list[str], list[int], list[int], list[int], list[int]]:
        """What `videos` says, a list a column."""
        if not self.videos:
            return [], [], [], [], []
        ids, starts, sizes, crcs, spans_crcs = zip(*self.videos, strict=True)
        return list(ids), list(starts), list(sizes), list(crcs), list(spans_crcs)

    def abandon(self) -> None:
        self._rows.abandon()
        self._spans.abandon()
