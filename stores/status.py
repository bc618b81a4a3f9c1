"""What a store knows of many videos at once: the question of a plan."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.state import State

Standing = Literal["stored", "failed", "deleted", "absent"]


class VideoStatus(NamedTuple):
    """What became of one video of one feature generation.

    stored: `num_rows` (zero is legal), `note`, and the media file as it was: `source` (32 hex
        digits of its SHA-256), `source_size`, `source_mtime_ns`.
    failed: `kind`, `message`, `attempt`, and whether a `retry` may succeed.
    version: of the entry that says so.
    """

    standing: Standing
    version: int | None = None
    num_rows: int = 0
    source: str | None = None
    source_size: int | None = None
    source_mtime_ns: int | None = None
    note: str | None = None
    kind: str | None = None
    message: str | None = None
    attempt: int = 0
    retry: bool = False


_ABSENT = VideoStatus("absent")


def video_statuses(
    state: State, definition: FeatureDefinition, video_ids: Iterable[str]
) -> dict[str, VideoStatus]:
    """One status for each id, in the order of the ids."""
    ids = list(dict.fromkeys(video_ids))
    name, generation = definition.name, definition.generation
    found = state.generations.get((name, generation))
    rows = [None] * len(ids) if found is None else found.find_many(ids)
    result = {}
    for video_id, row in zip(ids, rows, strict=True):
        if row is not None:
            result[video_id] = VideoStatus(
                "stored",
                row.version,
                row.row_size,
                row.source,
                row.source_size,
                row.source_mtime_ns,
                row.note,
            )
        else:
            result[video_id] = _without_rows(state, name, generation, video_id)
    return result


def _without_rows(state: State, name: str, generation: str, video_id: str) -> VideoStatus:
    deletion = state.deletion(video_id, name)
    if deletion is not None:
        return VideoStatus("deleted", deletion.version, message=deletion.reason)
    failure = state.failures.get((name, generation, video_id))
    if failure is not None:
        return VideoStatus(
            "failed",
            failure.version,
            kind=failure.kind,
            message=failure.message,
            attempt=failure.attempt,
            retry=failure.retry,
        )
    return _ABSENT
