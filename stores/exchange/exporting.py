"""From a store to files in somebody's layout: one pass, a video in memory at a time."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import RowsRefused, UsageError
from vlpipe.stores.exchange.container import Container, ExportPlan, RowPlace, Target
from vlpipe.stores.exchange.export_plan import ExportChoice, PlannedExport, make_plan
from vlpipe.stores.exchange.export_record import ExportRecord, only_export_in
from vlpipe.stores.exchange.fingerprints import Progress, no_progress
from vlpipe.stores.exchange.keys import KeyTable
from vlpipe.stores.exchange.layout import Slot
from vlpipe.stores.exchange.registry import find_layout
from vlpipe.stores.snapshot import Snapshot


@dataclass(frozen=True)
class ExportReport:
    """What an export did. Videos are named by their ids in the store.

    written: number of videos by slot; kept: of these, how many an earlier export had written.
    missing: by slot, videos that have no rows of its feature; they are in no file of the slot.
    empty: by slot, videos with zero rows, which the layout cannot hold.
    shortened: by slot, videos with more rows than a padded array has room for.
    unnamed: videos that the table of keys does not have. problems: (video, what is wrong), of
        videos that were left out of all files. left_out: slots without a feature in the store.
    is_repeat: all files were there already.
    """

    layout: str
    folder: str
    files: tuple[str, ...]
    written: Mapping[str, int]
    kept: int
    missing: Mapping[str, tuple[str, ...]]
    empty: Mapping[str, tuple[str, ...]]
    shortened: Mapping[str, tuple[str, ...]]
    unnamed: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]
    num_bytes: int
    seconds: float
    is_repeat: bool = False


@dataclass
class _Outcome:
    written: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    num_bytes: int = 0


def export_features(
    store: Snapshot,
    layout: str,
    folder: str | Path,
    *,
    features: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
    ids: Sequence[str] | None = None,
    keys: KeyTable | None = None,
    pad_rows: Mapping[str, int] | None = None,
    link: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> ExportReport:
    """Writes features of a store as files in a layout (see `list_layouts`).

    features: slot -> feature of the store, or several joined by "+"; None: those that the layout
        says, as far as the store has them. In an open layout the names of features themselves.
    places: slot -> place, where the files are to be named otherwise. pad_rows: slot -> rows, for
        padded layouts.
    ids: which videos; None: all that have any of the features.
    keys: names of videos in the files. overwrite: replace files of another export.
    link: HDF5 files that point into the files of the store and hold no rows themselves. They are
        as stored (dtype), small and quickly made, and good while those files are: `store.tag` keeps
        them, and neither the store nor the files may move.

    Files get their names when they are whole. The same call again finishes what was interrupted and
    leaves alone what is done; the record `vlpipe-export.LAYOUT.json` tells the two apart.

    Raises UsageError for what cannot be exported, StoreDamaged for rows that do not match their
    checksum, StoreUnwritable when the disk does not take the files.
    """
    started = time.monotonic()
    found = find_layout(layout)
    choice = ExportChoice(
        layout=found,
        features=features,
        places=places or {},
        ids=ids,
        keys=keys or KeyTable(),
        pad_rows=pad_rows or {},
        is_linked=link,
    )
    made = make_plan(store, choice, Path(folder))
    plan = made.plan
    outcome = _Outcome()
    with only_export_in(plan.folder):
        record = ExportRecord(plan)
        is_repeat = record.is_complete()
        if is_repeat:
            outcome.written = {slot: len(rows) for slot, rows in plan.num_rows.items()}
            outcome.kept = sum(outcome.written.values())
        else:
            if not record.is_begun():
                _make_way(found.container, plan, overwrite=overwrite)
            record.complete(_write_files(found.container, record, made, outcome, progress, link))
    return ExportReport(
        layout=layout,
        folder=str(folder),
        files=record.files(),
        written=outcome.written,
        kept=outcome.kept,
        missing=made.missing,
        empty=made.empty,
        shortened=made.shortened,
        unnamed=made.unnamed,
        problems=made.problems,
        left_out=made.left_out,
        num_bytes=outcome.num_bytes,
        seconds=time.monotonic() - started,
        is_repeat=is_repeat,
    )


def _write_files(
    container: Container,
    record: ExportRecord,
    made: PlannedExport,
    outcome: _Outcome,
    progress: Progress,
    is_linked: bool,
) -> list[Path]:
    target = container.create(made.plan)
    try:
        record.begin()
        _write(made, target, outcome, progress, is_linked=is_linked)
        return target.finish()
    except BaseException:
        target.abandon()
        raise


def _write(
    made: PlannedExport,
    target: Target,
    outcome: _Outcome,
    progress: Progress,
    *,
    is_linked: bool,
) -> None:
    plan = made.plan
    outcome.written = {slot.name: 0 for slot in plan.slots}
    for done, (key, video_id) in enumerate(made.ids_of_keys.items(), start=1):
        for slot in plan.slots:
            if key not in plan.num_rows[slot.name]:
                continue
            if target.has(key, slot.name):
                outcome.kept += 1
            else:
                source = made.rows[slot.name]
                if is_linked:
                    _link(target, key, slot, source.place(video_id))
                    outcome.written[slot.name] += 1
                    continue
                rows, spans = source.read(video_id)
                rows = _as_exported(video_id, slot, rows, plan)
                target.add(key, slot.name, rows, spans, source.facts(video_id))
                outcome.num_bytes += rows.nbytes
            outcome.written[slot.name] += 1
        progress("export", done, len(made.ids_of_keys))


def _link(target: Target, key: str, slot: Slot, place: RowPlace) -> None:
    if slot.is_flat:
        flat = (place.shape[0], int(np.prod(place.shape[1:])))
        place = replace(place, shape=flat)
    target.link(key, slot.name, place)


def _as_exported(
    video_id: str, slot: Slot, rows: npt.NDArray[Any], plan: ExportPlan
) -> npt.NDArray[Any]:
    """Rows of the shape and dtype of the files; RowsRefused where values do not survive it."""
    if slot.is_flat:
        rows = rows.reshape(len(rows), -1)
    if rows.shape[1:] != plan.row_shapes[slot.name]:
        raise RowsRefused(
            f"video {video_id!r}, slot {slot.name!r}: one row has the shape {rows.shape[1:]}, "
            f"expected {plan.row_shapes[slot.name]}"
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(rows, plan.dtypes[slot.name])
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RowsRefused(
            f"video {video_id!r}, slot {slot.name!r}: values do not fit into {values.dtype}"
        )
    return values


def _make_way(container: Container, plan: ExportPlan, *, overwrite: bool) -> None:
    """Refuses to replace files of another export, unless that was asked for."""
    existing = container.existing(plan)
    if existing and not overwrite:
        raise UsageError(
            f"{existing[0]} is there already, and not from an export of the same features",
            hint="choose another folder, or --overwrite",
        )
    if container.has_file_per_video:
        for path in existing:  # else they would be taken for finished files of this export
            path.unlink(missing_ok=True)
