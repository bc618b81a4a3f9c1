"""Removing what nobody can need any more.

Never done by opening or reading: an unlisted part may be a commit about to happen, so only age
tells a leftover. Ages are judged by the clock of the storage. Writers refuse to commit parts that
are older than half a day, so that none is collected in the moment in which it is committed.
"""

import time
from dataclasses import dataclass, field

from vlpipe.stores.checkpoint import check_checkpoint, checkpoint_versions
from vlpipe.stores.checkpoint_tables import live_parts
from vlpipe.stores.errors import StoreDamaged, StoreUnwritable
from vlpipe.stores.folders import files_below, find_leftovers, find_parts
from vlpipe.stores.history import load_state, oldest_entry
from vlpipe.stores.layout import (
    CHECKPOINT_FILE,
    OLDEST_ENTRY,
    RETENTION_S,
    checkpoint_folder,
    entry_path,
    part_folder,
)
from vlpipe.stores.ledger import Ledger
from vlpipe.stores.references import read_pins, read_tags
from vlpipe.stores.sealed_json import seal
from vlpipe.stores.state import named_parts
from vlpipe.stores.storage import Storage

_KEPT_CHECKPOINTS = 2  # the newest, and one to fall back to


@dataclass
class GarbageReport:
    """What was removed, or would be: paths relative to the store."""

    is_dry_run: bool
    parts: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)
    num_bytes: int = 0


def collect_garbage(
    storage: Storage, *, grace_s: float, is_dry_run: bool, retention_s: float = RETENTION_S
) -> GarbageReport:
    """Parts of no retained version, temporary files, outdated checkpoints and the entries below
    the checkpoints that are kept; all of the age `grace_s` or older.

    Retained are the versions of the last `retention_s`, tags and pins.
    """
    report = GarbageReport(is_dry_run)
    now = _now(storage, is_dry_run=is_dry_run)

    def old(names: list[str]) -> list[str]:
        # Equal counts: the clocks of object stores know whole seconds, and 0 is to spare nothing.
        return [name for name in names if _age_s(storage, name, now) >= grace_s]

    # First what lies there, then what is named: a part committed in between counts as named.
    parts = old(find_parts(storage))
    report.leftovers = old(find_leftovers(storage))
    retained = _retained_versions(storage, now, retention_s)
    needed = _needed_parts(storage, retained)
    report.parts = [folder for folder in parts if folder not in needed]
    checkpoints, base = _needed_checkpoints(storage, min(retained))
    report.checkpoints = old(
        [
            checkpoint_folder(version)
            for version in checkpoint_versions(storage)
            if version not in checkpoints and version < max(checkpoints, default=0)
        ]
    )
    report.entries = old([entry_path(v) for v in Ledger(storage).versions() if v <= base])
    if report.entries and not is_dry_run:
        oldest = max(base + 1, oldest_entry(storage))
        storage.replace(OLDEST_ENTRY, seal({"version": oldest}))
    # Entries go oldest first, so that what remains of a killed collection is still without gaps.
    for name in (*report.parts, *report.leftovers, *report.entries, *report.checkpoints):
        report.num_bytes += sum(storage.size(file) or 0 for file in files_below(storage, name))
        if not is_dry_run:
            storage.remove(name)
    return report


def _now(storage: Storage, *, is_dry_run: bool) -> float:
    try:
        return storage.now()
    except StoreUnwritable:
        if not is_dry_run:
            raise
        return time.time()  # who may not write can be told all the same


def _age_s(storage: Storage, name: str, now: float) -> float:
    """Seconds since the newest file at or below a name was written; 0 when it has just gone."""
    times = (storage.modified(file) for file in files_below(storage, name))
    return now - max((time for time in times if time is not None), default=now)


def _retained_versions(storage: Storage, now: float, retention_s: float) -> list[int]:
    """The version that was the newest when the retained period began, which stands for all after
    it, and the versions of tags and pins."""
    first = 0
    for version in reversed(Ledger(storage).versions()):
        written = storage.modified(entry_path(version))
        if written is not None and now - written >= retention_s:
            first = version
            break
    begin = oldest_entry(storage) - 1  # of what lies before, nothing is left to retain
    named = [*(tag.version for tag in read_tags(storage)), *read_pins(storage).values()]
    return [max(first, begin), *(version for version in named if version >= begin)]


def _needed_parts(storage: Storage, retained: list[int]) -> set[str]:
    needed: set[str] = set()
    for version in set(retained):
        needed |= {part.folder for part in live_parts(load_state(storage, version))}
    first = retained[0]
    state = load_state(storage, first)
    for entry in Ledger(storage).entries(first, state.entry_id, None):
        for op in entry.ops:
            needed |= {
                part_folder(op["feature"], op["generation"], part["id"]) for part in named_parts(op)
            }
    return needed


def _needed_checkpoints(storage: Storage, oldest: int) -> tuple[set[int], int]:
    """The checkpoints to keep, and the version up to which entries are needed by nobody.

    Kept are the newest two, and the newest two that are not after the oldest retained version:
    each time one to begin from, and one to fall back to should it be damaged.
    """
    finished = [
        version
        for version in checkpoint_versions(storage)  # newest first
        if storage.size(f"{checkpoint_folder(version)}/{CHECKPOINT_FILE}") is not None
    ]
    if len(finished) < _KEPT_CHECKPOINTS:
        return set(finished), 0
    bases = [version for version in finished if version <= oldest][:_KEPT_CHECKPOINTS]
    is_sound = len(bases) == _KEPT_CHECKPOINTS and all(_is_sound(storage, v) for v in bases)
    return {*finished[:_KEPT_CHECKPOINTS], *bases}, min(bases) if is_sound else 0


def _is_sound(storage: Storage, version: int) -> bool:
    try:
        return check_checkpoint(storage, version)
    except StoreDamaged:
        return False
