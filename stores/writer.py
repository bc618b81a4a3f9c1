"""Writing: parts are streamed while videos are added, and one entry commits them all."""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from vlpipe.stores.batch_parts import BatchParts
from vlpipe.stores.change import (
    Change,
    Mode,
    PendingFailure,
    Resolution,
)
from vlpipe.stores.errors import StoreUnwritable
from vlpipe.stores.features import FeatureDefinition, Features
from vlpipe.stores.layout import check_batch_id, check_video_id, new_batch_id
from vlpipe.stores.ledger import Op
from vlpipe.stores.state import State
from vlpipe.stores.storage import Storage
from vlpipe.stores.stored_dtypes import FEATURE_DTYPES
from vlpipe.stores.stored_rows import stored_rows

_MAX_MESSAGE = 500
_SOURCE_DIGEST = re.compile(r"[0-9a-f]{32}([0-9a-f]{32})?")

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
        self._parts = BatchParts(storage, self.batch)
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
        try:
            for name, (rows, spans) in stored.items():
                self._parts.append(self._definitions[name], video_id, rows, spans, facts)
                self._added[name].add(video_id)
                self._failures.pop((name, video_id), None)
        except BaseException:
            self._is_broken = True
            raise

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
        self._change.parts = self._parts.finish()
        self._change.failures = list(self._failures.values())
        last = Resolution()

        def resolve(state: State) -> list[Op]:
            nonlocal last
            last = self._change.resolve(state)
            unused = {part.id for part in last.unused}
            for pending in self._change.parts:
                if pending.part.id not in unused:
                    pending.part.check_committable(self._storage)
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
            self._parts.remove(part.folder)

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

    def _abandon(self) -> None:
        self._parts.abandon(is_removed=not self._may_be_committed)


def _check_definition(definition: FeatureDefinition) -> None:
    if definition.dtype not in FEATURE_DTYPES:
        raise ValueError(
            f"feature {definition.name!r} has dtype {definition.dtype!r}, expected one of "
            f"{', '.join(FEATURE_DTYPES)}"
        )
    if any(length < 1 for length in definition.row_shape):
        raise ValueError(
            f"feature {definition.name!r} has the row shape {definition.row_shape}; every length "
            "must be at least 1"
        )


def _printable(text: str) -> str:
    """The text as it can be stored as UTF-8, at most 500 characters."""
    return text.encode("utf-8", "backslashreplace").decode()[:_MAX_MESSAGE]
