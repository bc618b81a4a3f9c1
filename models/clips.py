"""Features of one video as a row of clips: aligned in time, cut or spread, padded to one length."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vlpipe.stores import Features

ClipChoice = Literal["first", "spread", "mean"]
"""Which rows of a longer video are its clips: the first ones; some at equal distances; or the means
of equal parts."""

ChangingSlot = Literal["appearance_global", "appearance_local", "motion_global", "motion_local"]

_REFERENCE = "appearance_global"
_GLOBAL = ("appearance_global", "motion_global")
_LOCAL = ("appearance_local", "motion_local")
_MOTION = ("motion_global", "motion_local")


def aligned_clips(
    features: Mapping[str, Features],
    *,
    max_clips: int,
    choice: ClipChoice,
    grid: int,
    changes: Sequence[str] = (),
    window_s: tuple[float, float] | None = None,
) -> dict[str, Tensor]:
    """Tensors of max_clips rows, zeros behind the last clip, and `video_length`, int64 ().

    Rows keep the dtype of the store (float16 halves what loading moves) unless they are worked on.

    features: `appearance_global` gives the clips; of every other slot the row whose middle is
        nearest in time stands beside each, or the mean of those in the clip. Global slots are
        [T, C], or maps, of which the mean of all cells is taken. Local slots are [T, N, C], or
        maps [T, C, y, x] or [T, C, t, y, x], of which the mean over t is cut into grid x grid
        cells as objects.
    changes: slots that become what changes in them, before clips are taken: rows of motion their
        absolute difference from the row before, the first row 0; rows of appearance their
        difference from the video's median row, which is how it looks at rest.
    window_s: only clips that overlap it; one at least stays.

    Without `boxes` each object has its cell's, or, where there are no cells, the whole frame's.
    """
    spans = clip_spans(features, max_clips=max_clips, choice=choice, window_s=window_s)
    prepared = {}
    for slot, values in features.items():
        rows = np.asarray(values.rows)
        if slot in changes:
            rows = _changes(slot, rows.astype(np.float32))
        picked = torch.from_numpy(_rows_of_clips(rows, values.spans, spans, choice))
        if slot in _GLOBAL and picked.ndim > 2:
            picked = picked.float().flatten(2).mean(dim=2)
        elif slot in _LOCAL and picked.ndim > 3:
            picked = _cells(picked.float(), grid)
        prepared[slot] = _padded(picked, max_clips)
    if "boxes" not in prepared:
        num_objects = prepared[_LOCAL[0]].shape[1]
        is_map = features[_LOCAL[0]].rows.ndim > 3
        boxes = cell_boxes(grid) if is_map else whole_frame(num_objects)
        prepared["boxes"] = _padded(boxes.expand(len(spans), -1, -1), max_clips)
    prepared["video_length"] = torch.tensor(len(spans))
    return prepared


def clip_spans(
    features: Mapping[str, Features],
    *,
    max_clips: int,
    choice: ClipChoice,
    window_s: tuple[float, float] | None = None,
) -> npt.NDArray[np.float64]:
    """[T, 2] seconds of the clips that `aligned_clips` takes."""
    spans = features[_REFERENCE].spans
    rows = np.arange(len(spans))
    if window_s is not None and len(rows):
        start_s, end_s = window_s
        inside = rows[(spans[:, 1] > start_s) & (spans[:, 0] < end_s)]
        distance = np.abs(spans.mean(axis=1) - (start_s + end_s) / 2)
        rows = inside if len(inside) else rows[[int(distance.argmin())]]
    if len(rows) <= max_clips:
        return spans[rows]
    if choice == "first":
        return spans[rows[:max_clips]]
    if choice == "spread":
        return spans[rows[np.linspace(0, len(rows) - 1, max_clips).round().astype(np.int64)]]
    edges = np.linspace(0, len(rows), max_clips + 1).round().astype(np.int64)
    return np.stack([spans[rows[edges[:-1]], 0], spans[rows[edges[1:] - 1], 1]], axis=1)


def cell_boxes(grid: int) -> Tensor:
    """(grid * grid, 6): x0, y0, x1, y1, width, height of each cell as shares of the frame."""
    edges = torch.arange(grid) / grid
    y0, x0 = (axis.flatten() for axis in torch.meshgrid(edges, edges, indexing="ij"))
    size = torch.full_like(x0, 1 / grid)
    return torch.stack([x0, y0, x0 + size, y0 + size, size, size], dim=1)


def whole_frame(num_objects: int) -> Tensor:
    """(num_objects, 6): the whole frame as the box of each."""
    return torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).repeat(num_objects, 1)


def _changes(slot: str, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How fast rows of motion change; where rows of appearance have come to.

    The sign is kept of the latter: to the left and to the right, up and down are then different.
    """
    if slot in _MOTION:
        speed: npt.NDArray[np.float32] = np.abs(np.diff(rows, axis=0, prepend=rows[:1]))
        return speed
    at_rest = np.median(rows, axis=0).astype(np.float32)
    return rows - at_rest


def _rows_of_clips(
    rows: npt.NDArray[np.generic],
    spans: npt.NDArray[np.float64],
    clips: npt.NDArray[np.float64],
    choice: ClipChoice,
) -> npt.NDArray[np.generic]:
    """A row for each clip: the nearest one in time, or the mean of those in it."""
    nearest = _nearest(spans, clips.mean(axis=1))
    if choice != "mean":
        return rows[nearest]
    middles = spans.mean(axis=1)
    first = np.searchsorted(middles, clips[:, 0], side="left")
    last = np.searchsorted(middles, clips[:, 1], side="left")
    wide = rows.astype(np.float32)
    return np.stack(
        [
            wide[a:b].mean(axis=0) if b > a else wide[only]
            for a, b, only in zip(first, last, nearest, strict=True)
        ]
    )


def _nearest(
    spans: npt.NDArray[np.float64], middles_s: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """The number of the row whose middle is nearest to each time; of equals the first."""
    own = spans.mean(axis=1)  # ascending, as rows follow time
    after = np.searchsorted(own, middles_s).clip(0, max(len(own) - 1, 0))
    before = (after - 1).clip(0)
    return np.where(
        np.abs(own[before] - middles_s) <= np.abs(own[after] - middles_s), before, after
    )


def _cells(maps: Tensor, grid: int) -> Tensor:
    """(T, C, [t,] y, x) -> (T, grid * grid, C)."""
    if maps.ndim == 5:
        maps = maps.mean(dim=2)
    return F.adaptive_avg_pool2d(maps, grid).flatten(2).mT


def _padded(rows: Tensor, length: int) -> Tensor:
    padded = rows.new_zeros(length, *rows.shape[1:])
    padded[: len(rows)] = rows
    return padded
