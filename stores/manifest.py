"""The table of live videos of one feature generation, as a checkpoint keeps it.

Rows are sorted by `key`, a 64-bit hash of the video id, so that a look-up is a binary search on a
mapped column: no dictionary of ids exists in any process.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlpipe.stores.generation import Location, VideoRow
from vlpipe.stores.layout import format_utc
from vlpipe.stores.part import Part

_MANIFEST_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("key", pa.uint64(), nullable=False),
    pa.field("video_id", pa.string(), nullable=False),
    pa.field("part", pa.int32(), nullable=False),
    pa.field("row_start", pa.int64(), nullable=False),
    pa.field("row_size", pa.int32(), nullable=False),
    pa.field("crc32c", pa.uint32(), nullable=False),
    pa.field("spans_crc32c", pa.uint32(), nullable=False),
    pa.field("source", pa.binary(16)),
    pa.field("seconds", pa.float32()),
    pa.field("source_size", pa.int64()),
    pa.field("source_mtime_ns", pa.int64()),
    pa.field("note", pa.string()),
    pa.field("version", pa.int64(), nullable=False),
]
MANIFEST_SCHEMA = pa.schema(_MANIFEST_FIELDS)

_PARTS_FIELDS: list[tuple[str, pa.DataType]] = [
    ("id", pa.string()),
    ("feature", pa.string()),
    ("generation", pa.string()),
    ("rows", pa.int64()),
    ("videos", pa.int32()),
    ("live_videos", pa.int32()),
    ("live_rows", pa.int64()),
    ("rows_bytes", pa.int64()),
    ("spans_bytes", pa.int64()),
    ("dtype", pa.string()),
    ("row_shape", pa.list_(pa.int32())),
    ("chunk_rows", pa.int32()),
    ("codec", pa.string()),
    ("base", pa.int32()),
    ("form", pa.string()),
    ("version", pa.int64()),
    ("created", pa.timestamp("s", "UTC")),
]
PARTS_SCHEMA = pa.schema(_PARTS_FIELDS)

_LOCATION_COLUMNS = ("part", "row_start", "row_size", "crc32c", "spans_crc32c")


def video_keys(video_ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """[N] hashes: BLAKE2b of the UTF-8 of each id, digest of 8 bytes, little endian."""
    digests = [blake2b(video_id.encode(), digest_size=8).digest() for video_id in video_ids]
    return np.frombuffer(b"".join(digests), "<u8")


class PartTable:
    """The parts of a checkpoint by number; each becomes an object when first asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._columns: dict[str, Any] = {name: table.column(name) for name in table.column_names}
        self._parts: dict[int, Part] = {}

    def __getitem__(self, number: int) -> Part:
        part = self._parts.get(number)
        if part is None:
            value = {name: column[number].as_py() for name, column in self._columns.items()}
            part = Part(
                id=value["id"],
                feature=value["feature"],
                generation=value["generation"],
                num_rows=value["rows"],
                num_videos=value["videos"],
                dtype=value["dtype"],
                row_shape=tuple(value["row_shape"]),
                chunk_rows=value["chunk_rows"],
                codec=value["codec"],
                base=value["base"],
                rows_bytes=value["rows_bytes"],
                spans_bytes=value["spans_bytes"],
                form=value["form"],
                version=value["version"],
                created=format_utc(value["created"]),
            )
            self._parts[number] = part
        return part


class Manifest:
    """Look-up in the table of a generation. `table` has MANIFEST_SCHEMA and lies in one piece."""

    def __init__(self, table: pa.Table, parts: PartTable) -> None:
        self.table = table
        self.parts = parts
        self._keys: npt.NDArray[np.uint64] = _numbers(table, "key")
        # Indexing a memoryview gives a Python int at once, an array a NumPy scalar.
        self._key_view = self._keys.data
        self._spread = 2 * isqrt(len(self._keys)) + 2
        self._views = tuple(_numbers(table, name).data for name in _LOCATION_COLUMNS)
        _, offsets, texts = _only_chunk(table, "video_id").buffers()
        self._id_offsets = memoryview(offsets or b"").cast("i")
        # Arrow's bytes are signed to Python and would differ from those of a str beyond ASCII.
        self._id_texts = memoryview(texts or b"").cast("B")

    def __len__(self) -> int:
        return len(self._keys)

    @cached_property
    def part_numbers(self) -> npt.NDArray[np.int32]:
        return _numbers(self.table, "part")

    @cached_property
    def row_sizes(self) -> npt.NDArray[np.int32]:
        return _numbers(self.table, "row_size")

    @cached_property
    def num_rows(self) -> int:
        return int(self.row_sizes.sum(dtype=np.int64))

    def find(self, video_id: str) -> int:
        """The row number of a video, or -1."""
        data = video_id.encode()
        key = int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
        keys, count = self._key_view, len(self._key_view)
        # Hashes are spread evenly, so the key lies near its share of the table: by four standard
        # deviations all but one in 16,000, for which the whole table is searched.
        guess = (key * count) >> 64
        low, high = max(guess - self._spread, 0), min(guess + self._spread, count)
        index = bisect_left(keys, key, low, high)
        if (index == low and low) or (index == high and high < count):
            index = bisect_left(keys, key)
        while index < count and keys[index] == key:
            start, stop = self._id_offsets[index], self._id_offsets[index + 1]
            if self._id_texts[start:stop] == data:
                return index
            index += 1  # two ids with one hash
        return -1

    def positions(self, video_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """[N] row numbers, -1 for videos that are not here."""
        if not len(self) or not video_ids:
            return np.full(len(video_ids), -1, np.int64)
        keys = video_keys(video_ids)
        found = np.searchsorted(self._keys, keys)
        found[found == len(self)] = 0
        candidates = np.flatnonzero(self._keys[found] == keys)
        ids = pa.array([video_ids[i] for i in candidates.tolist()], pa.string())
        stored = self.table.column("video_id").take(found[candidates])
        is_same = np.asarray(pc.equal(stored, ids), dtype=bool)
        result = np.full(len(video_ids), -1, np.int64)
        result[candidates[is_same]] = found[candidates[is_same]]
        for number in candidates[~is_same]:
            result[number] = self.find(video_ids[number])
        return result

    def location(self, index: int) -> Location:
        parts, row_starts, row_sizes, crcs, spans_crcs = self._views
        return (
            self.parts[parts[index]],
            row_starts[index],
            row_sizes[index],
            crcs[index],
            spans_crcs[index],
            index,
        )

    def row(self, index: int) -> VideoRow:
        return self._rows_of(self.table.slice(index, 1))[0]

    def rows(self, video_ids: Sequence[str]) -> list[VideoRow | None]:
        """One answer for each id, in order."""
        positions = self.positions(video_ids)
        result: list[VideoRow | None] = [None] * len(video_ids)
        hits = np.flatnonzero(positions >= 0)
        rows = self._rows_of(self.table.take(positions[hits]))
        for number, row in zip(hits.tolist(), rows, strict=True):
            result[number] = row
        return result

    def items(self) -> Iterator[tuple[str, VideoRow]]:
        return zip(self.video_ids(), self._rows_of(self.table), strict=True)

    def video_ids(self) -> list[str]:
        """Ids in the order of the table."""
        ids: Any = self.table.column("video_id").to_pylist()
        return list(ids)

    def _rows_of(self, table: pa.Table) -> list[VideoRow]:
        columns: dict[str, list[Any]] = {
            name: table.column(name).to_pylist() for name in MANIFEST_SCHEMA.names[2:]
        }
        columns["part"] = [self.parts[number] for number in columns["part"]]
        columns["source"] = [None if s is None else s.hex() for s in columns["source"]]
        return list(map(VideoRow._make, zip(*columns.values(), strict=True)))


def _numbers(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """A column without nulls as an array over the same memory."""
    # Not by to_numpy, which imports pandas where it is installed.
    array = _only_chunk(table, name)
    dtype = np.dtype(str(array.type))
    start = array.offset * dtype.itemsize
    return np.frombuffer(array.buffers()[1] or b"", dtype, len(array), start)


def _only_chunk(table: pa.Table, name: str) -> Any:  # noqa: ANN401 - an Arrow array of any type
    column = table.column(name)
    if column.num_chunks != 1:
        raise ValueError(f"the manifest lies in {column.num_chunks} pieces, expected one")
    return column.chunk(0)
