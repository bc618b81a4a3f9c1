"""Rewriting many small parts, and parts with dead rows, into few large ones.

Rows are copied in the order of the video ids and compared with their checksums on the way. Each
new part is one commit. Readers of older versions go on with the old parts, which become garbage.
"""

import contextlib
import itertools
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.batch_parts import make_nodes
from vlpipe.stores.checksum import crc32c
from vlpipe.stores.errors import StoreDamaged, VlpipeError
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.generation import GenerationState, VideoRow
from vlpipe.stores.layout import TARGET_BYTES, new_batch_id
from vlpipe.stores.ledger import Op
from vlpipe.stores.part import Part, PartWriter
from vlpipe.stores.part_reader import PartReader
from vlpipe.stores.row_file import row_size_bytes
from vlpipe.stores.state import State
from vlpipe.stores.storage import Storage
from vlpipe.stores.stored_dtypes import stored_dtype

logger = logging.getLogger(__name__)

PART_MAX_VIDEOS = 65_536  # more would make a ledger entry slow to read
_MIN_DEAD = 0.1  # share of dead rows from which on a part is worth copying
_PIECE_BYTES = 4 * 2**20  # of rows; what the caches of a processor hold
_PIECE_ROWS = 2**16  # of usual pieces at most

Video = tuple[str, VideoRow]
Commit = Callable[[Callable[[State], list[Op]], str], State]


@dataclass
class CompactReport:
    """What was rewritten, or would be.

    damaged: (feature, generation, video id) of videos whose bytes do not have their checksums;
        they stay where they are.
    """

    is_dry_run: bool
    parts_before: int = 0
    parts_after: int = 0
    num_videos: int = 0
    num_bytes: int = 0
    damaged: list[tuple[str, str, str]] = field(default_factory=list)


class Compactor:
    """Rewrites parts of one store, one generation after the other."""

    def __init__(self, storage: Storage, commit: Commit, report: CompactReport) -> None:
        self._storage = storage
        self._commit = commit
        self._report = report
        self._reader = PartReader(storage, lambda part: StoreDamaged(f"{part.folder} is missing"))
        self._rooms = (_Room(), _Room())

    def rewrite(
        self,
        generation: GenerationState,
        sources: Sequence[Part],
        *,
        target_bytes: int = TARGET_BYTES,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Moves the live videos of these parts into new ones; `progress` is told bytes."""
        chosen = set(sources)
        videos = sorted(
            ((i, row) for i, row in generation.rows() if row.part in chosen),
            key=lambda item: item[0],
        )
        report = self._report
        report.parts_before += len(sources)
        for group in _groups(generation, videos, target_bytes):
            report.parts_after += 1
            if not report.is_dry_run:
                self._rewrite_group(generation, group, progress)
            else:
                report.num_videos += len(group)

    def _rewrite_group(
        self,
        generation: GenerationState,
        videos: Sequence[Video],
        progress: Callable[[int], None] | None,
    ) -> None:
        make_nodes(self._storage, generation.definition)
        batch = new_batch_id()
        writer = PartWriter(self._storage, generation.definition, batch)
        may_be_committed = False
        try:
            with contextlib.closing(self._read_ahead(generation, videos)) as pieces:
                for piece in pieces:
                    before = writer.num_bytes
                    writer.append_many(piece.facts, piece.rows, piece.spans)
                    if progress is not None:
                        progress(writer.num_bytes - before)
                    del piece  # before the next but one is read
            if not writer.videos:
                return
            part = writer.close()
            sources = {video_id: row.part.id for video_id, row in videos}
            moved = 0

            def resolve(state: State) -> list[Op]:
                nonlocal may_be_committed, moved
                part.check_committable(self._storage)
                op = _rewrite_op(state, generation, part, writer, sources)
                moved = len(op["add"][0]["videos"]["id"]) if op else 0
                may_be_committed = bool(op)
                return [op] if op else []

            self._commit(resolve, batch)
            self._report.num_videos += moved
            self._report.num_bytes += part.num_bytes
        finally:
            writer.abandon()
            if not may_be_committed:
                self._remove(writer.folder)

    def _read_ahead(
        self, generation: GenerationState, videos: Sequence[Video]
    ) -> Generator["_Piece", None, None]:
        """Videos that are copied together, with their rows, which last until the caller asks for
        more. The next ones are read and compared while it has some: of videos larger than a piece,
        two are in memory at once."""
        thread = ThreadPoolExecutor(1, "vlpipe-compaction")  # alone uses the reader
        try:
            ahead: Future[list[_Piece]] | None = None
            rooms = itertools.cycle(self._rooms)
            for piece, room in zip(_pieces(generation, videos), rooms, strict=False):
                job = thread.submit(self._read, generation, piece, room)
                if ahead is not None:
                    yield from ahead.result()
                ahead = job
            if ahead is not None:
                yield from ahead.result()
        finally:
            thread.shutdown(cancel_futures=True)

    def _read(
        self, generation: GenerationState, videos: Sequence[Video], room: "_Room | None"
    ) -> list["_Piece"]:
        """The videos as one piece; where some are damaged, the others one by one."""
        num_rows = sum(row.row_size for _, row in videos)
        if room is None:
            rows, spans = _new_rows(generation.definition, num_rows)
        else:
            rows, spans = room.of(generation.definition, num_rows)
        row_targets, span_targets, end = [], [], 0
        for part, start, size, video_id in _runs(videos):
            begin, end = end, end + size
            row_targets.append((part, start, rows[begin:end], video_id))
            span_targets.append((part, start, spans[begin:end], video_id))
        try:
            self._reader.read_many("rows", row_targets)
            self._reader.read_many("spans", span_targets)
            is_sound = _are_sound(videos, rows, spans)
        except StoreDamaged:
            is_sound = False
        if is_sound:
            facts = [(i, row.row_size, row.crc32c, row.spans_crc32c) for i, row in videos]
            return [_Piece(facts, rows, spans)]
        if len(videos) == 1:
            self._report.damaged.append((*generation.key, videos[0][0]))
            return []
        return [piece for video in videos for piece in self._read(generation, [video], None)]

    def _remove(self, folder: str) -> None:
        try:
            self._storage.remove(folder)
        except VlpipeError as error:
            logger.info("a leftover stays until it is collected: %s", error)


class _Room:
    """Memory for the pieces that are no larger than usual, one after the other."""

    def __init__(self) -> None:
        self._rows = np.empty(2 * _PIECE_BYTES, np.uint8)
        self._spans = np.empty((_PIECE_ROWS, 2), "<f8")

    def of(
        self, definition: FeatureDefinition, num_rows: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """Uninitialised rows and spans, in memory that the next call may use again."""
        dtype = stored_dtype(definition.dtype)
        num_bytes = num_rows * row_size_bytes(dtype, definition.row_shape)
        if num_bytes > len(self._rows) or num_rows > len(self._spans):
            return _new_rows(definition, num_rows)
        rows = self._rows[:num_bytes].view(dtype).reshape(num_rows, *definition.row_shape)
        return rows, self._spans[:num_rows]


def _new_rows(
    definition: FeatureDefinition, num_rows: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    rows = np.empty((num_rows, *definition.row_shape), stored_dtype(definition.dtype))
    return rows, np.empty((num_rows, 2), "<f8")


@dataclass(frozen=True)
class _Piece:
    """Sound videos one after the other, with their rows and spans.

    facts: of each video id, number of rows, and CRC-32C of its rows and of its spans.
    """

    facts: Sequence[tuple[str, int, int, int]]
    rows: npt.NDArray[Any]
    spans: npt.NDArray[np.float64]


def worth_rewriting(
    generation: GenerationState, *, target_bytes: int, must_go: Callable[[Part], bool]
) -> list[Part]:
    """The parts that compaction should copy: with many dead rows, with rows that must go, and
    small ones, unless there would be as many afterwards."""
    live_rows: dict[Part, int] = {}
    for part, _, num_rows in generation.live_by_part():
        live_rows[part] = live_rows.get(part, 0) + num_rows
    plain = [part for part in live_rows if part.is_plain]
    wasteful = [
        part
        for part in plain
        if live_rows[part] < part.num_rows * (1 - _MIN_DEAD)
        or (live_rows[part] < part.num_rows and must_go(part))
    ]
    taken = set(wasteful)
    small = [
        part
        for part in plain
        if part not in taken
        and part.num_rows * part.rows_shape.row_bytes < target_bytes / 2
        and part.num_videos < PART_MAX_VIDEOS / 2
    ]
    if len(small) + len(wasteful) < 2:
        small = []
    return sorted([*wasteful, *small], key=lambda part: part.id)


def _groups(
    generation: GenerationState, videos: Sequence[Video], target_bytes: int
) -> Iterator[list[Video]]:
    """The videos of each new part: about equally many bytes, so that none is left small."""
    row_bytes = _row_bytes(generation)
    total = sum(row.row_size for _, row in videos) * row_bytes
    num_groups = max(-(-total // target_bytes), -(-len(videos) // PART_MAX_VIDEOS), 1)
    share = total / num_groups
    group: list[Video] = []
    num_bytes = 0
    for video in videos:
        group.append(video)
        num_bytes += video[1].row_size * row_bytes
        if num_bytes >= share or len(group) == PART_MAX_VIDEOS:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group


def _pieces(generation: GenerationState, videos: Sequence[Video]) -> Iterator[list[Video]]:
    """Videos that are copied together."""
    row_bytes = _row_bytes(generation)
    piece: list[Video] = []
    num_bytes = 0
    for video in videos:
        piece.append(video)
        num_bytes += video[1].row_size * row_bytes
        if num_bytes >= _PIECE_BYTES or len(piece) == 1024:
            yield piece
            piece, num_bytes = [], 0
    if piece:
        yield piece


def _runs(videos: Sequence[Video]) -> list[tuple[Part, int, int, str]]:
    """Videos that follow each other in a part, as one: part, first row, rows, an id of them."""
    runs: list[tuple[Part, int, int, str]] = []
    last: Part | None = None
    start = size = 0
    for video_id, row in videos:
        if row.part is last and row.row_start == start + size:
            size += row.row_size
            runs[-1] = (last, start, size, runs[-1][3])
        else:
            last, start, size = row.part, row.row_start, row.row_size
            runs.append((last, start, size, video_id))
    return runs


def _are_sound(
    videos: Sequence[Video], rows: npt.NDArray[Any], spans: npt.NDArray[np.float64]
) -> bool:
    """Whether rows and spans of videos that follow each other have their checksums."""
    end = 0
    for _, row in videos:
        begin, end = end, end + row.row_size
        if crc32c(rows[begin:end]) != row.crc32c or crc32c(spans[begin:end]) != row.spans_crc32c:
            return False
    return True


def _row_bytes(generation: GenerationState) -> int:
    definition = generation.definition
    return row_size_bytes(stored_dtype(definition.dtype), definition.row_shape)


def _rewrite_op(
    state: State,
    generation: GenerationState,
    part: Part,
    writer: PartWriter,
    sources: dict[str, str],
) -> Op | None:
    """The operation for the videos that still lie where they were copied from."""
    found = state.generations.get(generation.key)
    if found is None:
        return None  # dropped meanwhile
    ids, row_starts = [], []
    moved, starts, *_ = writer.columns()
    for video_id, row_start, source in zip(moved, starts, found.parts_of(moved), strict=True):
        if source is not None and source.id == sources[video_id]:
            ids.append(video_id)
            row_starts.append(row_start)
    if not ids:
        return None
    feature, name = generation.key
    return {
        "op": "rewrite",
        "feature": feature,
        "generation": name,
        "remove": sorted({sources[video_id] for video_id in ids}),
        "add": [{"part": part.to_json(), "videos": {"id": ids, "row_start": row_starts}}],
    }
