"""Which frames of a video a network reads, and what stands beside each: the sound at that time."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlpipe.stores import Features


def equidistant_rows(
    spans: npt.NDArray[np.float64], most: int, window_s: tuple[float, float] | None = None
) -> npt.NDArray[np.int64]:
    """Numbers of the rows in the window; of N > most of them the floor(i N / most)-th ones.

    spans: [T, 2] seconds. most: how many at most.
    """
    rows = np.arange(len(spans))
    if window_s is not None:
        start_s, end_s = window_s
        rows = rows[(spans[:, 1] > start_s) & (spans[:, 0] < end_s)]
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows), most, endpoint=False).astype(np.int64)]


def spans_at_the_end(
    spans: npt.NDArray[np.float64], most: int, window_s: tuple[float, float] | None = None
) -> npt.NDArray[np.float64]:
    """[most, 2] seconds of the `equidistant_rows`, at the end; (0, 0) for padding before them."""
    found = spans[equidistant_rows(spans, most, window_s)]
    return np.concatenate([np.zeros((most - len(found), 2)), found])


def frames_with_sound(
    features: Mapping[str, Features],
    *,
    max_frames: int,
    sound_width: int,
    changes: bool = False,
    window_s: tuple[float, float] | None = None,
) -> tuple[Tensor, int]:
    """float32 (max_frames, C) with zeros before the first row, and how many rows are real.

    features (maps are read flat): `frames`, and `sound`, of which the row nearest in time stands
        beside each frame; without it, or where a video has none, there are sound_width zeros.
    changes: between the two stands each frame's difference from the median of all chosen ones,
        which is how the video looks at rest.
    """
    frames, sound = features["frames"], features.get("sound")
    chosen = equidistant_rows(frames.spans, max_frames, window_s)
    parts = [_flat(frames.rows[chosen])]
    if changes:
        # The median of no frames is not a number.
        at_rest = np.median(parts[0], axis=0) if len(chosen) else np.float32(0)
        parts.append(parts[0] - at_rest)
    if sound is not None and len(sound.rows):
        middles = frames.spans[chosen].mean(axis=1)
        distance = np.abs(middles[:, None] - sound.spans.mean(axis=1))  # (frames, rows)
        parts.append(_flat(sound.rows[distance.argmin(axis=1)]))
    else:
        parts.append(np.zeros((len(chosen), sound_width), np.float32))
    rows = torch.from_numpy(np.concatenate(parts, axis=1))
    padded = rows.new_zeros(max_frames, rows.shape[1])
    padded[max_frames - len(rows) :] = rows
    return padded, len(rows)


def _flat(rows: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """float32 [T, C] of [T, ...]; T may be 0, of which NumPy cannot derive a width."""
    return np.asarray(rows, np.float32).reshape(len(rows), math.prod(rows.shape[1:]))
