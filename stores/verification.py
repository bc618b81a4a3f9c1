"""Comparing every byte of a store with what the ledger says about it."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from vlpipe.stores import zarr_metadata
from vlpipe.stores.checkpoint import check_checkpoint, checkpoint_versions
from vlpipe.stores.creation import check_store
from vlpipe.stores.errors import StoreDamaged, VlpipeError
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.folders import find_leftovers, find_parts
from vlpipe.stores.generation import GenerationState, VideoRow
from vlpipe.stores.history import oldest_entry
from vlpipe.stores.layout import (
    DATA,
    NODE_FILE,
    OLDEST_ENTRY,
    checkpoint_folder,
    entry_path,
    generation_folder,
)
from vlpipe.stores.ledger import Entry, Ledger
from vlpipe.stores.part import Part
from vlpipe.stores.part_verification import PartVerifier
from vlpipe.stores.references import read_pins, read_tags
from vlpipe.stores.state import State, defined, named_parts
from vlpipe.stores.storage import Storage

Area = Literal[
    "store", "entry", "gap", "checkpoint", "reference", "metadata", "part", "video", "past"
]


PastParts = dict[str, tuple[FeatureDefinition, Part]]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. Videos concerned are named one by one.

    area: "part" and "video" mean that rows are lost; "entry" and "gap" that the history is; a
        damaged "checkpoint" may be deleted; "metadata" matters to readers other than vlpipe;
        "past" are rows that only older versions of the store have.
    path: the damaged file or folder, relative to the store, where one is to blame.
    """

    area: Area
    message: str
    feature: str | None = None
    generation: str | None = None
    video_id: str | None = None
    part: str | None = None
    path: str | None = None


@dataclass
class VerifyReport:
    """What was compared and what was wrong.

    orphan_parts: folders of no live video: of writers at work, of killed ones, or no longer
        needed. leftovers: temporary files. Both are harmless, and `gc` removes them in time.
    past_damage: what is wrong with parts that only older versions use. It does not make the store
        unsound: no new reader can meet it, and `gc` removes these parts in time.
    repaired: what `repair` did before this report was made. lost: (feature, generation, video id)
        of videos that it had to put back to missing; extraction makes them again.
    """

    url: str
    version: int
    is_deep: bool
    problems: list[Problem] = field(default_factory=list)
    num_entries: int = 0
    num_checkpoints: int = 0
    num_parts: int = 0
    num_videos: int = 0
    num_bytes: int = 0
    orphan_parts: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    past_damage: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    lost: list[tuple[str, str, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        return not self.problems


def verify_store(
    storage: Storage,
    state: State,
    *,
    is_deep: bool,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """The report on this state of the store, and on all entries and checkpoints."""
    started = time.monotonic()
    report = VerifyReport(storage.url, state.version, is_deep)
    _attempt(report, "store", lambda: check_store(storage))
    _attempt(report, "reference", lambda: read_tags(storage))
    _attempt(report, "reference", lambda: read_pins(storage))
    past = _verify_entries(storage, report)
    _verify_checkpoints(storage, report)
    _verify_node(storage, report, f"{DATA}/{NODE_FILE}", zarr_metadata.group())
    for feature in sorted({feature for feature, _ in state.generations}):
        if any(g.counts[0] for key, g in state.generations.items() if key[0] == feature):
            name = f"{DATA}/{feature}/{NODE_FILE}"
            _verify_node(storage, report, name, zarr_metadata.group())
    named: set[str] = set()
    for generation, part, videos in _parts(state, progress):
        folder = generation_folder(*generation.key)
        if folder not in named:
            named.add(folder)
            node = zarr_metadata.generation_group(generation.definition)
            _verify_node(storage, report, f"{folder}/{NODE_FILE}", node)
        named.add(part.folder)
        _verify_part(storage, report, generation, part, videos)
    if is_deep:
        for folder, (definition, part) in sorted(past.items()):
            if folder not in named and storage.size(f"{folder}/{NODE_FILE}") is not None:
                report.past_damage += _past_damage(storage, definition, part)
    report.orphan_parts = [folder for folder in find_parts(storage) if folder not in named]
    report.leftovers = find_leftovers(storage)
    report.seconds = time.monotonic() - started
    return report


def verify_one_file(
    storage: Storage,
    state: State,
    *,
    is_deep: bool,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """The report on a store that is one file: nothing lies beside its rows."""
    started = time.monotonic()
    report = VerifyReport(storage.url, state.version, is_deep)
    for generation, part, videos in _parts(state, progress):
        _verify_part(storage, report, generation, part, videos)
    report.seconds = time.monotonic() - started
    return report


def _attempt(report: VerifyReport, area: Area, check: Callable[[], object]) -> None:
    try:
        check()
    except VlpipeError as error:
        report.problems.append(Problem(area, error.message))


def _verify_entries(storage: Storage, report: VerifyReport) -> PastParts:
    """All parts that the entries name, by folder."""
    ledger = Ledger(storage)
    newest = max(ledger.versions(), default=0)
    oldest = 1
    try:
        oldest = oldest_entry(storage)
    except VlpipeError as error:
        report.problems.append(Problem("entry", error.message, path=OLDEST_ENTRY))
    previous: Entry | None = None
    definitions: dict[tuple[str, str], FeatureDefinition] = {}
    parts: PastParts = {}
    for version in range(oldest, newest + 1):
        path = entry_path(version)
        try:
            entry = ledger.read(version)
        except VlpipeError as error:
            report.problems.append(Problem("entry", error.message, path=path))
            previous = None
            continue
        where = f"{storage.url}/{path}"
        if entry is None:
            message = f"{where} is missing, but entry {newest} exists"
            report.problems.append(Problem("gap", message, path=path))
        elif previous is not None and entry.prev != previous.id:
            message = f"{where} does not follow the entry before it"
            report.problems.append(Problem("entry", message, path=path))
        if entry is not None:
            report.num_entries += 1
            _note_parts(entry, definitions, parts)
        previous = entry
    return parts


def _note_parts(
    entry: Entry, definitions: dict[tuple[str, str], FeatureDefinition], parts: PastParts
) -> None:
    for op in entry.ops:
        key = (op.get("feature", ""), op.get("generation", ""))
        if op["op"] == "define":
            definitions[key] = defined(op)
        for value in named_parts(op):
            part = Part.from_json(value, *key, entry.version, entry.time)
            if key in definitions:  # not where the entry that defines it was collected
                parts[part.folder] = definitions[key], part


def _past_damage(storage: Storage, definition: FeatureDefinition, part: Part) -> Iterator[str]:
    try:
        part.check_files(storage)
    except StoreDamaged as error:
        yield error.message
        return
    verifier = PartVerifier(storage, definition, part)
    yield from verifier.metadata_problems()
    yield from verifier.small_array_problems({})
    yield from verifier.frame_problems()
    yield from verifier.past_problems({})


def _verify_checkpoints(storage: Storage, report: VerifyReport) -> None:
    for version in checkpoint_versions(storage):
        try:
            report.num_checkpoints += check_checkpoint(storage, version)
        except VlpipeError as error:
            path = checkpoint_folder(version)
            report.problems.append(Problem("checkpoint", error.message, path=path))


def _verify_node(
    storage: Storage, report: VerifyReport, name: str, expected: zarr_metadata.Json
) -> None:
    try:
        is_same = json.loads(storage.read(name)) == expected
    except (OSError, ValueError):
        is_same = False
    if not is_same:
        message = f"{storage.url}/{name} is not the metadata of its group"
        report.problems.append(Problem("metadata", message, path=name))


def _parts(
    state: State, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[GenerationState, Part, dict[str, VideoRow]]]:
    """Each part with its live videos, generation by generation; tells how many are done."""
    groups = [
        (generation, part, videos)
        for _, generation in sorted(state.generations.items())
        for part, videos in _by_part(generation)
    ]
    tell = progress or (lambda done, total: None)
    for done, group in enumerate(groups):
        tell(done, len(groups))
        yield group
    tell(len(groups), len(groups))


def _by_part(generation: GenerationState) -> Iterator[tuple[Part, dict[str, VideoRow]]]:
    groups: dict[Part, dict[str, VideoRow]] = {}
    for video_id, row in generation.rows():
        groups.setdefault(row.part, {})[video_id] = row
    yield from sorted(groups.items(), key=lambda item: item[0].id)


def _verify_part(
    storage: Storage,
    report: VerifyReport,
    generation: GenerationState,
    part: Part,
    videos: dict[str, VideoRow],
) -> None:
    report.num_parts += 1
    report.num_videos += len(videos)
    report.num_bytes += part.num_bytes
    feature, name = generation.key

    def note(area: Area, message: str, video_id: str | None = None) -> None:
        report.problems.append(Problem(area, message, feature, name, video_id, part.id))

    try:
        part.check_files(storage)
    except StoreDamaged as error:
        note("part", error.message)
        for video_id in videos:
            note("video", f"{error.message}: the rows of {video_id!r} are lost", video_id)
        return
    verifier = PartVerifier(storage, generation.definition, part)
    for message in verifier.metadata_problems():
        note("metadata", message)
    for message in verifier.small_array_problems(videos):
        note("metadata", message)
    if report.is_deep:
        for message in verifier.frame_problems():
            note("metadata", message)
        for video_id, message in verifier.video_problems(videos):
            note("video", message, video_id)
        for message in verifier.past_problems(videos):
            note("past", message)
