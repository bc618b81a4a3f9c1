"""What a layout of feature files is: a declaration, read by everything that exports and imports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange.container import Container

ANY = -1  # an axis of a row that may have any length


@dataclass(frozen=True, slots=True)
class Slot:
    """One feature as a layout keeps it.

    name: what the layout calls it.
    places: where it lies; `{key}` stands for the video. `FILE:/PATH` for HDF5, a file name for
        folders, a key for LMDB, an extension for tars. The first is written, all are read.
    features: names of features of the store. Exported, several are joined along the last axis, each
        row of the first with the rows of the others at its time; imported, their names are joined.
    row_shape: shape of one row, with ANY where the length is free; None: any shape.
    dimensions: names of the axes of a row, for imported features of that many axes.
    dtype: of exported files; None: as stored.
    rows_per_s: how many rows describe a second, where the layout fixes it.
    rows_as: the slot of which row t describes the same time as row t here.
    is_flat: rows are exported as vectors (C order), whatever their shape.
    pad_rows, pad_side: number of rows of every video in padded arrays, and where zeros stand.
    surplus: which rows of a longer video a padded array has: the first, or evenly spaced ones.
    """

    name: str
    places: tuple[str, ...]
    features: tuple[str, ...]
    row_shape: tuple[int, ...] | None = None
    dimensions: tuple[str, ...] = ()
    dtype: str | None = "float32"
    rows_per_s: Fraction | None = None
    rows_as: str | None = None
    is_flat: bool = False
    pad_rows: int | None = None
    pad_side: Literal["left", "right"] = "right"
    surplus: Literal["first", "even"] = "first"

    def accepts(self, row_shape: Sequence[int]) -> bool:
        """Whether rows of this shape are what the layout keeps here."""
        if self.row_shape is None:
            return True
        return len(row_shape) == len(self.row_shape) and all(
            expected in (ANY, found)
            for expected, found in zip(self.row_shape, row_shape, strict=True)
        )

    def shown_shape(self) -> str:
        """`(T, 10, 2048)`, with `?` for what is free."""
        if self.row_shape is None:
            return "(T, ...)"
        axes = ["T", *("?" if size == ANY else str(size) for size in self.row_shape)]
        return f"({', '.join(axes)})"


@dataclass(frozen=True, slots=True)
class Layout:
    """How somebody's code keeps features in files.

    name: for `--layout`. description: one line. origin: whose code reads or writes it.
    slots: what it holds; empty when the user or the files say so.
    container: what kind of files they are.
    """

    name: str
    description: str
    origin: str
    container: Container
    slots: tuple[Slot, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether slots are named by the user (or found in the file) and not by the layout."""
        return not self.slots

    def with_places(self, places: Mapping[str, str]) -> tuple[Slot, ...]:
        """The slots with the places that a user gave; in an open layout these make the slots.

        Raises UsageError for a slot that the layout does not have, or a place that cannot be one.
        """
        twice = [place for place in places.values() if list(places.values()).count(place) > 1]
        if twice:
            raise UsageError(f"the place {twice[0]!r} was given to more than one slot")
        if self.is_open:
            for name, place in places.items():
                self.container.check_place(name, place)
            return tuple(
                Slot(name, (place,), (name,), dtype=None) for name, place in places.items()
            )
        check_slots(self, places)
        changed = []
        for slot in self.slots:
            if slot.name in places:
                self.container.check_place(slot.name, places[slot.name])
                slot = replace(slot, places=(places[slot.name],))
            changed.append(slot)
        return tuple(changed)


def check_slots(layout: Layout, names: Mapping[str, object]) -> None:
    """Raises UsageError for names that are no slots of a layout that fixes them."""
    known = [slot.name for slot in layout.slots]
    unknown = [name for name in names if name not in known]
    if unknown and not layout.is_open:
        raise UsageError(
            f"layout {layout.name!r} has no slot {', '.join(map(repr, unknown))}",
            hint=f"its slots are {', '.join(known)}",
        )
