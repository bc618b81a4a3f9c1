"""When each row of foreign features is: from a rate, or from given spans; and rows of one feature
for the times of another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange.fingerprints import file_sha256
from vlpipe.stores.exchange.layout import Slot
from vlpipe.stores.foreign_arrays import ForeignArrayError, NpzArchive
from vlpipe.stores.foreign_hdf5 import open_foreign_hdf5, read_dataset


def parse_rate(text: str) -> Fraction:
    """Rows a second, of `1.5` or `25/64`; UsageError for anything else."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise UsageError(f"{text!r} is no rate", hint="rows a second, for instance 1.5 or 25/64")
    return rate


@dataclass(frozen=True)
class RowTimes:
    """How rows of each slot are given times.

    rates: rows a second by slot; "*" stands for all others. Row t is then [t / r, (t + 1) / r).
    files: by slot or "*": an `.npz` with an array [T, 2] of seconds for each key, or an HDF5 file
        with a dataset `/KEY`. A file wins over a rate, and both over what the layout says.
    """

    rates: Mapping[str, Fraction] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    def rate(self, slot: Slot) -> Fraction | None:
        return self.rates.get(slot.name, self.rates.get("*", slot.rows_per_s))

    def file(self, slot: Slot) -> Path | None:
        return self.files.get(slot.name, self.files.get("*"))

    def check(self, slot: Slot) -> None:
        """Raises UsageError when nothing says when rows are."""
        if self.file(slot) is None and self.rate(slot) is None:
            raise UsageError(
                f"nothing says which seconds the rows of {slot.name!r} describe",
                hint=f"--rate {slot.name}=ROWS_PER_SECOND or --spans {slot.name}=FILE.npz",
            )

    def provenance(self, slot: Slot) -> dict[str, Any]:
        """What the times come from, as JSON."""
        path = self.file(slot)
        if path is not None:
            return {"spans": {"name": path.name, "sha256": file_sha256(path)}}
        return {"rows_per_s": str(self.rate(slot))}

    def spans(
        self, slot: Slot, key: str, num_rows: int, files: "SpanFiles"
    ) -> npt.NDArray[np.float64]:
        """[T, 2] float64 seconds; ForeignArrayError when the file has none that fit."""
        path = self.file(slot)
        if path is None:
            return spans_at(self.rate(slot) or Fraction(1), num_rows)
        try:
            spans = files.read(path, key)
        except (ForeignArrayError, OSError) as error:
            raise ForeignArrayError(f"no spans in {path}: {error}") from None
        if spans.shape != (num_rows, 2):
            raise ForeignArrayError(
                f"spans in {path} have the shape {spans.shape}, expected ({num_rows}, 2)"
            )
        return np.ascontiguousarray(spans, np.float64)


class SpanFiles:
    """Files of spans that stay open during an import: the list of their keys would otherwise be
    read again for each video. Nobody else has them, so they are closed when this goes."""

    def __init__(self) -> None:
        self._opened: dict[Path, Callable[[str], npt.NDArray[Any]]] = {}

    def read(self, path: Path, key: str) -> npt.NDArray[Any]:
        """The array of a key; ForeignArrayError, UsageError or OSError when there is none."""
        if path not in self._opened:
            self._opened[path] = _open_spans(path)
        return self._opened[path](key)


def _open_spans(path: Path) -> Callable[[str], npt.NDArray[Any]]:
    if path.suffix == ".npz":
        return NpzArchive(path).read
    file = open_foreign_hdf5(path)
    return lambda key: read_dataset(file, f"/{key}")


def spans_at(rate: Fraction, num_rows: int) -> npt.NDArray[np.float64]:
    """[T, 2] seconds of rows that follow each other `rate` times a second, without drift."""
    edges = np.arange(num_rows + 1, dtype=np.float64) * rate.denominator / rate.numerator
    return np.stack([edges[:-1], edges[1:]], axis=1)


def rows_at(
    spans: npt.NDArray[np.float64], other_spans: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """For each span [T, 2] the number of the row of the other feature [U, 2] that covers its
    middle: the last that begins before it; the first where none does. U must not be 0."""
    middles = spans.mean(axis=1)
    found = np.searchsorted(other_spans[:, 0], middles, side="right") - 1
    numbers: npt.NDArray[np.int64] = np.maximum(found, 0)
    return numbers
