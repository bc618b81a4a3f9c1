"""Removing what nobody can need any more.

Never done by opening or reading: an unlisted part may be a commit about to happen, so only age
tells a leftover. Ages are judged by the clock of the storage. Writers refuse to commit parts that
are older than half a day, so that none is collected in the moment in which it is committed.
"""

from dataclasses import dataclass, field

from vlpipe.stores.checkpoint import checkpoint_versions
from vlpipe.stores.checkpoint_tables import live_parts
from vlpipe.stores.folders import files_below, find_leftovers, find_parts
from vlpipe.stores.history import load_state
from vlpipe.stores.layout import CHECKPOINT_FILE, checkpoint_folder, entry_path, part_folder
from vlpipe.stores.ledger import Ledger
from vlpipe.stores.references import read_pins, read_tags
from vlpipe.stores.storage import Storage

RETENTION_S = 7 * 24 * 3600.0
_KEPT_CHECKPOINTS = 2  # the newest, and one to fall back to


@dataclass
class GarbageReport:
    """What was removed, or would be: paths relative to the store."""

    is_dry_run: bool
    parts: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    num_bytes: int = 0


def collect_garbage(
    storage: Storage, *, grace_s: float, is_dry_run: bool, retention_s: float = RETENTION_S
) -> GarbageReport:
    """Parts of no retained version, temporary files and outdated checkpoints, all older than
    `grace_s`. Retained are the versions of the last `retention_s`, tags and pins."""
    report = GarbageReport(is_dry_run)
    now = storage.now()
    # First what lies there, then what is named: a part committed in between counts as named.
    parts = [folder for folder in find_parts(storage) if _age_s(storage, folder, now) > grace_s]
    report.leftovers = [
        name for name in find_leftovers(storage) if _age_s(storage, name, now) > grace_s
    ]
    needed = _needed_parts(storage, now, retention_s)
    report.parts = [folder for folder in parts if folder not in needed]
    report.checkpoints = [
        folder
        for folder in _outdated_checkpoints(storage)
        if _age_s(storage, folder, now) > grace_s
    ]
    for name in (*report.parts, *report.leftovers, *report.checkpoints):
        report.num_bytes += sum(storage.size(file) or 0 for file in files_below(storage, name))
        if not is_dry_run:
            storage.remove(name)
    return report


def _age_s(storage: Storage, name: str, now: float) -> float:
    """Seconds since the newest file at or below a name was written; 0 when it has just gone."""
    times = (storage.modified(file) for file in files_below(storage, name))
    return now - max((time for time in times if time is not None), default=now)


def _needed_parts(storage: Storage, now: float, retention_s: float) -> set[str]:
    ledger = Ledger(storage)
    versions = ledger.versions()
    # The version that was the newest when the retained period began is retained as well.
    first = 0
    for version in reversed(versions):
        written = storage.modified(entry_path(version))
        if written is not None and now - written > retention_s:
            first = version
            break
    needed: set[str] = set()
    for version in {first, *read_tags(storage).values(), *read_pins(storage).values()}:
        needed |= {part.folder for part in live_parts(load_state(storage, version))}
    state = load_state(storage, first)
    for entry in ledger.entries(first, state.entry_id, None):
        for op in entry.ops:
            if op["op"] == "add":
                needed.add(part_folder(op["feature"], op["generation"], op["part"]["id"]))
    return needed


def _outdated_checkpoints(storage: Storage) -> list[str]:
    versions = checkpoint_versions(storage)  # newest first
    finished = [
        version
        for version in versions
        if storage.size(f"{checkpoint_folder(version)}/{CHECKPOINT_FILE}") is not None
    ]
    kept = finished[:_KEPT_CHECKPOINTS]
    if len(kept) < _KEPT_CHECKPOINTS:
        return []
    return [checkpoint_folder(version) for version in versions if version < kept[-1]]
