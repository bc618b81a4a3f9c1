"""Listings of a store as Arrow tables."""

import pyarrow as pa

from vlpipe.stores.checkpoint_tables import failure_table
from vlpipe.stores.generation import GenerationState
from vlpipe.stores.state import State

_VIDEOS_FIELDS: list[tuple[str, pa.DataType]] = [
    ("video_id", pa.string()),
    ("feature", pa.string()),
    ("generation", pa.string()),
    ("is_active", pa.bool_()),
    ("rows", pa.int64()),
    ("seconds", pa.float32()),
    ("source", pa.string()),
    ("source_size", pa.int64()),
    ("source_mtime_ns", pa.int64()),
    ("note", pa.string()),
    ("version", pa.int64()),
    ("part", pa.string()),
]
VIDEOS_SCHEMA = pa.schema(_VIDEOS_FIELDS)


def videos_table(state: State) -> pa.Table:
    """One row per video, feature and generation, sorted by these three in another order: feature,
    generation, video."""
    tables = [
        _generation_table(state, generation) for _, generation in sorted(state.generations.items())
    ]
    return pa.concat_tables([VIDEOS_SCHEMA.empty_table(), *tables])


def failures_table(state: State) -> pa.Table:
    """One row per video, feature and generation in quarantine."""
    return failure_table(state.failures.items())


def _generation_table(state: State, generation: GenerationState) -> pa.Table:
    rows = sorted(generation.rows(), key=lambda item: item[0])
    feature, name = generation.key
    is_active = state.active.get(feature) == name
    columns: list[list[object]] = [
        [video_id for video_id, _ in rows],
        [feature] * len(rows),
        [name] * len(rows),
        [is_active] * len(rows),
        [row.row_size for _, row in rows],
        [row.seconds for _, row in rows],
        [row.source for _, row in rows],
        [row.source_size for _, row in rows],
        [row.source_mtime_ns for _, row in rows],
        [row.note for _, row in rows],
        [row.version for _, row in rows],
        [row.part.id for _, row in rows],
    ]
    arrays = [
        pa.array(values, field.type) for values, field in zip(columns, VIDEOS_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=VIDEOS_SCHEMA)
