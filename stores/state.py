"""The state of a store at one version: the ledger folded up to there.

A state is a checkpoint (tables on disk, shared by mapping) and, over it, dictionaries with what
the entries since then changed. It is never changed after it was made: `advanced` makes a new one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

from vlpipe.stores.errors import StoreTooNew
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.generation import GenerationState
from vlpipe.stores.layered import Layered
from vlpipe.stores.layout import FORMAT_VERSION
from vlpipe.stores.ledger import Entry, Op
from vlpipe.stores.part import Part


class Failure(NamedTuple):
    """Why a video has no rows of a feature."""

    kind: str
    message: str
    attempt: int
    retry: bool
    version: int
    time: str


class Deletion(NamedTuple):
    """The mark that keeps a deleted video from coming back."""

    reason: str | None
    purge: bool
    version: int
    time: str


# Entries after a checkpoint that are never too many; videos that one entry of a full batch adds.
LEAST_TAIL, VIDEOS_PER_ENTRY = 64, 256

FailureKey = tuple[str, str, str]  # feature, generation, video id
DeletionKey = tuple[str, str | None]  # video id; feature, or None for all of them


@dataclass
class State:
    """What readers of one version see. `generations` holds all that were not dropped."""

    version: int = 0
    entry_id: str | None = None
    time: str = ""
    generations: dict[tuple[str, str], GenerationState] = field(default_factory=dict)
    active: dict[str, str] = field(default_factory=dict)  # feature -> generation
    dropped: dict[tuple[str, str], int] = field(default_factory=dict)  # -> version of the drop
    failures: Layered[FailureKey, Failure] = field(default_factory=Layered)
    deletions: Layered[DeletionKey, Deletion] = field(default_factory=Layered)
    min_writer: int = FORMAT_VERSION
    checkpoint_version: int = 0
    checkpoint_videos: int = 0

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether so many entries follow the last known checkpoint that opening becomes slow."""
        return self._num_overdue > 0

    @property
    def is_checkpoint_turn(self) -> bool:
        """Whether it is for the writer of this version's entry to make the checkpoint that is due.

        Of many writers it is one, for each would need as long and make as much; should that one
        die over it, the next turn comes when a quarter as many entries have followed.
        """
        turns = max(1, self._longest_tail // 4)
        return self.is_checkpoint_due and self._num_overdue % turns == 1 % turns

    @property
    def _num_overdue(self) -> int:
        return self.version - self.checkpoint_version - self._longest_tail

    @property
    def _longest_tail(self) -> int:
        """Entries: at least so many, or a tenth of what the checkpoint's videos took."""
        return max(LEAST_TAIL, self.checkpoint_videos // (10 * VIDEOS_PER_ENTRY))

    def deletion(self, video_id: str, feature: str) -> Deletion | None:
        """The mark that this video of this feature was deleted; rows added since do not lift it."""
        return self.deletions.get((video_id, None)) or self.deletions.get((video_id, feature))

    def advanced(self, entries: Iterable[Entry]) -> "State":
        """The state after these entries, which must follow this version without a gap."""
        state: State | None = None
        for entry in entries:
            if state is None:
                state = self._copy()
            if entry.version != state.version + 1:
                raise ValueError(f"entry {entry.version} does not follow {state.version}")
            for op in entry.ops:
                _fold(state, op, entry)
            state.version, state.entry_id, state.time = entry.version, entry.id, entry.time
        return state or self

    def _copy(self) -> "State":
        return State(
            version=self.version,
            entry_id=self.entry_id,
            time=self.time,
            generations={key: value.copy() for key, value in self.generations.items()},
            active=self.active.copy(),
            dropped=self.dropped.copy(),
            failures=self.failures.copy(),
            deletions=self.deletions.copy(),
            min_writer=self.min_writer,
            checkpoint_version=self.checkpoint_version,
            checkpoint_videos=self.checkpoint_videos,
        )


def defined(op: Op) -> FeatureDefinition:
    """What a `define` operation defines."""
    return FeatureDefinition.from_json(
        {"name": op["feature"], **op["spec"], "provenance": op["provenance"]}
    )


def named_parts(op: Op) -> list[dict[str, Any]]:
    """The JSON of the parts that an operation brings into the store."""
    if op["op"] == "add":
        return [op["part"]]
    return [added["part"] for added in op["add"]] if op["op"] == "rewrite" else []


def _fold(state: State, op: Op, entry: Entry) -> None:
    fold = _FOLDS.get(op["op"])
    if fold is None or (op["op"] == "add" and "videos" not in op):
        raise StoreTooNew(
            f"entry {entry.version} has an operation {op['op']!r} that this vlpipe does not know"
        )
    fold(state, op, entry)


def _fold_define(state: State, op: Op, entry: Entry) -> None:
    key = (op["feature"], op["generation"])
    state.dropped.pop(key, None)
    if key not in state.generations:
        state.generations[key] = GenerationState(defined(op), op["generation"])


def _fold_activate(state: State, op: Op, entry: Entry) -> None:
    state.active[op["feature"]] = op["generation"]


def _fold_add(state: State, op: Op, entry: Entry) -> None:
    feature, generation = op["feature"], op["generation"]
    part = Part.from_json(op["part"], feature, generation, entry.version, entry.time)
    videos = op["videos"]
    ids = videos["id"]
    nothing = [None] * len(ids)
    rows = zip(
        repeat(part),
        videos["row_start"],
        videos["row_size"],
        videos["crc32c"],
        videos["spans_crc32c"],
        videos.get("source", nothing),
        videos.get("seconds", nothing),
        videos.get("source_size", nothing),
        videos.get("source_mtime_ns", nothing),
        videos.get("note", nothing),
        repeat(entry.version),
        strict=False,  # part and version repeat without end
    )
    state.generations[feature, generation].put(zip(ids, rows, strict=True))
    if state.failures:
        state.failures.forget(zip(repeat(feature), repeat(generation), ids, strict=False))


def _fold_fail(state: State, op: Op, entry: Entry) -> None:
    videos = op["videos"]
    names = ("id", "feature", "generation", "kind", "message", "attempt", "retry")
    columns = (videos[name] for name in names)
    for video_id, feature, generation, kind, message, attempt, retry in zip(*columns, strict=True):
        found = state.generations.get((feature, generation))
        if found is not None and found.locate(video_id) is None:
            failure = Failure(kind, message, attempt, retry, entry.version, entry.time)
            state.failures.set((feature, generation, video_id), failure)


def _fold_delete(state: State, op: Op, entry: Entry) -> None:
    features = op["features"]
    mark = Deletion(op.get("reason"), op.get("purge", False), entry.version, entry.time)
    for video_id in op["videos"]:
        for feature in [None] if features is None else features:
            state.deletions.set((video_id, feature), mark)
    for (feature, generation), found in state.generations.items():
        if features is None or feature in features:
            found.mask(op["videos"])
            state.failures.forget((feature, generation, video_id) for video_id in op["videos"])


def _fold_restore(state: State, op: Op, entry: Entry) -> None:
    videos, features = set(op["videos"]), op["features"]
    state.deletions.forget_all(
        lambda key: key[0] in videos and (features is None or key[1] in features)
    )


def _fold_rewrite(state: State, op: Op, entry: Entry) -> None:
    """Rows lie elsewhere now. Only videos that still lie in one of the removed parts move, so
    what was deleted, replaced or moved since the rewrite was planned stays as it is."""
    feature, generation = op["feature"], op["generation"]
    found = state.generations.get((feature, generation))
    if found is not None:
        removed = set(op["remove"])
        for added in op["add"]:
            part = Part.from_json(added["part"], feature, generation, entry.version, entry.time)
            found.move(added["videos"]["id"], added["videos"]["row_start"], part, removed)


def _fold_lose(state: State, op: Op, entry: Entry) -> None:
    """The bytes of these videos in this part are damaged: the videos are missing again."""
    found = state.generations.get((op["feature"], op["generation"]))
    if found is not None:
        rows = found.find_many(op["videos"])
        found.mask(
            video_id
            for video_id, row in zip(op["videos"], rows, strict=True)
            if row is not None and row.part.id == op["part"]
        )


def _fold_drop(state: State, op: Op, entry: Entry) -> None:
    feature, generation = op["feature"], op["generation"]
    state.generations.pop((feature, generation), None)
    state.dropped[feature, generation] = entry.version
    if state.active.get(feature) == generation:
        del state.active[feature]
    state.failures.forget_all(lambda key: key[:2] == (feature, generation))


def _fold_require(state: State, op: Op, entry: Entry) -> None:
    if op["min_reader"] > FORMAT_VERSION:
        raise StoreTooNew(
            f"since entry {entry.version} the store has format {op['min_reader']}, this vlpipe "
            f"reads {FORMAT_VERSION}"
        )
    state.min_writer = max(state.min_writer, op["min_writer"])


_FOLDS: dict[str, Callable[[State, Op, Entry], None]] = {
    "define": _fold_define,
    "activate": _fold_activate,
    "add": _fold_add,
    "fail": _fold_fail,
    "delete": _fold_delete,
    "restore": _fold_restore,
    "rewrite": _fold_rewrite,
    "lose": _fold_lose,
    "drop": _fold_drop,
    "require": _fold_require,
}
