"""A part: the immutable folder with the rows of one feature for a batch of videos."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores import zarr_metadata
from vlpipe.stores.errors import StoreDamaged
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.layout import NODE_FILE, array_file, new_part_id, part_folder
from vlpipe.stores.row_file import BASE, RowFileShape, RowFileWriter
from vlpipe.stores.small_array import encode_numbers, encode_texts
from vlpipe.stores.storage import Storage

_SPANS_DTYPE = np.dtype("<f8")


@dataclass(frozen=True, eq=False)  # compared by identity: parts are keys of large tables
class Part:
    """What a ledger entry says about a part."""

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
    def spans_shape(self) -> RowFileShape:
        return RowFileShape.of(self.num_rows, _SPANS_DTYPE, (2,))

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


class PartWriter:
    """Streams videos into a new part. The part counts only when a ledger entry names it."""

    def __init__(self, storage: Storage, definition: FeatureDefinition, batch: str) -> None:
        self.definition = definition
        self.id = new_part_id(batch)
        self.folder = part_folder(definition.name, definition.generation, self.id)
        self._storage = storage
        dtype = np.dtype(definition.dtype).newbyteorder("<")
        num_axes = 1 + len(definition.row_shape)
        self._rows = RowFileWriter(
            storage, array_file(self.folder, "rows", num_axes), dtype, definition.row_shape
        )
        self._spans = RowFileWriter(
            storage, array_file(self.folder, "spans", 2), _SPANS_DTYPE, (2,)
        )
        # One list a column: the small arrays and the columns of the ledger entry.
        self.video_ids: list[str] = []
        self.row_starts: list[int] = []
        self.row_sizes: list[int] = []
        self.crc32cs: list[int] = []
        self.spans_crc32cs: list[int] = []

    @property
    def num_bytes(self) -> int:
        """Bytes of rows so far."""
        return (
            self._rows.num_rows
            * RowFileShape.of(
                1, np.dtype(self.definition.dtype), self.definition.row_shape
            ).row_bytes
        )

    def append(self, video_id: str, rows: npt.NDArray[Any], spans: npt.NDArray[np.float64]) -> None:
        """Adds a video; rows and spans are C-contiguous, little endian, of the stored dtype."""
        self.row_starts.append(self._rows.num_rows)
        self.crc32cs.append(self._rows.append(rows))
        self.spans_crc32cs.append(self._spans.append(spans))
        self.row_sizes.append(len(rows))
        self.video_ids.append(video_id)

    def close(self) -> Part:
        """Finishes all files and makes them durable, the part's own zarr.json last."""
        rows, spans = self._rows.close(), self._spans.close()
        arrays = zarr_metadata.part_arrays(self.definition, rows, spans, len(self.video_ids))
        columns = (self.row_starts, self.row_sizes, self.crc32cs, self.spans_crc32cs)
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
        self._storage.write(files[-1], encode_texts(self.video_ids))
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
            num_videos=len(self.video_ids),
            dtype=self.definition.dtype,
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

    def abandon(self) -> None:
        self._rows.abandon()
        self._spans.abandon()
