"""The tables of a checkpoint: built from a state, and read back into one."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlpipe.stores.generation import GenerationState
from vlpipe.stores.layout import format_utc, parse_utc
from vlpipe.stores.manifest import MANIFEST_SCHEMA, PARTS_SCHEMA, video_keys
from vlpipe.stores.part import Part
from vlpipe.stores.state import Deletion, DeletionKey, Failure, FailureKey, State

_FAILURES_FIELDS: list[tuple[str, pa.DataType]] = [
    ("video_id", pa.string()),
    ("feature", pa.string()),
    ("generation", pa.string()),
    ("kind", pa.string()),
    ("message", pa.string()),
    ("attempt", pa.int16()),
    ("retry", pa.bool_()),
    ("version", pa.int64()),
    ("time", pa.timestamp("s", "UTC")),
]
FAILURES_SCHEMA = pa.schema(_FAILURES_FIELDS)

_DELETIONS_FIELDS: list[tuple[str, pa.DataType]] = [
    ("video_id", pa.string()),
    ("feature", pa.string()),  # null: all features
    ("reason", pa.string()),
    ("purge", pa.bool_()),
    ("version", pa.int64()),
    ("time", pa.timestamp("s", "UTC")),
]
DELETIONS_SCHEMA = pa.schema(_DELETIONS_FIELDS)


class PartNumbers:
    """The parts with live videos, numbered in the order of `parts.parquet`."""

    def __init__(self, state: State) -> None:
        videos: Counter[Part] = Counter()
        rows: Counter[Part] = Counter()
        for generation in state.generations.values():
            for part, num_videos, num_rows in generation.live_by_part():
                videos[part] += num_videos
                rows[part] += num_rows
        self.parts = sorted(videos, key=lambda p: (p.version, p.feature, p.generation, p.id))
        self.numbers = {part: number for number, part in enumerate(self.parts)}
        self._videos, self._rows = videos, rows

    def table(self) -> pa.Table:
        values = [
            {
                "id": part.id,
                "feature": part.feature,
                "generation": part.generation,
                "rows": part.num_rows,
                "videos": part.num_videos,
                "live_videos": self._videos[part],
                "live_rows": self._rows[part],
                "rows_bytes": part.rows_bytes,
                "spans_bytes": part.spans_bytes,
                "dtype": part.dtype,
                "row_shape": list(part.row_shape),
                "chunk_rows": part.chunk_rows,
                "codec": part.codec,
                "base": part.base,
                "form": part.form,
                "version": part.version,
                "created": parse_utc(part.created),
            }
            for part in self.parts
        ]
        return pa.Table.from_pylist(values, PARTS_SCHEMA)


def live_parts(state: State) -> set[Part]:
    """All parts that hold at least one live video."""
    return {part for g in state.generations.values() for part, _, _ in g.live_by_part()}


def manifest_table(generation: GenerationState, numbers: dict[Part, int]) -> pa.Table:
    """All live videos of a generation, sorted, in one piece."""
    changed = [item for item in generation.changes.items() if item[1] is not None]
    ids, rows = zip(*changed, strict=True) if changed else ((), ())
    columns: list[Any] = [video_keys(ids), ids]
    columns += [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * 11
    columns[2] = [numbers[part] for part in columns[2]]
    columns[7] = [None if source is None else bytes.fromhex(source) for source in columns[7]]
    arrays = [
        pa.array(values, field.type) for values, field in zip(columns, MANIFEST_SCHEMA, strict=True)
    ]
    table = pa.Table.from_arrays(arrays, schema=MANIFEST_SCHEMA)
    manifest = generation.manifest
    if manifest is not None:
        is_live = generation.is_live_below()
        below = manifest.table.filter(pa.array(is_live))
        old = manifest.part_numbers[is_live]
        new = np.zeros(int(old.max(initial=-1)) + 1, np.int32)
        for number in np.unique(old).tolist():
            new[number] = numbers[manifest.parts[number]]
        below = below.set_column(2, MANIFEST_SCHEMA.field("part"), pa.array(new[old]))
        table = pa.concat_tables([below, table])
    order = pc.sort_indices(table, sort_keys=[("key", "ascending"), ("video_id", "ascending")])
    return table.take(order).combine_chunks()


def failure_table(failures: Iterable[tuple[FailureKey, Failure]]) -> pa.Table:
    values = [
        {
            "video_id": video_id,
            "feature": feature,
            "generation": generation,
            **failure._asdict(),
            "time": parse_utc(failure.time),
        }
        for (feature, generation, video_id), failure in sorted(failures)
    ]
    return pa.Table.from_pylist(values, FAILURES_SCHEMA)


def read_failures(table: pa.Table) -> dict[FailureKey, Failure]:
    return {
        (row["feature"], row["generation"], row["video_id"]): Failure(
            row["kind"],
            row["message"],
            row["attempt"],
            row["retry"],
            row["version"],
            format_utc(row["time"]),
        )
        for row in table.to_pylist()
    }


def deletion_table(deletions: Iterable[tuple[DeletionKey, Deletion]]) -> pa.Table:
    values = [
        {
            "video_id": video_id,
            "feature": feature,
            **deletion._asdict(),
            "time": parse_utc(deletion.time),
        }
        for (video_id, feature), deletion in sorted(
            deletions, key=lambda item: (item[0][0], item[0][1] or "")
        )
    ]
    return pa.Table.from_pylist(values, DELETIONS_SCHEMA)


def read_deletions(table: pa.Table) -> dict[DeletionKey, Deletion]:
    return {
        (row["video_id"], row["feature"]): Deletion(
            row["reason"], row["purge"], row["version"], format_utc(row["time"])
        )
        for row in table.to_pylist()
    }


def encode_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def decode_parquet(data: bytes) -> pa.Table:
    # One thread: reading must not start any, for the sake of processes that fork later.
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def encode_arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def decode_arrow(data: npt.NDArray[np.uint8]) -> pa.Table:
    """The table over the very memory of `data`."""
    return pa.ipc.open_file(pa.py_buffer(data.data)).read_all()
