"""Which rows of a video are asked for: a slice or row numbers, as runs of rows that follow each
other, so that each run is one read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

RowSelection = slice | Sequence[int] | npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]

_FEW = 64

Run = tuple[int, int, int]  # first row, number of rows, place in the result


def selected_runs(selection: RowSelection, size: int) -> tuple[list[Run], int]:
    """The runs, in the order asked for, and the number of rows in all.

    Raises what `row_numbers` raises.
    """
    if isinstance(selection, slice):
        first, stop, step = selection.indices(size)
        if step == 1:
            count = max(stop - first, 0)
            return ([(first, count, 0)] if count else []), count
        numbers = list(range(first, stop, step))
    else:
        numbers = _few_numbers(selection, size) or row_numbers(selection, size).tolist()
    runs: list[Run] = []
    expected = -1
    for place, number in enumerate(numbers):
        if number == expected:
            first, count, begin = runs[-1]
            runs[-1] = first, count + 1, begin
        else:
            runs.append((number, 1, place))
        expected = number + 1
    return runs, len(numbers)


def _few_numbers(selection: Sequence[int] | npt.NDArray[Any], size: int) -> list[int] | None:
    """What `row_numbers` gives for a short list of plain numbers, in a quarter of the time; None
    for all else."""
    if type(selection) is not list or not 0 < len(selection) <= _FEW:
        return None
    if set(map(type, selection)) != {int} or min(selection) < -size or max(selection) >= size:
        return None
    return [number if number >= 0 else number + size for number in selection]


def row_numbers(selection: Sequence[int] | npt.NDArray[Any], size: int) -> npt.NDArray[np.int64]:
    """[N] numbers from 0 on of the rows that are asked for by number or by a mask [size] of bool.

    Negative numbers count from the end. IndexError for a row that a video of `size` rows lacks and
    for a mask of another length, TypeError for what is neither.
    """
    asked = np.asarray(selection)
    if asked.ndim != 1 or (asked.size and asked.dtype.kind not in "iub"):
        raise TypeError(
            f"rows are {asked.dtype} of shape {asked.shape}, expected a slice, a list of row "
            "numbers or a mask"
        )
    if asked.dtype.kind == "b":
        if len(asked) != size:
            raise IndexError(f"the mask has {len(asked)} values, but there are {size} rows")
        return np.flatnonzero(asked)
    numbers = asked.astype(np.int64)
    outside = numbers[(numbers < -size) | (numbers >= size)]
    if len(outside):
        raise IndexError(f"row {outside[0]} was asked for, but there are {size} rows")
    return np.where(numbers < 0, numbers + size, numbers)
