"""Lengths that events may have, from the lengths of those in the training examples."""

from collections.abc import Sequence

import numpy as np

_MOST_STEPS = 100


def anchors_of(lengths_s: Sequence[float], count: int) -> tuple[float, ...]:
    """The centres of at most `count` clusters (k-means) of lengths in seconds, ascending.

    It starts from equal shares of the sorted lengths, so that the same lengths give the same
    anchors everywhere; the published ones came from a random start (see `bmt_anchors.py`).
    Raises ValueError without lengths above 0.
    """
    values = np.sort(np.array([length for length in lengths_s if length > 0], np.float64))
    if not len(values):
        raise ValueError("no event has a length above 0")
    count = min(count, len(np.unique(values)))
    centres = np.unique(np.quantile(values, (np.arange(count) + 0.5) / count))
    for _ in range(_MOST_STEPS):
        of_value = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
        sums = np.bincount(of_value, values, len(centres))
        counts = np.bincount(of_value, minlength=len(centres))
        moved = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
        if np.allclose(moved, centres, rtol=0, atol=1e-9):
            break
        centres = moved
    return tuple(float(centre) for centre in centres)
