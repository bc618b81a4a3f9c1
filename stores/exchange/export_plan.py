"""What an export will write, settled before the first byte: slots, videos, keys, shapes, checks."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange.container import ExportPlan, Facts, RowPlace
from vlpipe.stores.exchange.keys import KeyTable
from vlpipe.stores.exchange.layout import Layout, Slot, check_slots
from vlpipe.stores.exchange.row_times import rows_at
from vlpipe.stores.features import canonical_json
from vlpipe.stores.information import FeatureInfo
from vlpipe.stores.layout import format_utc
from vlpipe.stores.reader import FeatureReader
from vlpipe.stores.snapshot import Snapshot
from vlpipe.stores.stored_dtypes import BFLOAT16, read_dtype


@dataclass(frozen=True)
class ExportChoice:
    """What a user asked for; see `export_features`."""

    layout: Layout
    features: Mapping[str, str] | None
    places: Mapping[str, str]
    ids: Sequence[str] | None
    keys: KeyTable
    pad_rows: Mapping[str, int]
    is_linked: bool = False


@dataclass(frozen=True)
class PlannedExport:
    """The plan, and what will not be in the files. ids_of_keys: key -> video, in order."""

    plan: ExportPlan
    rows: "Mapping[str, FeatureRows]"
    ids_of_keys: Mapping[str, str]
    missing: Mapping[str, tuple[str, ...]]
    empty: Mapping[str, tuple[str, ...]]
    shortened: Mapping[str, tuple[str, ...]]
    unnamed: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]


class FeatureRows:
    """The rows that fill a slot: of one feature, or of several joined along the last axis, each row
    of the first with the rows of the others at the middle of its span; zeros where a video has no
    rows of another (a video without sound)."""

    def __init__(
        self, url: str, readers: Sequence[FeatureReader], videos: Sequence[Mapping[str, Any]]
    ) -> None:
        self._url = url
        self.first, *self._others = readers
        if self._others and any(len(reader.info.row_shape) != 1 for reader in readers):
            raise UsageError(
                f"{' and '.join(reader.name for reader in readers)} cannot be joined: rows must be "
                "vectors"
            )
        self.infos = [reader.info for reader in readers]
        key = (self.infos[0].name, self.infos[0].generation)
        self._videos = {
            row["video_id"]: row for row in videos if (row["feature"], row["generation"]) == key
        }

    @property
    def row_shape(self) -> tuple[int, ...]:
        if not self._others:
            return self.infos[0].row_shape
        return (sum(info.row_shape[0] for info in self.infos),)

    @property
    def dtype(self) -> str:
        """As which rows are exported; of bfloat16 float32, which holds its values exactly."""
        return str(np.result_type(*(read_dtype(info.dtype) for info in self.infos)))

    def num_rows(self, video_id: str) -> int | None:
        """Rows of a video, or None when it has none at all."""
        row = self._videos.get(video_id)
        return None if row is None else int(row["rows"])

    def video_ids(self) -> list[str]:
        return list(self._videos)

    def read(self, video_id: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """Rows [T, *row_shape] and spans [T, 2]; each is compared with its checksum."""
        rows, spans = self.first.read(video_id, with_spans=True, verify="always")
        if not self._others:
            return rows, spans
        joined = [rows]
        for reader, info in zip(self._others, self.infos[1:], strict=True):
            found = np.zeros((len(rows), *info.row_shape), read_dtype(info.dtype))
            if video_id in reader:
                others, other_spans = reader.read(video_id, with_spans=True, verify="always")
                if len(others):
                    found = others[rows_at(spans, other_spans)]
            joined.append(found)
        return np.concatenate(joined, axis=-1), spans  # [T, C + C2 + ...]

    def place(self, video_id: str) -> RowPlace:
        """Where rows lie; UsageError when they are joined, compressed, bfloat16 or not on this
        machine."""
        part, start, size, *_ = self.first.locate(video_id)
        is_readable = part.is_plain and part.is_folder and self.infos[0].dtype != BFLOAT16
        if self._others or not is_readable or "://" in self._url:
            raise UsageError(
                f"rows of {self.first.name} in {self._url} cannot be linked: they must be those of "
                "one feature, uncompressed, not bfloat16, in a folder on this machine",
                hint="leave out --link",
            )
        shape = part.rows_shape
        return RowPlace(
            path=Path(self._url) / part.rows_file,
            offset=part.base + start * shape.row_bytes,
            shape=(size, *part.row_shape),
            dtype=str(shape.dtype),
        )

    def facts(self, video_id: str) -> Facts:
        row = self._videos[video_id]
        source = row["source"]
        return Facts(
            source=source.hex() if isinstance(source, bytes) else source,
            seconds=row["seconds"],
            source_size=row["source_size"],
            source_mtime_ns=row["source_mtime_ns"],
            note=row["note"],
        )


def make_plan(store: Snapshot, choice: ExportChoice, folder: Path) -> PlannedExport:
    """What will be written. UsageError for features and shapes that the layout cannot hold."""
    slots, left_out = _choose_slots(store, choice)
    videos = store.videos().to_pylist()
    rows = {slot.name: _rows_of(store, slot, videos) for slot in slots}
    for slot in slots:
        _check_shape(choice.layout, slot, rows[slot.name])
    wanted = _wanted_ids(choice, rows)
    ids_of_keys, unnamed, problems = _name_videos(choice, wanted)
    if choice.layout.container.shares_rows:
        problems += _incomplete(slots, rows, ids_of_keys)
    else:
        problems += _uneven(slots, rows, ids_of_keys)
    bad = {video_id for video_id, _ in problems}
    ids_of_keys = {key: v for key, v in ids_of_keys.items() if v not in bad}
    num_rows: dict[str, dict[str, int]] = {slot.name: {} for slot in slots}
    missing: dict[str, list[str]] = {slot.name: [] for slot in slots}
    empty: dict[str, list[str]] = {slot.name: [] for slot in slots}
    for key, video_id in ids_of_keys.items():
        for name in num_rows:
            count = rows[name].num_rows(video_id)
            if count is None:
                missing[name].append(video_id)
            elif count == 0 and not choice.layout.container.holds_empty:
                empty[name].append(video_id)
            else:
                num_rows[name][key] = count
    shapes = {s.name: _exported_shape(s, rows[s.name].row_shape) for s in slots}
    dtypes = {
        s.name: rows[s.name].dtype if choice.is_linked else s.dtype or rows[s.name].dtype
        for s in slots
    }
    infos = {s.name: rows[s.name].infos[0] for s in slots}
    failed = _failures(store, list(infos.values()))
    plan = ExportPlan(
        folder=folder,
        layout=choice.layout.name,
        identity=_identity(store, choice, slots, rows, ids_of_keys, failed),
        slots=slots,
        infos=infos,
        row_shapes=shapes,
        dtypes=dtypes,
        num_rows=num_rows,
        store={"version": store.version, "failed": failed},
    )
    return PlannedExport(
        plan=plan,
        rows=rows,
        ids_of_keys=ids_of_keys,
        missing={name: tuple(ids) for name, ids in missing.items() if ids},
        empty={name: tuple(ids) for name, ids in empty.items() if ids},
        shortened=_shortened(slots, num_rows, ids_of_keys),
        unnamed=tuple(unnamed),
        problems=tuple(problems),
        left_out=left_out,
    )


def _choose_slots(
    store: Snapshot, choice: ExportChoice
) -> tuple[tuple[Slot, ...], tuple[str, ...]]:
    layout, asked = choice.layout, choice.features or {}
    if layout.is_open and not layout.container.has_places:
        if choice.places:
            layout.with_places(choice.places)
        names = list(asked.values()) or list(store.features)
        slots = tuple(Slot(name, (), (name,), dtype=None) for name in names)
    else:
        check_slots(layout, choice.pad_rows)
        slots = layout.with_places(choice.places)
        if layout.is_open:
            _require_places(layout, slots, asked)
        else:
            check_slots(layout, asked)
    chosen, left_out = [], []
    for slot in slots:
        if slot.name in asked:
            slot = replace(slot, features=tuple(asked[slot.name].split("+")))
            for name in slot.features:
                store[name]  # FeatureMissing names those that there are
        elif not all(name in store for name in slot.features):
            left_out.append(f"{slot.name} ({' + '.join(slot.features) or 'no default'})")
            continue
        if slot.name in choice.pad_rows:
            slot = replace(slot, pad_rows=choice.pad_rows[slot.name])
        chosen.append(slot)
    if not chosen:
        raise UsageError(
            f"{store.url} has no feature that layout {layout.name!r} keeps"
            + (f": {', '.join(left_out)}" if left_out else ""),
            hint="--feature SLOT=FEATURE says which; `vlpipe store ls` lists those of the store",
        )
    return tuple(chosen), tuple(left_out)


def _require_places(layout: Layout, slots: Sequence[Slot], asked: Mapping[str, str]) -> None:
    known = {slot.name for slot in slots}
    if not slots or not set(asked) <= known:
        raise UsageError(
            f"layout {layout.name!r} needs a place for each feature",
            hint="--place NAME=PLACE; `vlpipe store layouts` shows places of this layout",
        )


def _rows_of(store: Snapshot, slot: Slot, videos: Sequence[Mapping[str, Any]]) -> FeatureRows:
    return FeatureRows(store.url, [store[name] for name in slot.features], videos)


def _exported_shape(slot: Slot, row_shape: tuple[int, ...]) -> tuple[int, ...]:
    return (int(np.prod(row_shape)),) if slot.is_flat else row_shape


def _check_shape(layout: Layout, slot: Slot, rows: FeatureRows) -> None:
    shape = _exported_shape(slot, rows.row_shape)
    if not slot.accepts(shape):
        names = " + ".join(info.name for info in rows.infos)
        raise UsageError(
            f"slot {slot.name!r} of layout {layout.name!r} keeps {slot.shown_shape()}, but rows of "
            f"{names} have the shape {rows.row_shape}",
            hint=f"--feature {slot.name}=FEATURE names another one",
        )


def _wanted_ids(choice: ExportChoice, rows: Mapping[str, FeatureRows]) -> list[str]:
    known = {video_id for source in rows.values() for video_id in source.video_ids()}
    if choice.ids is None:
        return sorted(known)
    unknown = [video_id for video_id in choice.ids if video_id not in known]
    if unknown:
        raise UsageError(
            f"no rows of video {', '.join(map(repr, unknown[:5]))}"
            + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""),
        )
    return list(dict.fromkeys(choice.ids))


def _name_videos(
    choice: ExportChoice, wanted: Sequence[str]
) -> tuple[dict[str, str], list[str], list[tuple[str, str]]]:
    """key -> video; videos without a key; videos whose key cannot be written."""
    named: dict[str, str] = {}
    unnamed, problems = [], []
    for video_id in wanted:
        key = choice.keys.key(video_id)
        if key is None:
            unnamed.append(video_id)
            continue
        problem = choice.layout.container.check_key(key)
        if problem is None:
            named[key] = video_id
        else:
            problems.append((video_id, problem))
    if wanted and not named and not problems:
        raise UsageError(
            f"the table of keys has none of the {len(wanted)} videos, the first is {wanted[0]!r}",
            hint="--id-column and --key-column name its columns",
        )
    return named, unnamed, problems


def _uneven(
    slots: Sequence[Slot], rows: Mapping[str, FeatureRows], ids_of_keys: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Videos whose rows cannot describe the same times, because their numbers differ."""
    problems = []
    for video_id in ids_of_keys.values():
        for slot in slots:
            if slot.rows_as not in rows:
                continue
            own = rows[slot.name].num_rows(video_id)
            lead = rows[slot.rows_as or ""].num_rows(video_id)
            if own is not None and lead is not None and own != lead:
                problems.append(
                    (video_id, f"{slot.name} has {own} rows and {slot.rows_as} {lead}: must agree")
                )
                break
    return problems


def _incomplete(
    slots: Sequence[Slot], rows: Mapping[str, FeatureRows], ids_of_keys: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Videos without equally many rows of all slots, where these lie beside each other."""
    problems = []
    for video_id in ids_of_keys.values():
        numbers = {slot.name: rows[slot.name].num_rows(video_id) for slot in slots}
        if len(set(numbers.values())) > 1:
            found = ", ".join(f"{n or 0} of {name}" for name, n in numbers.items())
            problems.append((video_id, f"rows of all slots must be as many: {found}"))
    return problems


def _shortened(
    slots: Sequence[Slot],
    num_rows: Mapping[str, Mapping[str, int]],
    ids_of_keys: Mapping[str, str],
) -> dict[str, tuple[str, ...]]:
    """By slot, videos with more rows than a padded array has room for."""
    found = {
        slot.name: tuple(
            ids_of_keys[key]
            for key, count in num_rows[slot.name].items()
            if slot.pad_rows is not None and count > slot.pad_rows
        )
        for slot in slots
    }
    return {name: ids for name, ids in found.items() if ids}


def _identity(
    store: Snapshot,
    choice: ExportChoice,
    slots: Sequence[Slot],
    rows: Mapping[str, FeatureRows],
    ids_of_keys: Mapping[str, str],
    failed: Sequence[Mapping[str, Any]],
) -> str:
    """SHA-256 of all that the bytes of the files depend on."""
    facts = {
        "layout": choice.layout.name,
        "slots": [
            [slot.name, list(slot.places), slot.dtype, slot.pad_rows, slot.pad_side, slot.surplus]
            + [
                [info.name, info.generation, store.digest(f"{info.name}@{info.generation}")]
                for info in rows[slot.name].infos
            ]
            for slot in slots
        ],
        "videos": list(ids_of_keys.items()),
        # Linked files depend on where rows lie, which compaction changes.
        "linked": [store.url, store.version] if choice.is_linked else None,
        # Only our own file holds the quarantine.
        "failed": [] if choice.layout.container.has_places else failed,
    }
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()


def _failures(store: Snapshot, infos: Sequence[FeatureInfo]) -> list[dict[str, Any]]:
    keys = {(info.name, info.generation) for info in infos}
    return [
        row | {"time": format_utc(row["time"])}
        for row in store.failed().to_pylist()
        if (row["feature"], row["generation"]) in keys
    ]
