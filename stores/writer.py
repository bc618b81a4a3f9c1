"""Writing: parts are streamed while videos are added, and one entry commits them all."""

import contextlib
import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from vlpipe.stores import zarr_metadata
from vlpipe.stores.change import (
    VIDEO_COLUMNS,
    Change,
    Mode,
    PendingFailure,
    PendingPart,
    Resolution,
)
from vlpipe.stores.errors import StoreUnwritable, VlpipeError
from vlpipe.stores.features import FeatureDefinition, Features
from vlpipe.stores.layout import DATA, NODE_FILE, check_batch_id, check_video_id, generation_folder
from vlpipe.stores.layout import new_batch_id
from vlpipe.stores.ledger import Op
from vlpipe.stores.part import PartWriter
from vlpipe.stores.state import State
from vlpipe.stores.storage import Storage
from vlpipe.stores.stored_rows import stored_rows

logger = logging.getLogger(__name__)

PART_MAX_VIDEOS = 4096  # more would make a ledger entry slow to read
PART_MAX_BYTES = 256 * 2**20
GRACE_S = 24 * 3600.0  # collection leaves parts alone that are younger
_MAX_MESSAGE = 500
_SOURCE_DIGEST = re.compile(r"[0-9a-f]{32}([0-9a-f]{32})?")

_STORED_DTYPES = frozenset(
    "float16 float32 float64 uint8 uint16 uint32 uint64 int8 int16 int32 int64".split()
)

# commits what the callable leaves to do; gives the state with it
Commit = Callable[[Callable[[State], list[Op]], str], State]


@dataclass(frozen=True)
class Receipt:
    """What a writer's block did. One video of one feature counts one.

    version: of the store, with the commit in it.
    added: stored now. kept: were there already, and stay as they were.
    deleted: not stored, because somebody deleted the video. failed: quarantined now.
    bytes: of the new row files. seconds: from entering the block to the commit.
    """

    version: int
    added: int
    kept: int
    deleted: int
    failed: int
    bytes: int
    seconds: float


class FeatureWriter:
    """A `with` block that commits everything at its end, or nothing when it is left by an error.

    To be used from one thread. Made by `FeatureStore.writer`.
    """

    def __init__(
        self,
        storage: Storage,
        commit: Commit,
        definitions: Sequence[FeatureDefinition],
        base_version: int,
        *,
        batch: str | None = None,
        mode: Mode = "keep",
        activate: bool | None = None,
        restore: bool = False,
    ) -> None:
        if mode not in ("keep", "replace"):
            raise ValueError(f"mode {mode!r} is unknown, expected 'keep' or 'replace'")
        self.batch = new_batch_id() if batch is None else check_batch_id(batch)
        self._storage = storage
        self._commit = commit
        self._definitions = {definition.name: definition for definition in definitions}
        if len(self._definitions) != len(definitions):
            raise ValueError("two definitions of one feature were given to one writer")
        for definition in definitions:
            _check_definition(definition)
        self._change = Change(
            definitions=list(definitions),
            base_version=base_version,
            mode=mode,
            activate=activate,
            restore=restore,
        )
        self._open: dict[str, _OpenPart] = {}
        self._folders: list[str] = []  # of all parts, finished or not
        self._added: dict[str, set[str]] = {name: set() for name in self._definitions}
        self._failures: dict[tuple[str, str], PendingFailure] = {}
        self._is_broken = False
        self._is_entered = False
        self._may_be_committed = False
        self._receipt: Receipt | None = None

    @property
    def receipt(self) -> Receipt:
        """What was committed; ValueError before the block was left."""
        if self._receipt is None:
            raise ValueError("the receipt exists once the writer's block was left without an error")
        return self._receipt

    def add(
        self,
        video_id: str,
        features: Mapping[str, Features],
        *,
        source: str | None = None,
        seconds: float | None = None,
        source_size: int | None = None,
        source_mtime_ns: int | None = None,
        note: str | None = None,
    ) -> None:
        """Adds rows of some or all features of the writer; all are checked before any is written.

        source: SHA-256 of the media file in hex; the first 16 bytes are kept.
        seconds: how long it took to make the rows.
        source_size, source_mtime_ns: of the media file, to notice cheaply that it was replaced.
        note: a word for what is special about this video, such as "no_audio" where there are no
            rows. It is listed with the video.

        Raises RowsRefused (a ValueError) for rows that may not be stored; the block can go on.
        """
        self._check_open()
        check_video_id(video_id)
        if not features:
            raise ValueError(f"video {video_id!r} was added without features")
        if source is not None and not _SOURCE_DIGEST.fullmatch(source):
            raise ValueError(f"source {source!r} is not a digest of 32 or 64 hex digits")
        if seconds is not None and not math.isfinite(seconds):
            raise ValueError(f"video {video_id!r} took {seconds} seconds")
        stored = {}
        for name, value in features.items():
            definition = self._definition(name)
            if video_id in self._added[name]:
                raise ValueError(f"video {video_id!r} was added twice for feature {name!r}")
            stored[name] = stored_rows(video_id, definition, value)
        facts = (
            None if source is None else source[:32],
            None if seconds is None else float(np.float32(seconds)),  # as manifests keep it
            None if source_size is None else int(source_size),
            None if source_mtime_ns is None else int(source_mtime_ns),
            None if note is None else _printable(note),
        )
        with self._unusable_after_an_error():
            for name, (rows, spans) in stored.items():
                part = self._open_part(name)
                part.writer.append(video_id, rows, spans)
                part.facts.append(facts)
                self._added[name].add(video_id)
                self._failures.pop((name, video_id), None)
                if part.is_full:
                    self._finish_part(name)

    def fail(
        self,
        video_id: str,
        features: Sequence[str] | None,
        kind: str,
        message: str,
        retry: bool = False,
    ) -> None:
        """Quarantines a video; None means every feature of the writer that it has no rows of.

        retry: whether another attempt may succeed (a busy device, a time-out).
        """
        self._check_open()
        check_video_id(video_id)
        for name in self._definitions if features is None else features:
            definition = self._definition(name)
            if video_id not in self._added[name]:
                self._failures[name, video_id] = PendingFailure(
                    video_id, definition, _printable(kind), _printable(message), bool(retry)
                )

    def __enter__(self) -> Self:
        if self._is_entered:
            raise ValueError("a writer is for one block; make a new one")
        self._is_entered = True
        self._started = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            self._finish()
        except BaseException:
            self._abandon()
            raise

    # below

    def _finish(self) -> None:
        if self._is_broken:
            raise StoreUnwritable(
                f"{self._storage.url}: nothing was committed, because a write failed before"
            )
        for name in list(self._open):
            self._finish_part(name)
        self._change.failures = list(self._failures.values())
        last = Resolution()

        def resolve(state: State) -> list[Op]:
            nonlocal last
            last = self._change.resolve(state)
            unused = {part.id for part in last.unused}
            for pending in self._change.parts:
                if pending.part.id not in unused:
                    self._check_part(pending)
            # From here on an entry may name our parts, whatever error follows.
            self._may_be_committed = bool(last.ops)
            return last.ops

        state = self._commit(resolve, self.batch)
        self._receipt = Receipt(
            version=state.version,
            added=last.added,
            kept=last.kept,
            deleted=last.deleted,
            failed=last.failed,
            bytes=last.num_bytes,
            seconds=time.monotonic() - self._started,
        )
        for part in last.unused:
            self._remove_folder(part.folder)

    def _check_part(self, pending: PendingPart) -> None:
        pending.part.check_files(self._storage)
        written = self._storage.modified(f"{pending.part.folder}/{NODE_FILE}")
        age_s = math.inf if written is None else self._storage.now() - written
        if age_s > GRACE_S / 2:
            # It could be collected as a leftover in the moment in which it is committed.
            raise StoreUnwritable(
                f"{self._storage.url}/{pending.part.folder} is {age_s / 3600:.0f} hours old",
                hint="commit smaller batches",
            )

    def _open_part(self, name: str) -> "_OpenPart":
        part = self._open.get(name)
        if part is None:
            definition = self._definitions[name]
            self._make_nodes(definition)
            writer = PartWriter(self._storage, definition, self.batch)
            self._folders.append(writer.folder)
            part = self._open[name] = _OpenPart(writer, [])
        return part

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
        part = self._open.pop(name)
        try:
            finished = part.writer.close()
        except BaseException:
            part.writer.abandon()
            raise
        columns = [
            part.writer.video_ids,
            part.writer.row_starts,
            part.writer.row_sizes,
            part.writer.crc32cs,
            part.writer.spans_crc32cs,
            *(list(column) for column in zip(*part.facts, strict=True)),
        ]
        videos = dict(zip(VIDEO_COLUMNS, columns, strict=True))
        self._change.parts.append(PendingPart(self._definitions[name], finished, videos))

    def _definition(self, name: str) -> FeatureDefinition:
        definition = self._definitions.get(name)
        if definition is None:
            raise ValueError(
                f"feature {name!r} is not one of this writer: {sorted(self._definitions)}"
            )
        return definition

    def _check_open(self) -> None:
        if not self._is_entered or self._receipt is not None:
            raise ValueError("a writer is used inside its with block")
        if self._is_broken:
            raise StoreUnwritable(f"{self._storage.url}: a write of this batch failed before")

    @contextlib.contextmanager
    def _unusable_after_an_error(self) -> Any:  # noqa: ANN401
        try:
            yield
        except BaseException:
            self._is_broken = True
            raise

    def _abandon(self) -> None:
        for part in self._open.values():
            part.writer.abandon()
        self._open.clear()
        if not self._may_be_committed:
            for folder in self._folders:
                self._remove_folder(folder)

    def _remove_folder(self, folder: str) -> None:
        try:
            self._storage.remove(folder)
        except VlpipeError as error:
            logger.info("a leftover stays until it is collected: %s", error)


@dataclass
class _OpenPart:
    writer: PartWriter
    facts: list[tuple[Any, ...]]

    @property
    def is_full(self) -> bool:
        writer = self.writer
        return len(writer.video_ids) >= PART_MAX_VIDEOS or writer.num_bytes >= PART_MAX_BYTES


def _check_definition(definition: FeatureDefinition) -> None:
    if definition.dtype not in _STORED_DTYPES:
        raise ValueError(
            f"feature {definition.name!r} has dtype {definition.dtype!r}, expected one of "
            f"{', '.join(sorted(_STORED_DTYPES))}"
        )
    if any(length < 1 for length in definition.row_shape):
        raise ValueError(
            f"feature {definition.name!r} has the row shape {definition.row_shape}; every length "
            "must be at least 1"
        )


def _printable(text: str) -> str:
    """The text as it can be stored as UTF-8, at most 500 characters."""
    return text.encode("utf-8", "backslashreplace").decode()[:_MAX_MESSAGE]
