"""Which rows of a video are asked for: a slice or row numbers, as runs of rows that follow each
other, so that each run is one read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

RowSelection = slice | Sequence[int] | npt.NDArray[np.integer[Any]]

Run = tuple[int, int, int]  # first row, number of rows, place in the result


def selected_runs(selection: RowSelection, size: int) -> tuple[list[Run], int]:
    """The runs, in the order asked for, and the number of rows in all.

    Negative numbers count from the end. IndexError for a row that a video of `size` rows lacks.
    """
    if isinstance(selection, slice):
        first, stop, step = selection.indices(size)
        if step == 1:
            count = max(stop - first, 0)
            return ([(first, count, 0)] if count else []), count
        numbers = list(range(first, stop, step))
    else:
        numbers = np.asarray(selection, dtype=np.int64).reshape(-1).tolist()
    runs: list[Run] = []
    first = count = 0
    for asked in numbers:
        if not -size <= asked < size:
            raise IndexError(f"row {asked} was asked for, but there are {size} rows")
        number = asked + size if asked < 0 else asked
        if count and number == first + count:
            count += 1
            continue
        if count:
            place = runs[-1][2] + runs[-1][1] if runs else 0
            runs.append((first, count, place))
        first, count = number, 1
    if count:
        runs.append((first, count, runs[-1][2] + runs[-1][1] if runs else 0))
    return runs, len(numbers)
