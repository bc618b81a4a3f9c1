"""What a copy of a dataset holds, file by file: a table of its videos, kept up to date.

Every file is probed by a decoding process (checksum, streams, duration, one picture decoded) when
it is new or another than before; what the table says of the others is taken over.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from vlpipe.stores.datasets import Dataset, Video, open_dataset
from vlpipe.stores.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from vlpipe.extractors.media import DecodePool, MediaInfo

Row = dict[str, Any]

_MOST_NAMED = 1000  # of each kind, in a report: the table has all
_COLUMNS = {
    "video_id": "string", "split": "string", "path": "string",
    "problem_kind": "string", "problem": "string",
    "bytes": "int64", "mtime_ns": "int64", "sha256": "string", "container": "string",
    "duration_s": "float64", "width": "int32", "height": "int32", "fps": "float64",
    "frames": "int64", "is_variable_rate": "bool", "video_codec": "string",
    "audio_codec": "string", "sample_rate": "int32",
}  # fmt: skip


class IngestionJob(BaseModel):
    """Which copy of which dataset is looked at.

    table: the Parquet file with a row a video, made or brought up to date.
    decode_workers: files probed at once; 0: one less than the cores. reprobe: all files, also those
        whose size and time of change are as in the table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    root: Path
    table: Path
    decode_workers: NonNegativeInt = 0
    reprobe: bool = False


@dataclass(frozen=True)
class IngestionReport:
    """What the copy holds, and what has become of it since the table was last written.

    splits: of each its videos, those on disk, those that can be used, and their seconds.
    bad: (video, kind, reason) of files that cannot be used. changed: files with other bytes than
        before, whose features extraction makes anew. is_complete: as `vlpipe datasets check` says,
        and every file on disk can be used.
    """

    dataset: str
    root: str
    table: str
    is_complete: bool
    num_videos: int
    num_missing: int
    num_probed: int
    duration_s: float
    total_bytes: int
    splits: dict[str, dict[str, float]]
    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    bad: tuple[tuple[str, str, str], ...]
    left_out: tuple[str, ...]
    was_interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        facts = asdict(self)
        return {k: v[:_MOST_NAMED] if isinstance(v, tuple) else v for k, v in facts.items()}


def ingest_dataset(
    job: IngestionJob,
    *,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> IngestionReport:
    """Checks the copy, probes what is new or has changed, and writes the table.

    progress: told how many of how many files were probed. stop: once set, no further file is begun;
    the table keeps what was found, and the next call carries on.
    Raises UsageError for an unknown dataset, or a table that is none of vlpipe's.
    """
    dataset = open_dataset(job.dataset, job.root)
    before = {row["video_id"]: row for row in _read_table(job.table)}
    videos = dataset.videos()
    rows = {video.id: _unprobed(dataset, video) for video in videos}
    due = [
        video for video in videos
        if video.path is not None and video.problem is None
        and (job.reprobe or not _is_known(rows[video.id], before.get(video.id)))
    ]  # fmt: skip
    for video_id, row in rows.items():
        if _is_known(row, before.get(video_id)):
            rows[video_id] = before[video_id] | {"split": row["split"]}
    stop = stop or threading.Event()
    num_probed = _probe_all(due, rows, job.decode_workers, progress, stop)
    _write_table(job.table, rows.values())
    return _report(job, dataset, before, rows, num_probed, was_interrupted=stop.is_set())


def _unprobed(dataset: Dataset, video: Video) -> Row:
    row: Row = dict.fromkeys(_COLUMNS) | {"video_id": video.id, "split": video.split}
    row |= {"problem_kind": video.problem_kind, "problem": video.problem}
    if video.path is not None:
        row["path"] = _relative(video.path, dataset.root)
        if video.problem is None:
            try:
                status = video.path.stat()
            except OSError:
                return row  # probing says what is wrong with it
            row |= {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    elif video.problem is None:
        row |= {"problem_kind": "absent", "problem": "the annotations name it, no file is there"}
    return row


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _is_known(row: Row, before: Row | None) -> bool:
    """Whether the table tells of this very file. What may pass (a timeout) is tried again."""
    return (
        before is not None
        and row["bytes"] is not None
        and all(row[key] == before[key] for key in ("path", "bytes", "mtime_ns"))
        and (before["sha256"] is not None or before["problem_kind"] in _LASTING)
    )


_LASTING = {"empty", "not_media", "format_refused", "damaged", "too_large"}


def _probe_all(
    due: list[Video],
    rows: dict[str, Row],
    workers: int,
    progress: Callable[[int, int], None] | None,
    stop: threading.Event,
) -> int:
    """How many files were probed, in threads that each wait for a decoding process."""
    from vlpipe.extractors.media import DecodePool
    from vlpipe.pipelines.extraction.cores import available_cores

    count = workers or max(1, available_cores() - 1)
    done = 0
    with DecodePool(count) as pool, ThreadPoolExecutor(count) as threads:
        for video, found in threads.map(lambda video: (video, _probe(pool, video, stop)), due):
            if found is None:
                continue
            rows[video.id] |= found
            done += 1
            if progress is not None:
                progress(done, len(due))
    return done


def _probe(pool: "DecodePool", video: Video, stop: threading.Event) -> Row | None:
    from vlpipe.extractors.errors import MediaError

    if stop.is_set():
        return None
    assert video.path is not None
    try:
        return _facts(pool.probe(video.path))
    except MediaError as error:
        return {"problem_kind": error.kind, "problem": error.message}


def _facts(info: "MediaInfo") -> Row:
    row: Row = {
        "sha256": info.sha256, "container": info.container, "duration_s": info.duration_s
    }  # fmt: skip
    if info.video is not None:
        row |= {
            "width": info.video.width, "height": info.video.height, "fps": info.video.average_fps,
            "frames": info.video.num_frames, "is_variable_rate": info.video.is_variable_rate,
            "video_codec": info.video.codec,
        }  # fmt: skip
    if info.audio is not None:
        row |= {"audio_codec": info.audio.codec, "sample_rate": info.audio.sample_rate}
    return row


def _report(
    job: IngestionJob,
    dataset: Dataset,
    before: dict[str, Row],
    rows: dict[str, Row],
    num_probed: int,
    *,
    was_interrupted: bool,
) -> IngestionReport:
    is_there = {i for i, row in rows.items() if row["path"] is not None}
    was_there = {i for i, row in before.items() if row["path"] is not None}
    is_bad = [r for r in rows.values() if r["problem_kind"] not in (None, "absent")]
    checked = dataset.check()
    return IngestionReport(
        dataset=job.dataset,
        root=str(dataset.root),
        table=str(job.table),
        is_complete=checked.is_complete and not is_bad and not was_interrupted,
        num_videos=len(rows),
        num_missing=sum(row["problem_kind"] == "absent" for row in rows.values()),
        num_probed=num_probed,
        duration_s=sum(row["duration_s"] or 0.0 for row in rows.values()),
        total_bytes=sum(row["bytes"] or 0 for row in rows.values()),
        splits=_splits(rows.values()),
        new=tuple(i for i in rows if i in is_there - was_there),
        changed=tuple(
            i for i, row in rows.items()
            if i in before and None not in (row["sha256"], before[i]["sha256"])
            and row["sha256"] != before[i]["sha256"]
        ),
        gone=tuple(i for i in before if i in was_there - is_there),
        bad=tuple((r["video_id"], r["problem_kind"], r["problem"]) for r in is_bad),
        left_out=(*dataset.left_out, *(str(row) for row in checked.bad_rows)),
        was_interrupted=was_interrupted,
    )  # fmt: skip


def _splits(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    sums: dict[str, dict[str, float]] = {}
    for row in rows:
        nothing: dict[str, float] = {"videos": 0, "on_disk": 0, "usable": 0, "seconds": 0.0}
        of_split = sums.setdefault(row["split"] or "", nothing)
        of_split["videos"] += 1
        of_split["on_disk"] += row["path"] is not None
        of_split["usable"] += row["sha256"] is not None
        of_split["seconds"] += row["duration_s"] or 0.0
    return dict(sorted(sums.items()))


def _schema() -> "pa.Schema":
    import pyarrow as pa

    types: dict[str, pa.DataType] = {
        "string": pa.string(), "int64": pa.int64(), "int32": pa.int32(),
        "float64": pa.float64(), "bool": pa.bool_(),
    }  # fmt: skip
    return pa.schema([(name, types[kind]) for name, kind in _COLUMNS.items()])


def _read_table(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return []
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="name another table") from error
    if not table.schema.equals(_schema()):
        raise UsageError(
            f"{path} is no table of videos: it has the columns {', '.join(table.column_names)}",
            hint="name another table",
        )
    rows: list[Row] = table.to_pylist()
    return rows


def _write_table(path: Path, rows: Iterable[Row]) -> None:
    import os

    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pylist(list(rows), _schema()), temporary)
    temporary.replace(path)
