"""Which rows of a video go into an example: a sample of them, or those that match another
feature's rows in time."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Sampling = Literal["even", "random", "first"]


def sampled_rows(
    size: int, num_rows: int, sampling: Sampling, draw: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.int64] | None:
    """[num_rows] row numbers, increasing; None for all rows, where there are no more.

    "even": the middles of `num_rows` equal stretches. "random": one row of each stretch, where
    `draw` [num_rows] in [0, 1) says. "first": the beginning.
    """
    if size <= num_rows:
        return None
    if sampling == "first":
        return np.arange(num_rows)
    place = 0.5 if draw is None else draw
    return ((np.arange(num_rows) + place) * (size / num_rows)).astype(np.int64)


def rows_at_times(
    spans: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """[W] for each of the wanted spans [W, 2] the row of `spans` [T, 2] whose middle is nearest
    to its own; the earlier of two that are equally near. ValueError when there are no rows."""
    if not len(spans):
        raise ValueError("no rows to choose from")
    middles = spans.mean(axis=1)
    order = np.argsort(middles, kind="stable")  # spans may overlap, so starts do not tell
    middles = middles[order]
    asked = wanted.mean(axis=1)
    after = np.clip(np.searchsorted(middles, asked), 1, max(len(middles) - 1, 1))
    if len(middles) == 1:
        return np.zeros(len(asked), np.int64)
    is_before = asked - middles[after - 1] <= middles[after] - asked
    return np.asarray(order[np.where(is_before, after - 1, after)])
