"""From files in somebody's layout into a store: in batches, damaged videos quarantined."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange.container import Sample, Source
from vlpipe.stores.exchange.fingerprints import Progress, no_progress
from vlpipe.stores.exchange.import_definitions import ImportChoice, define_features
from vlpipe.stores.exchange.keys import KeyTable
from vlpipe.stores.exchange.layout import Slot
from vlpipe.stores.exchange.registry import find_layout
from vlpipe.stores.exchange.row_times import RowTimes, SpanFiles
from vlpipe.stores.feature_store import FeatureStore
from vlpipe.stores.features import FeatureDefinition, Features
from vlpipe.stores.foreign_arrays import ForeignArrayError
from vlpipe.stores.layout import check_video_id
from vlpipe.stores.stored_dtypes import BFLOAT16, FEATURE_DTYPES
from vlpipe.stores.writer import FeatureWriter

BATCH_VIDEOS = 1024
BATCH_BYTES = 256 << 20


@dataclass(frozen=True)
class ImportReport:
    """What an import did. One video of one feature counts one.

    generations: slot -> `feature@generation`. inactive: those of them that `store[feature]` does
        not read, because another generation does.
    added, kept: stored now, and before. deleted: not stored, because somebody deleted the video.
    failed: (video, slot, what is wrong), quarantined. changed: (video, slot) that are stored, but
        whose files are other ones now; they are stored anew when that is asked for.
    absent: slots of the layout of which the files have nothing, with the place where each would be.
    unnamed: keys that the table of keys does not have. left_out: what was found and not read.
    """

    layout: str
    version: int
    generations: Mapping[str, str]
    inactive: tuple[str, ...]
    videos: int
    added: int
    kept: int
    deleted: int
    failed: tuple[tuple[str, str, str], ...]
    changed: tuple[tuple[str, str], ...]
    absent: tuple[str, ...]
    unnamed: tuple[str, ...]
    left_out: tuple[str, ...]
    num_bytes: int
    seconds: float


@dataclass
class _Outcome:
    added: int = 0
    kept: int = 0
    deleted: int = 0
    num_bytes: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    changed: list[tuple[str, str]] = field(default_factory=list)


def import_features(
    store: FeatureStore,
    layout: str,
    path: str | Path,
    *,
    name: str | None = None,
    features: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
    keys: KeyTable | None = None,
    times: RowTimes | None = None,
    dtypes: Mapping[str, str] | None = None,
    row_shapes: Mapping[str, tuple[int, ...]] | None = None,
    raw_dtype: str | None = None,
    replace: bool = False,
    restore: bool = False,
    activate: bool = False,
    progress: Progress = no_progress,
) -> ImportReport:
    """Reads files in a layout (see `list_layouts`) into a store.

    path: the file, or the folder of the files. name: what the user calls them; in the provenance.
    features: slot -> name of the feature in the store. places: slot -> place, where files are named
        otherwise; in an open layout these make the slots.
    times: when rows are, where the layout does not say.
    dtypes: slot -> stored dtype ("*" for all), where it is not to be that of the files.
    row_shapes: slot -> shape of a row, for raw numbers and for a fixed number of boxes.
    raw_dtype: of LMDB values without a header.
    replace: store again the videos whose files changed. restore: store videos that were deleted,
        too. activate: when all is read, make these the generations that `store[feature]` reads.

    The provenance says `imported`: layout, name, SHA-256 of the files, places, keys and times.
    Where each video has files of its own, their digests stand with the videos instead, so that a
    folder may grow. A batch of videos is one commit, and the same call again carries on after it.

    Raises UsageError when the files are not of the layout. A video that cannot be read, or has
    rows that may not be stored, is quarantined with its reason, and the others go on.
    """
    started = time.monotonic()
    for dtype in (dtypes or {}).values():
        _check_dtype("dtype", dtype, FEATURE_DTYPES)
    if raw_dtype is not None:
        numbers = [name for name in FEATURE_DTYPES if name != BFLOAT16]
        _check_dtype("raw_dtype", raw_dtype, numbers)
    found = find_layout(layout)
    choice = ImportChoice(
        layout=found,
        name=name or Path(path).name,
        features=features or {},
        keys=keys or KeyTable(),
        times=times or RowTimes(),
        dtypes=dtypes or {},
        row_shapes=row_shapes or {},
    )
    slots = choice.with_row_shapes(found.with_places(places or {}))
    if found.is_open and found.container.has_places and not slots:
        raise UsageError(
            f"layout {layout!r} needs a place for each feature",
            hint="--place NAME=PLACE; `vlpipe store layouts` shows places of this layout",
        )
    with found.container.open(Path(path), slots, raw_dtype) as source:
        ids_of_keys, unnamed, bad = _videos(source, choice.keys)
        definitions = define_features(source, choice, list(ids_of_keys), progress)
        outcome = _Outcome()
        outcome.failed += bad
        run = _Import(store, source, choice.times, definitions, outcome)
        run.all(ids_of_keys, progress, is_to_replace=replace, is_to_restore=restore)
        left_out = source.left_out
    if activate:  # at the end: until then readers go on with what they have
        for definition in definitions.values():
            store.activate(definition.name, definition.generation, allow_missing=True)
    generations = {slot: f"{d.name}@{d.generation}" for slot, d in definitions.items()}
    active = {f"{info.name}@{info.generation}" for info in store.features.values()}
    return ImportReport(
        layout=layout,
        version=store.version,
        generations=generations,
        inactive=tuple(g for g in generations.values() if g not in active),
        videos=len(ids_of_keys),
        added=outcome.added,
        kept=outcome.kept,
        deleted=outcome.deleted,
        failed=tuple(outcome.failed),
        changed=tuple(outcome.changed),
        absent=tuple(f"{s.name} ({s.places[0]})" for s in slots if s.name not in definitions),
        unnamed=tuple(unnamed),
        left_out=left_out,
        num_bytes=outcome.num_bytes,
        seconds=time.monotonic() - started,
    )


class _Import:
    """One import: what is read, under which definitions, and what has come of it so far."""

    def __init__(
        self,
        store: FeatureStore,
        source: Source,
        times: RowTimes,
        definitions: Mapping[str, FeatureDefinition],
        outcome: _Outcome,
    ) -> None:
        self._store = store
        self._source = source
        self._times = times
        self._span_files = SpanFiles()
        self._definitions = definitions
        self._slots = {slot.name: slot for slot in source.slots if slot.name in definitions}
        self._outcome = outcome

    def all(
        self,
        ids_of_keys: Mapping[str, str],
        progress: Progress,
        *,
        is_to_replace: bool,
        is_to_restore: bool,
    ) -> None:
        """Imports what is not stored yet, a commit for each batch."""
        stored = self._stored(ids_of_keys, is_to_replace=is_to_replace)
        todo = []
        for key, video_id in ids_of_keys.items():
            wanted = [slot for slot in self._slots if video_id not in stored[slot]]
            self._outcome.kept += len(self._slots) - len(wanted)
            if wanted:
                todo.append((key, video_id, wanted))
        done = len(ids_of_keys) - len(todo)
        progress("import", done, len(ids_of_keys))
        remaining = iter(todo)
        for first in remaining:
            with self._store.writer(
                list(self._definitions.values()),
                mode="replace" if is_to_replace else "keep",
                restore=is_to_restore,
                run="import",
            ) as writer:
                for key, video_id, wanted in _batch(first, remaining, self._outcome):
                    self._one(writer, key, video_id, wanted)
                    done += 1
                    progress("import", done, len(ids_of_keys))
            self._outcome.added += writer.receipt.added
            self._outcome.kept += writer.receipt.kept
            self._outcome.deleted += writer.receipt.deleted

    def _one(self, writer: FeatureWriter, key: str, video_id: str, wanted: Sequence[str]) -> None:
        sample = self._source.read(key)
        _check_row_numbers(sample, self._slots)
        for slot in wanted:
            problem = sample.problems.get(slot)
            if problem is None and slot in sample.rows:
                problem = self._add(writer, video_id, sample, slot)
            if problem is not None:
                name = self._definitions[slot].name
                writer.fail(video_id, [name], "import", problem)
                self._outcome.failed.append((video_id, slot, problem))

    def _add(self, writer: FeatureWriter, video_id: str, sample: Sample, slot: str) -> str | None:
        """Why the rows may not be stored, or None when they are added."""
        rows = sample.rows[slot]
        definition = self._definitions[slot]
        facts = sample.facts.get(slot) or self._source.facts(sample.key, slot)
        try:
            rows = _narrowed(rows, definition)
            spans = sample.spans.get(slot)
            if spans is None:
                spans = self._times.spans(
                    self._slots[slot], sample.key, len(rows), self._span_files
                )
            writer.add(
                video_id,
                {definition.name: Features(rows, spans)},
                source=facts.source,
                seconds=facts.seconds,
                source_size=facts.source_size,
                source_mtime_ns=facts.source_mtime_ns,
                note=facts.note,
            )
        except ValueError as error:  # also RowsRefused and ForeignArrayError
            return str(error)
        self._outcome.num_bytes += rows.nbytes
        return None

    def _stored(
        self, ids_of_keys: Mapping[str, str], *, is_to_replace: bool
    ) -> dict[str, set[str]]:
        """By slot, videos that are stored and need nothing."""
        stored: dict[str, set[str]] = {}
        for slot, definition in self._definitions.items():
            statuses = self._store.status(definition, ids_of_keys.values())
            stored[slot] = {v for v, status in statuses.items() if status.standing == "stored"}
            for key, video_id in ids_of_keys.items():
                now, before = self._source.facts(key, slot), statuses[video_id]
                if now.source_size is None or video_id not in stored[slot]:
                    continue
                if (now.source_size, now.source_mtime_ns) != (
                    before.source_size,
                    before.source_mtime_ns,
                ):
                    self._outcome.changed.append((video_id, slot))
                    if is_to_replace:
                        stored[slot].discard(video_id)
        return stored


def _batch(
    first: tuple[str, str, list[str]],
    remaining: Iterator[tuple[str, str, list[str]]],
    outcome: _Outcome,
) -> Iterator[tuple[str, str, list[str]]]:
    """The first and those that follow it, until a commit is due."""
    bytes_before = outcome.num_bytes
    yield first
    for _ in range(BATCH_VIDEOS - 1):
        if outcome.num_bytes - bytes_before >= BATCH_BYTES:
            return
        following = next(remaining, None)
        if following is None:
            return
        yield following


def _videos(
    source: Source, keys: KeyTable
) -> tuple[dict[str, str], list[str], list[tuple[str, str, str]]]:
    """key -> video; keys that the table does not have; keys that no video can be named by."""
    named: dict[str, str] = {}
    unnamed: list[str] = []
    bad: list[tuple[str, str, str]] = []
    found = source.keys()
    if not found:
        raise UsageError(
            "no videos were found in these files"
            + (f"; left out: {'; '.join(source.left_out[:3])}" if source.left_out else ""),
            hint="--place says where they are",
        )
    for key in found:
        video_id = keys.video_id(key)
        if video_id is None:
            unnamed.append(key)
            continue
        try:
            named[key] = check_video_id(video_id)
        except ValueError as error:
            bad.append((ascii(video_id), "*", str(error)))
    if not named:
        raise UsageError(
            f"no video has the key of any of {len(found)} in the files, the first is {found[0]!r}",
            hint="--keys, --key-prefix, --id-column and --key-column say how videos are named",
        )
    return named, unnamed, bad


def _check_dtype(option: str, dtype: str, known: Sequence[str]) -> None:
    if dtype not in known:
        raise UsageError(f"{option} {dtype!r} is unknown, expected one of {', '.join(known)}")


def _check_row_numbers(sample: Sample, slots: Mapping[str, Slot]) -> None:
    """Rows that are to describe the same times must be as many."""
    for name, slot in slots.items():
        rows, lead = sample.rows.get(name), sample.rows.get(slot.rows_as or "")
        if rows is None or lead is None or name in sample.problems:
            continue
        if not (rows.ndim and lead.ndim):
            continue  # single numbers are refused one by one
        if len(rows) != len(lead):
            sample.problems[name] = (
                f"{name} has {len(rows)} rows and {slot.rows_as} {len(lead)}: must agree"
            )


def _narrowed(rows: npt.NDArray[Any], definition: FeatureDefinition) -> npt.NDArray[Any]:
    """Rows [T, ...]; a one-axis array of a feature of vectors is one row."""
    if rows.ndim == 1 and rows.shape == definition.row_shape:
        return rows[None]
    if rows.ndim == 0:
        raise ForeignArrayError("a single number, expected rows")
    return np.asarray(rows)
