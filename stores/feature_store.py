"""The feature store: what users call. The work is done by the modules beside this one."""

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vlpipe.stores.change import Mode
from vlpipe.stores.commit import commit
from vlpipe.stores.creation import check_store, create_store
from vlpipe.stores.errors import StoreNotFound, UsageError, VlpipeError
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.foreign_hdf5 import is_hdf5
from vlpipe.stores.history import load_state, oldest_entry, version_at
from vlpipe.stores.layout import RETENTION_S, TARGET_BYTES, check_video_id
from vlpipe.stores.ledger import Ledger, Op
from vlpipe.stores.lookup import check_complete, feature_missing, find_generation
from vlpipe.stores.part import GRACE_S
from vlpipe.stores.references import Tag, read_tag, read_tags, remove_tag, write_pin, write_tag
from vlpipe.stores.snapshot import Snapshot
from vlpipe.stores.state import State
from vlpipe.stores.storage import Storage, local_path, open_storage
from vlpipe.stores.writer import FeatureWriter

if TYPE_CHECKING:
    from vlpipe.stores.compaction import CompactReport
    from vlpipe.stores.garbage import GarbageReport
    from vlpipe.stores.verification import VerifyReport

logger = logging.getLogger(__name__)


class FeatureStore(Snapshot):
    """A handle on a store at one version. It sees that version until `refresh`, or until it
    commits something itself; what others commit meanwhile changes nothing for it.

    Handles pickle to their address and version, and work after a fork.
    """

    def __init__(self, storage: Storage, state: State, *, durability: str, is_pinned: bool) -> None:
        super().__init__(storage, state)
        self._newest = state  # the newest state seen, where commits begin
        self._durability = durability
        self._is_pinned = is_pinned

    # opening

    @classmethod
    def open(
        cls,
        url: str | Path,
        version: int | str | None = None,
        *,
        at: str | date | None = None,
        durability: str = "power",
    ) -> "FeatureStore":
        """The store at a path, `file://PATH`, `s3://BUCKET/PATH` or `memory://NAME`;
        StoreNotFound if there is none. The path may be that of one HDF5 file, an export in the
        layout vlpipe-hdf5, which only reads: see `vlpipe.stores.hdf5_store`.

        version: None for the newest, a number, or a tag. A handle with a given version only reads.
        at: the newest version of this time instead: a datetime, a date (its first moment), or text
            such as 2026-05-04T10:11:12Z (UTC where it names no zone), by the clocks of the writers.
        durability: what a commit survives: "power" (a loss of power) or "process" (the death of
            the process only; faster).
        """
        path = local_path(url)
        if path is not None and is_hdf5(path):
            from vlpipe.stores.hdf5_store import Hdf5Store

            return Hdf5Store.open(path, version, at=at)
        storage = open_storage(url, durability=durability)
        check_store(storage)
        if at is not None and version is not None:
            raise UsageError("a version and a time were given; one of them is enough")
        if at is not None:
            number: int | None = version_at(storage, at)
        else:
            number = read_tag(storage, version) if isinstance(version, str) else version
        state = load_state(storage, number)
        return cls(storage, state, durability=durability, is_pinned=number is not None)

    @classmethod
    def create(
        cls, url: str | Path, *, durability: str = "power", single_writer: bool = False
    ) -> "FeatureStore":
        """A new empty store; UsageError when there is one already.

        single_writer: for places where a file cannot be created only if it is absent: the store
            is made all the same, and whoever writes to it sees to it that no two processes do
            so at once. Any number may read.
        """
        storage = open_storage(url, durability=durability)
        create_store(storage, is_single_writer=single_writer)
        return cls.open(url, durability=durability)

    @classmethod
    def open_or_create(cls, url: str | Path, *, durability: str = "power") -> "FeatureStore":
        """The store at this address, made if there is none."""
        try:
            return cls.open(url, durability=durability)
        except StoreNotFound:
            pass
        try:
            return cls.create(url, durability=durability)
        except UsageError as error:
            try:
                return cls.open(url, durability=durability)  # another process was faster
            except StoreNotFound:
                raise error from None

    def refresh(self) -> int:
        """Moves on to the newest version and returns it. A handle opened at a version stays."""
        if not self._is_pinned:
            self._adopt(self._load_newest())
        return self.version

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.url, self.version, self._durability, self._is_pinned)

    # writing

    def writer(
        self,
        definitions: Sequence[FeatureDefinition],
        *,
        batch: str | None = None,
        run: str | None = None,
        mode: Mode = "keep",
        activate: bool | None = None,
        restore: bool = False,
    ) -> FeatureWriter:
        """A `with` block that commits what was added and failed in it, all at once.

        batch: 16 hex digits that name the batch in part folders and the ledger.
        mode: "keep" leaves a video that is there as it is, "replace" supersedes it.
        activate: make these generations the ones that `store[feature]` reads; None: only where
            the feature has no active generation.
        restore: let videos come back that were deleted.
        """

        def commit_batch(resolve: Callable[[State], list[Op]], batch: str) -> State:
            return self._commit(resolve, batch=batch, run=run)

        self.check_writable()
        self._newest = self._load_newest()
        return FeatureWriter(
            self._storage,
            commit_batch,
            definitions,
            self._newest.version,
            batch=batch,
            mode=mode,
            activate=activate,
            restore=restore,
        )

    def check_writable(self) -> None:
        """Raises UsageError where this handle only reads: at a given version, or one HDF5 file."""
        if self._is_pinned:
            raise UsageError(
                f"this handle of {self.url} was opened at version {self.version} and only reads",
                hint="open the store without a version",
            )

    def activate(self, feature: str, generation: str, *, allow_missing: bool = False) -> int:
        """Makes a generation the one that `store[feature]` reads; the new version comes back.

        Raises UsageError naming videos that the old generation has and the new one neither has
        nor failed at, unless `allow_missing`.
        """

        def resolve(state: State) -> list[Op]:
            new = find_generation(self.url, state, f"{feature}@{generation}")
            old = state.generations.get((feature, state.active.get(feature, "")))
            if old is new:
                return []
            if old is not None and not allow_missing:
                check_complete(state, old, new)
            return [{"op": "activate", "feature": feature, "generation": generation}]

        return self._commit_now(resolve)

    def delete(
        self,
        video_ids: Iterable[str],
        features: Sequence[str] | None = None,
        *,
        reason: str | None = None,
        purge: bool = False,
    ) -> int:
        """Removes videos from some or all features; the new version comes back.

        They stay away, also for writers that are at work now, until `restore` or a writer with
        `restore=True`. purge: the bytes are to go as well, as soon as space is reclaimed.
        """
        return self._mark("delete", video_ids, features, reason=reason, purge=purge)

    def restore(self, video_ids: Iterable[str], features: Sequence[str] | None = None) -> int:
        """Lifts the marks of `delete`, so that the videos can be extracted again; their old rows
        do not come back. The new version comes back."""
        return self._mark("restore", video_ids, features)

    def drop(self, feature: str, generation: str) -> int:
        """Removes a generation with all its videos; the new version comes back."""

        def resolve(state: State) -> list[Op]:
            find_generation(self.url, state, f"{feature}@{generation}")
            return [{"op": "drop", "feature": feature, "generation": generation}]

        return self._commit_now(resolve)

    def tag(self, name: str, note: str | None = None) -> None:
        """Names this version for ever: `open(url, name)` finds it, and `gc` keeps it."""
        write_tag(self._storage, name, self._state, note)

    def untag(self, name: str) -> None:
        """Takes the name away from its version, which `gc` then keeps no longer than others."""
        remove_tag(self._storage, name)

    def tags(self) -> list[Tag]:
        """The named versions, by name; also those that are newer than this handle's."""
        return read_tags(self._storage)

    def pin(self, run: str, hours: float = 24.0) -> None:
        """Keeps this version from `gc` for some hours. A long run renews its pin."""
        write_pin(self._storage, run, self.version, hours)

    def checkpoint(self) -> int:
        """Writes the newest state as tables, for quick opening and for other tools; its version
        comes back. Commits do this by themselves now and then."""
        self.check_writable()
        self._newest = self._load_newest()
        self._write_checkpoint()
        return self._newest.version

    def compact(
        self,
        features: Sequence[str] | None = None,
        *,
        target_bytes: int = TARGET_BYTES,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> "CompactReport":
        """Rewrites small parts, and parts with many dead rows, into parts of about `target_bytes`.

        Runs beside readers and writers. The old parts are garbage once no retained version names
        them; `gc` removes them. features: None for all, else `feature` (each of its generations)
        or `feature@generation`. progress: told the bytes copied, piece by piece.
        """
        from vlpipe.stores.maintenance import compact_store

        self.check_writable()
        self._newest = self._load_newest()
        report = compact_store(
            self._storage,
            self._newest,
            self._commit_as,
            features,
            target_bytes=target_bytes,
            is_dry_run=dry_run,
            progress=progress,
        )
        if report.parts_after and not dry_run:
            self.checkpoint()
        return report

    def verify(
        self,
        *,
        deep: bool = True,
        repair: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> "VerifyReport":
        """What is wrong with the bytes of this version, if anything; never raises for damage.

        deep: compare every video with its checksum; otherwise only sizes and small files.
        repair: mend what can be mended (see `vlpipe.stores.repair`) and report on the store as it
            is then. Videos whose bytes are damaged become missing, and `lost` names them.
        progress: called with the numbers of parts checked and of all parts.
        """
        report = super().verify(deep=deep or repair, progress=progress)
        if not repair or report.is_sound:
            return report
        from vlpipe.stores.repair import repair_store

        def newest() -> State:
            self._newest = self._load_newest()
            return self._newest

        self.check_writable()
        repairs = repair_store(self._storage, newest, self._commit_as, report)
        self._write_checkpoint()
        self.refresh()
        report = super().verify(progress=progress)
        report.repaired, report.lost = repairs.done, repairs.lost
        return report

    def gc(
        self,
        grace_s: float = GRACE_S,
        *,
        retention_s: float = RETENTION_S,
        dry_run: bool = True,
    ) -> "GarbageReport":
        """What can be removed, or with `dry_run=False` was: parts of no commit and of no retained
        version, leftovers of killed writers, outdated checkpoints and the entries below them; all
        of the age `grace_s` (seconds) or older.

        Retained are the versions of the last `retention_s` (seven days), tags and pins. With a
        `grace_s` under a day no writer may be at work.
        """
        from vlpipe.stores.garbage import collect_garbage

        self.check_writable()
        return collect_garbage(
            self._storage, grace_s=grace_s, is_dry_run=dry_run, retention_s=retention_s
        )

    def unpurged(self) -> list[str]:
        """Videos deleted with `purge` whose bytes still lie in some part, sorted. They go with
        `compact`, and `gc` once the versions that had them are no longer retained."""
        from vlpipe.stores.maintenance import unpurged_videos

        return unpurged_videos(self._storage, self._state)

    # below

    def _load_newest(self) -> State:
        state = self._newest
        if oldest_entry(self._storage) > state.version + 1:
            return load_state(self._storage)  # what lies between was collected
        entries = Ledger(self._storage).entries(state.version, state.entry_id, None)
        return state.advanced(entries)

    def _adopt(self, state: State) -> None:
        self._newest = state
        if not self._is_pinned and state is not self._state:
            self._state = state
            self._readers = {}

    def _commit_as(self, resolve: Callable[[State], list[Op]], batch: str) -> State:
        return self._commit(resolve, batch=batch)

    def _commit_now(self, resolve: Callable[[State], list[Op]]) -> int:
        self.check_writable()
        self._newest = self._load_newest()
        return self._commit(resolve).version

    def _commit(
        self,
        resolve: Callable[[State], list[Op]],
        *,
        batch: str | None = None,
        run: str | None = None,
    ) -> State:
        state = commit(self._storage, self._newest, resolve, batch=batch, run=run)
        self._newest = state
        if state.is_checkpoint_due:
            try:
                self._keep_up_checkpoints()
            except VlpipeError as error:
                # The commit stands; a later one tries again.
                logger.warning("no checkpoint was written: %s", error)
        self._adopt(self._newest)
        return state

    def _keep_up_checkpoints(self) -> None:
        from vlpipe.stores.checkpoint import checkpoint_versions

        until, known = self._newest.version, self._newest.checkpoint_version
        if any(known < version <= until for version in checkpoint_versions(self._storage)):
            # Another writer was faster: nothing is due, and its tables take the place of memory.
            self._newest = load_state(self._storage, until)
        if self._newest.is_checkpoint_turn:
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        from vlpipe.stores.checkpoint import write_checkpoint

        state = self._newest
        if state.version > state.checkpoint_version and write_checkpoint(self._storage, state):
            # From its tables on, so that the memory of a long-lived writer does not grow.
            self._newest = load_state(self._storage, state.version)

    def _mark(
        self,
        op: str,
        video_ids: Iterable[str],
        features: Sequence[str] | None,
        **facts: Any,  # noqa: ANN401 - JSON
    ) -> int:
        if isinstance(video_ids, str):  # which is an iterable of ids of one letter
            raise TypeError(f"video_ids is the text {video_ids!r}, expected a list of ids")
        ids = [check_video_id(video_id) for video_id in dict.fromkeys(video_ids)]

        def resolve(state: State) -> list[Op]:
            if op == "restore" and features is not None:
                _refuse_deleted_from_all(state, ids, features)
            known = {feature for feature, _ in state.generations}
            for feature in features or ():
                if feature not in known:
                    raise feature_missing(self.url, state, feature)
            names = None if features is None else list(features)
            return [{"op": op, "videos": ids, "features": names, **facts}] if ids else []

        return self._commit_now(resolve)


def _refuse_deleted_from_all(state: State, ids: list[str], features: Sequence[str]) -> None:
    """A mark for all features is lifted as a whole or not at all."""
    marked = [video_id for video_id in ids if state.deletions.get((video_id, None)) is not None]
    if marked:
        raise UsageError(
            f"video {marked[0]!r} was deleted from all features and cannot be restored for "
            f"{', '.join(features)} alone",
            hint="restore it for all, then delete it from the others",
        )


def _reopen(url: str, version: int, durability: str, is_pinned: bool) -> FeatureStore:
    store = FeatureStore.open(url, version, durability=durability)
    store._is_pinned = is_pinned
    return store
