"""Figures of retrieval: shares of queries whose right item is among the first K, and its rank.

Ranks start at 1. Of equal scores each counts for half (`average`), so that no order of the table
and no rounding of a program decides. The published code of JSFusion counts from 0, in the other
direction, and prints numbers of hits in place of percent: `published_jsfusion_figures`.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Ties = Literal["average", "optimistic", "pessimistic"]
"""Equally scored others: half of them stand before the right item, none, or all."""

DEPTHS = (1, 5, 10)


def ranks(
    scores: npt.ArrayLike, right: npt.ArrayLike | None = None, *, ties: Ties = "average"
) -> npt.NDArray[np.float64]:
    """float64 [Q]: 1 + how many items score higher than the right one, + what ties add.

    scores: [Q, N], a row of N items for each query. right: int [Q], the column of each query's
    right item; None: query i and item i belong together. Raises ValueError for other shapes and
    for scores that are not numbers.
    """
    table = np.asarray(scores, np.float64)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"scores have the shape {table.shape}; expected [queries, items]")
    if np.isnan(table).any():
        raise ValueError("scores hold NaN, which has no rank")
    columns = np.arange(len(table)) if right is None else np.asarray(right, np.int64)
    if columns.shape != (len(table),) or columns.min() < 0 or columns.max() >= table.shape[1]:
        raise ValueError(
            f"{len(table)} queries and {table.shape[1]} items; the right items are {columns.shape} "
            f"numbers from {columns.min()} to {columns.max()}"
        )
    own = table[np.arange(len(table)), columns, None]  # [Q, 1]
    better = (table > own).sum(axis=1)
    equal = (table == own).sum(axis=1) - 1
    share = {"average": 0.5, "optimistic": 0.0, "pessimistic": 1.0}[ties]
    return np.asarray(1 + better + share * equal, np.float64)


def recall_at(found: npt.ArrayLike, depth: int) -> float:
    """Percent of the ranks that are at most depth."""
    return 100.0 * float(np.mean(_ranks(found) <= depth))


def median_rank(found: npt.ArrayLike) -> float:
    """The median of the ranks, from 1; of an even number the mean of the middle two."""
    return float(np.median(_ranks(found)))


def retrieval_figures(
    scores: npt.ArrayLike,
    right: npt.ArrayLike | None = None,
    *,
    ties: Ties = "average",
    depths: Sequence[int] = DEPTHS,
) -> dict[str, float]:
    """`R@K` in percent, higher is better, and `MedR`, lower is better; see `ranks`."""
    found = ranks(scores, right, ties=ties)
    recalls = {f"R@{depth}": recall_at(found, depth) for depth in depths}
    return recalls | {"MedR": median_rank(found)}


def published_jsfusion_figures(scores: npt.ArrayLike) -> dict[str, float]:
    """What yj-yu/lsmdc prints for scores [sentences, videos] of 1,000 pairs.

    It ranks the sentences of each video, counts hits, and takes the median of ranks from 0.
    """
    found = ranks(np.asarray(scores).T, ties="optimistic")
    hits = {f"R@{depth}": float((found <= depth).sum()) for depth in DEPTHS}
    return hits | {"MedR": float(np.median(found - 1))}


def _ranks(found: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(found, np.float64)
    if not values.size:
        raise ValueError("there are no ranks")
    return values
