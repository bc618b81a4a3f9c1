"""From the files of a store to its state at one version."""

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime

from vlpipe.stores.errors import SnapshotGone, StoreDamaged, UsageError
from vlpipe.stores.layout import CHECKPOINTS, OLDEST_ENTRY, parse_utc
from vlpipe.stores.ledger import Ledger, Op
from vlpipe.stores.sealed_json import unseal
from vlpipe.stores.state import State
from vlpipe.stores.storage import Storage

logger = logging.getLogger(__name__)


def load_state(storage: Storage, version: int | None = None) -> State:
    """The state at `version`, or the newest: a checkpoint and the entries after it.

    Raises StoreDamaged for a damaged entry or a gap, UsageError for a version that was never
    written.
    """
    if version is not None and version < 0:
        raise UsageError(f"version {version} of {storage.url} cannot be: versions count from 0")
    base = _nearest_checkpoint(storage, version)
    if base.version == 0 and version != 0:
        _check_not_removed(storage, version)
    entries = Ledger(storage).entries(base.version, base.entry_id, version)
    state = base.advanced(entries)
    if version is not None and state.version < version:
        raise UsageError(f"{storage.url} has no version {version}; the newest is {state.version}")
    return state


def oldest_entry(storage: Storage) -> int:
    """The version of the oldest entry that must exist: 1, unless collection has said otherwise."""
    try:
        data = storage.read(OLDEST_ENTRY)
    except FileNotFoundError:
        return 1
    return int(unseal(data, f"{storage.url}/{OLDEST_ENTRY}")["version"])


def version_at(storage: Storage, at: str | date) -> int:
    """The newest version whose entry was written at or before a time, by the clocks of its
    writers; 0 before the first. `at`: ISO 8601; without a zone it is UTC, a date its first moment.

    Raises SnapshotGone when the entries of that time were removed.
    """
    try:
        moment = datetime.fromisoformat(at if isinstance(at, str) else at.isoformat())
    except (AttributeError, ValueError) as error:
        raise UsageError(f"{at!r} is not a time such as 2026-05-04T10:11:12Z") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    ledger = Ledger(storage)
    for version in reversed(ledger.versions()):
        entry = ledger.read(version)
        if entry is not None and parse_utc(entry.time) <= moment:
            return version
    oldest = oldest_entry(storage)
    if oldest > 1:
        raise _gone(storage, f"the version of {at}", oldest)
    return 0


def _check_not_removed(storage: Storage, version: int | None) -> None:
    """Raises SnapshotGone where collection has removed the history up to a later checkpoint."""
    oldest = oldest_entry(storage)
    if oldest > 1:
        if version is not None and version < oldest:
            raise _gone(storage, f"version {version}", oldest)
        raise StoreDamaged(
            f"{storage.url} has no sound checkpoint left for the entries from {oldest} on",
            hint="copy ckpt/ from a backup of the store",
        )


def _gone(storage: Storage, what: str, oldest: int) -> SnapshotGone:
    return SnapshotGone(
        f"the history of {what} of {storage.url} was collected; entries begin at {oldest}",
        hint="tag or pin versions that must stay",
    )


def _nearest_checkpoint(storage: Storage, version: int | None) -> State:
    """The newest sound checkpoint that is not after `version`, or the empty state.

    A damaged one is skipped with a warning, because the ledger says the same.
    """
    if version != 0 and storage.names(CHECKPOINTS):
        # Late, because tables need pyarrow and a young store has no checkpoint.
        from vlpipe.stores.checkpoint import checkpoint_versions, read_checkpoint

        for candidate in checkpoint_versions(storage):
            if version is not None and candidate > version:
                continue
            try:
                state = read_checkpoint(storage, candidate)
            except StoreDamaged as error:
                logger.warning("a checkpoint is skipped: %s", error)
                continue
            if state is not None:
                return state
    return State()


@dataclass(frozen=True)
class LogEntry:
    """One commit, for people to read. `operations` has a line for each thing it did."""

    version: int
    time: str
    host: str
    run: str | None
    operations: tuple[str, ...]


def read_log(storage: Storage, until: int) -> list[LogEntry]:
    """All entries that exist, up to and with version `until`, oldest first."""
    ledger = Ledger(storage)
    result = []
    for version in ledger.versions():
        entry = ledger.read(version) if version <= until else None
        if entry is not None:
            writer = entry.writer
            operations = tuple(_summary(op) for op in entry.ops)
            result.append(
                LogEntry(version, entry.time, writer["host"], writer.get("run"), operations)
            )
    return result


def _summary(op: Op) -> str:
    kind, videos = op["op"], op.get("videos")
    words = [kind]
    if "feature" in op:
        words.append(f"{op['feature']}@{op['generation']}")
    if kind in ("add", "fail") and isinstance(videos, dict):
        words.append(f"{len(videos['id'])} videos")
    elif isinstance(videos, list):
        words.append(f"{len(videos)} videos")
        if "features" in op:
            names = op["features"]
            words.append("of " + ", ".join(names) if names else "of all features")
    if kind == "rewrite":
        words.append(f"{len(op['remove'])} parts into {len(op['add'])}")
    if op.get("reason"):
        words.append(f"({op['reason']})")
    return " ".join(words)
