"""Likeness of a predicted map and of where people looked: Sim, CC, AUC (Judd), shuffled AUC.

Bylinskii et al., What do different evaluation metrics tell us about saliency models? (2016), whose
MATLAB code adds a jitter for AUC; here nothing is added, and pixels of equal value count together.
Every function scales the map from 0 to 1 itself; a map without any difference is 1 everywhere.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlpipe.models.gaze_maps import TARGET_SIGMA, Floats, blur_matrix, blurred, resized

TRUTH_SIGMA_PX = 19.0
NUM_OTHER_FRAMES = 10
NUM_SPLITS = 100
_THRESHOLDS = np.arange(11) / 10
_ROUNDING = 1e-9

Pixels = npt.NDArray[np.int64]
"""(N, 2), x and y of fixated pixels."""


def scaled(values: npt.ArrayLike) -> Floats:
    """The map with its least value at 0 and its greatest at 1; ones where all are equal."""
    given = np.asarray(values, np.float64)
    low, high = given.min(), given.max()
    # What smoothing leaves of an even map is rounding, which must not be scaled up.
    is_even = high - low <= _ROUNDING * max(abs(low), abs(high))
    return np.ones_like(given) if is_even else (given - low) / (high - low)


def frame_prediction(grid: Floats, width: int, height: int) -> Floats:
    """(height, width) of a predicted (49, 49): smoothed by 2 cells, enlarged, scaled to 0 .. 1."""
    return scaled(resized(blurred(grid, TARGET_SIGMA), height, width))


def frame_truth(pixels: Pixels, width: int, height: int) -> Floats:
    """(height, width) of the pixels of all subjects: smoothed by 19 pixels, scaled to 0 .. 1."""
    down, across = blur_matrix(height, TRUTH_SIGMA_PX), blur_matrix(width, TRUTH_SIGMA_PX)
    return scaled(down[:, pixels[:, 1]] @ across[:, pixels[:, 0]].T)


def similarity(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """What two maps of one shape have in common, after scaling, as shares of their sums: 0 to 1."""
    p, g = scaled(prediction), scaled(truth)
    return float(np.minimum(p / p.sum(), g / g.sum()).sum())


def correlation(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Pearson's correlation of two maps of one shape; 0 if one has no difference in it."""
    p, g = scaled(prediction), scaled(truth)
    p, g = p - p.mean(), g - g.mean()
    norms = float(np.linalg.norm(p) * np.linalg.norm(g))
    return float((p * g).sum()) / norms if norms > 0 else 0.0


def auc_judd(prediction: npt.ArrayLike, pixels: npt.ArrayLike) -> float:
    """Area under the curve of hits over false alarms, thresholds at the values of the fixations.

    prediction: (H, W). pixels: int (N, 2), x and y; a pixel counts once. ValueError without any,
    or where all pixels are fixated.
    """
    values = scaled(prediction)
    at_fixations = np.sort(_at(values, _distinct(pixels)))[::-1]
    num_fixated, num_others = len(at_fixations), values.size - len(at_fixations)
    if not num_others:
        raise ValueError("every pixel is fixated: there is nothing to tell apart")
    thresholds = np.unique(at_fixations)[::-1]
    # Of equal values all are above a threshold, or none.
    hits = np.searchsorted(-at_fixations, -thresholds, side="right")
    above = np.array([np.count_nonzero(values >= threshold) for threshold in thresholds])
    return _area(hits / num_fixated, (above - hits) / num_others)


def auc_shuffled(
    prediction: npt.ArrayLike,
    pixels: npt.ArrayLike,
    others: npt.ArrayLike,
    generator: np.random.Generator,
    num_splits: int = NUM_SPLITS,
) -> float:
    """Area as of `auc_judd`, where false alarms are fixations of other frames: then a preference
    for the centre gains nothing.

    others: int (M, 2), x and y, scaled to this frame. Of them as many are drawn as the frame has
    fixations, or all if they are fewer, num_splits times; the mean comes back. Thresholds are 0,
    0.1, ... below the greatest value met. ValueError without fixations here or there.
    """
    values = scaled(prediction)
    positive, pool = _at(values, _distinct(pixels)), _at(values, _distinct(others))
    count = min(len(positive), len(pool))
    # (num_splits, count): the first places of permutations are draws without replacement.
    drawn = pool[generator.random((num_splits, len(pool))).argsort(axis=1)[:, :count]]
    largest = np.maximum(drawn.max(axis=1), positive.max())
    hits = (positive >= _THRESHOLDS[:, None]).mean(axis=1)  # (11,)
    alarms = (drawn[:, None] >= _THRESHOLDS[:, None]).mean(axis=2)  # (num_splits, 11)
    areas = []
    for of_split, top in zip(alarms, largest, strict=True):
        used = top > _THRESHOLDS
        areas.append(_area(hits[used][::-1], of_split[used][::-1]))
    return float(np.mean(areas))


def other_frames(num_frames: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """int64 (num_frames, K), for each frame K others of them, K at most 10, drawn without
    replacement."""
    count = min(NUM_OTHER_FRAMES, num_frames - 1)
    drawn = np.zeros((num_frames, max(count, 0)), np.int64)
    for frame in range(num_frames if count > 0 else 0):
        chosen = generator.choice(num_frames - 1, size=count, replace=False)
        drawn[frame] = chosen + (chosen >= frame)
    return drawn


def drawn_frames(
    num_frames: int, num_draws: int, frames_per_draw: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """int64 (num_draws, frames_per_draw), the frames of each draw, without replacement; all frames
    in one draw where there are no more."""
    if num_frames <= frames_per_draw:
        return np.arange(num_frames)[None]
    draws: Sequence[npt.NDArray[np.int64]] = [
        generator.choice(num_frames, size=frames_per_draw, replace=False) for _ in range(num_draws)
    ]
    return np.sort(np.stack(draws), axis=1)


def _distinct(pixels: npt.ArrayLike) -> Pixels:
    found = np.asarray(pixels, np.int64).reshape(-1, 2)
    if not len(found):
        raise ValueError("there are no fixations")
    return np.unique(found, axis=0)


def _at(values: Floats, pixels: Pixels) -> Floats:
    height, width = values.shape
    x, y = pixels.T
    if x.min() < 0 or y.min() < 0 or x.max() >= width or y.max() >= height:
        raise ValueError(f"a fixation lies beside the map of {width}x{height} pixels")
    found: Floats = values[y, x]
    return found


def _area(hits: Floats, alarms: Floats) -> float:
    """Trapezoids under the curve from (0, 0) to (1, 1); both shares rise."""
    return float(np.trapezoid(np.concatenate([[0], hits, [1]]), np.concatenate([[0], alarms, [1]])))
