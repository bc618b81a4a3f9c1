"""The inputs of a model that come from a store, and whether a feature fits one."""

from collections.abc import Mapping
from dataclasses import dataclass

from vlpipe.stores.errors import UsageError


@dataclass(frozen=True, slots=True)
class FeatureSlot:
    """One input of a model that comes from a store.

    feature: the feature it takes by default; `--set features.SLOT=NAME` takes another, with
        `--set features.SLOT=none` an optional one is left out.
    row_shapes: what a row may look like, its axes with blanks between: `17 C` is 17 rows of C
        channels, the empty text one number. A capital letter is the same number in all slots of
        the model, a word any number. Of two shapes with as many axes the first counts; none at
        all takes every row.
    """

    feature: str
    description: str
    is_optional: bool = False
    row_shapes: tuple[str, ...] = ()

    @property
    def rows_in_words(self) -> str:
        """`C or C x h x w`; empty if every row will do."""
        return " or ".join(" x ".join(shape.split()) or "one number" for shape in self.row_shapes)


def require_fitting_rows(
    model: str,
    slots: Mapping[str, FeatureSlot],
    features: Mapping[str, str],
    row_shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """UsageError for the first feature whose rows its slot cannot take.

    features, row_shapes: of the slots that are filled, without the time axis.
    """
    known: dict[str, tuple[int, str]] = {}  # a shared axis -> its length, and the slot that says so
    for slot, shape in row_shapes.items():
        wanted = slots[slot]
        axes = next((a for a in map(str.split, wanted.row_shapes) if len(a) == len(shape)), None)
        fits = axes is not None or not wanted.row_shapes
        why = ""
        for axis, length in zip(axes or (), shape, strict=False):
            if axis.isupper():
                expected, origin = known.setdefault(axis, (length, slot))
                why = f", where {axis} is {expected} as in {origin}" if length != expected else why
                fits = fits and length == expected
            elif axis.isdecimal():
                fits = fits and length == int(axis)
        if not fits:
            found = " x ".join(map(str, shape)) or "one number"
            raise UsageError(
                f"the rows of {features[slot]} are {found}, and the slot {slot!r} of model "
                f"{model!r} takes {wanted.rows_in_words}{why}: {wanted.description}",
                hint=f"--set features.{slot}=NAME takes another feature; what the paper reads: "
                f"vlpipe models show {model}",
            )
