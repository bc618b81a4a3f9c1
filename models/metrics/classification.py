"""Figures of classifying videos into several classes at once: mean average precision.

The average precision of a class is the mean, over its positive videos, of the precision among the
videos that score at least as high (Charades; Sigurdsson et al., 2016). Where no two scores are
equal that is the precision at the rank of each; of equal scores none stands before another, so that
neither the order of a table nor a rounding decides. Classes without positives are left out.
"""

import numpy as np
import numpy.typing as npt


def average_precisions(
    scores: npt.ArrayLike, labels: npt.ArrayLike, *, unlabelled_last: bool = False
) -> npt.NDArray[np.float64]:
    """float64 [K] in 0..1, NaN for classes without positives.

    scores: [N, K], higher is more likely; minus infinity is a score, NaN is none. labels: bool or
        0 and 1, [N, K].
    unlabelled_last: videos without any label stand behind all others, as the benchmark's own
        evaluation places them. Raises ValueError for other shapes and for NaN.
    """
    table, truth = np.array(scores, np.float64), np.asarray(labels).astype(bool)
    if table.ndim != 2 or table.shape != truth.shape or not table.size:
        raise ValueError(
            f"scores are {table.shape}, labels {truth.shape}; expected [videos, classes] of both"
        )
    if np.isnan(table).any():
        raise ValueError("scores hold NaN, which has no rank")
    if unlabelled_last:
        table[~truth.any(axis=1)] = -np.inf
    found = np.full(table.shape[1], np.nan)
    for place in range(table.shape[1]):
        right = truth[:, place]
        if right.any():
            own = np.sort(table[:, place])
            own_right = np.sort(table[right, place])
            # How many videos, and how many positives, score at least as high as each positive.
            above = len(own) - np.searchsorted(own, own_right, side="left")
            right_above = len(own_right) - np.searchsorted(own_right, own_right, side="left")
            found[place] = np.mean(right_above / above)
    return found


def mean_average_precision(
    scores: npt.ArrayLike, labels: npt.ArrayLike, *, unlabelled_last: bool = False
) -> float:
    """Percent: the mean over the classes that have positives; see `average_precisions`.

    Raises ValueError where no class has one.
    """
    found = average_precisions(scores, labels, unlabelled_last=unlabelled_last)
    if np.isnan(found).all():
        raise ValueError("no video has a label: there is no average precision")
    return 100.0 * float(np.nanmean(found))
