"""What imported features are: their names, shapes and provenance."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange.container import Source
from vlpipe.stores.exchange.fingerprints import Progress, file_sha256
from vlpipe.stores.exchange.keys import KeyTable
from vlpipe.stores.exchange.layout import Layout, Slot, check_slots
from vlpipe.stores.exchange.row_times import RowTimes
from vlpipe.stores.features import FeatureDefinition, canonical_json

_MAX_FILES_NAMED = 16  # more would make every definition long


@dataclass(frozen=True)
class ImportChoice:
    """What a user asked for; see `import_features`."""

    layout: Layout
    name: str
    features: Mapping[str, str]
    keys: KeyTable
    times: RowTimes
    dtypes: Mapping[str, str]
    row_shapes: Mapping[str, tuple[int, ...]]

    def with_row_shapes(self, slots: Sequence[Slot]) -> tuple[Slot, ...]:
        """The slots with the shapes that the user gave. UsageError for names of no slot."""
        for names in (self.features, self.row_shapes, self.times.rates, self.times.files):
            check_slots(self.layout, {name: None for name in names if name != "*"})
        check_slots(self.layout, {name: None for name in self.dtypes if name != "*"})
        return tuple(
            replace(slot, row_shape=self.row_shapes[slot.name])
            if slot.name in self.row_shapes
            else slot
            for slot in slots
        )


def define_features(
    source: Source, choice: ImportChoice, keys: Sequence[str], progress: Progress
) -> dict[str, FeatureDefinition]:
    """The definition of the feature of each slot that the files have.

    The layout of rows is that of the first video, in the order of the files, that can be read.
    Raises UsageError when no video of a slot can be read, or nothing says when its rows are.
    """
    definitions = dict(source.definitions)
    to_define = [slot for slot in source.slots if slot.name not in definitions]
    if not to_define:
        return definitions
    for slot in to_define:
        choice.times.check(slot)
    files = _fingerprints(source, progress)
    rows = _first_rows(source, to_define, keys)
    for slot in to_define:
        row_shape, dtype = rows[slot.name]
        definitions[slot.name] = FeatureDefinition(
            name=choice.features.get(slot.name) or "_".join(slot.features),
            dtype=choice.dtypes.get(slot.name) or choice.dtypes.get("*") or dtype,
            row_shape=row_shape,
            dimensions=_dimensions(slot, row_shape),
            provenance={
                "imported": {
                    "layout": choice.layout.name,
                    "slot": slot.name,
                    "places": list(slot.places),
                    "name": choice.name,
                    "files": files,
                    "keys": choice.keys.digest,
                    "times": choice.times.provenance(slot),
                }
            },
        )
    names = [definition.name for definition in definitions.values()]
    if len(set(names)) != len(names):
        raise UsageError(
            f"two slots are to be one feature: {', '.join(sorted(names))}",
            hint="--feature SLOT=FEATURE names them",
        )
    return definitions


def _fingerprints(source: Source, progress: Progress) -> Any:  # noqa: ANN401 - JSON
    """Name, bytes and SHA-256 of each file that holds many videos; of many files one digest."""
    total = sum(file.path.stat().st_size for file in source.files)
    done = 0
    files = []
    for file in source.files:
        before = done
        digest = file_sha256(file.path, lambda n, b=before: progress("hash", b + n, total))  # type: ignore[misc]
        size = file.path.stat().st_size
        done += size
        files.append({"name": file.name, "bytes": size, "sha256": digest})
    if len(files) <= _MAX_FILES_NAMED:
        return files
    digest = hashlib.sha256(canonical_json(files).encode()).hexdigest()
    return {"number": len(files), "bytes": total, "sha256_of_list": digest}


def _first_rows(
    source: Source, slots: Sequence[Slot], keys: Sequence[str]
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of a row of each slot."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    problems: dict[str, str] = {}
    for key in keys:
        if len(found) == len(slots):
            break
        sample = source.read(key)
        for slot in slots:
            if slot.name in found:
                continue
            if slot.name in sample.problems:
                problems.setdefault(slot.name, f"{key!r}: {sample.problems[slot.name]}")
            rows = sample.rows.get(slot.name)
            if rows is None or not rows.ndim:
                continue
            shape = rows.shape[1:] if rows.ndim > 1 or slot.row_shape == () else rows.shape
            if slot.accepts(shape) and 0 not in shape:
                found[slot.name] = (shape, rows.dtype.name)
            else:
                problems.setdefault(
                    slot.name,
                    f"{key!r}: rows of the shape {rows.shape}, expected {slot.shown_shape()}",
                )
    for slot in slots:
        if slot.name not in found:
            raise UsageError(
                f"no video of slot {slot.name!r} can be imported; the first, "
                f"{problems.get(slot.name, 'none was found')}"
            )
    return found


def _dimensions(slot: Slot, row_shape: tuple[int, ...]) -> tuple[str, ...]:
    if len(slot.dimensions) == len(row_shape):
        return slot.dimensions
    if len(row_shape) == 1:
        return ("channel",)
    return tuple(f"axis{n}" for n in range(1, len(row_shape) + 1))
