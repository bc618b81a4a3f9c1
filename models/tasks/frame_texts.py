"""Which texts stand at which frame of a video, and texts of many frames in one padded tensor."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_NEAREST = 2


def nearest_lines(starts_s: Sequence[float], frames_s: Sequence[float]) -> list[list[int]]:
    """For each frame the places of the two lines that start nearest to it, in their order; of two
    that are equally near the earlier one. Fewer, where there are fewer."""
    starts = np.asarray(starts_s, np.float64)
    return [
        sorted(np.abs(starts - frame).argsort(kind="stable")[:_NEAREST].tolist())
        for frame in frames_s
    ]


def windows_around(
    windows_s: Sequence[tuple[float, float]], frames_s: Sequence[float]
) -> list[list[int]]:
    """For each frame the places of the windows [start, end) that hold it, in their order."""
    return [
        [place for place, (start, end) in enumerate(windows_s) if start <= frame < end]
        for frame in frames_s
    ]


def frames_within(frames_s: Tensor, span_s: tuple[float, float]) -> Tensor:
    """bool (F,): the frames, in the order of time, that lie in a span, ends included; the next
    one, or the last, where none does."""
    start_s, end_s = span_s
    inside = (frames_s >= start_s) & (frames_s <= end_s)
    if len(inside) and not inside.any():
        inside[int((frames_s < start_s).sum().clamp_max(len(inside) - 1))] = True
    return inside


def padded_texts(texts: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
    """(B, S, L, ...) with zeros behind, and bool (B, S, L), True at what is real.

    texts: B lists of at most S texts, each (L, ...); at least one place a text is kept.
    """
    flat = [text for of_item in texts for text in of_item]
    longest = max([1, *(len(text) for text in flat)])
    most = max(len(of_item) for of_item in texts)
    shape = (len(texts), most, longest)
    padded = torch.zeros(*shape, *flat[0].shape[1:], dtype=flat[0].dtype)
    mask = torch.zeros(shape, dtype=torch.bool)
    for item, of_item in enumerate(texts):
        for place, text in enumerate(of_item):
            padded[item, place, : len(text)] = text
            mask[item, place, : len(text)] = True
    return padded, mask


def padded_regions(rows: Sequence[Tensor]) -> Tensor:
    """(B, F, R, ...) with zeros (False) behind, of B tensors (F, R, ...)."""
    most, widest = (max(part.shape[axis] for part in rows) for axis in (0, 1))
    padded = rows[0].new_zeros(len(rows), most, widest, *rows[0].shape[2:])
    for item, part in enumerate(rows):
        padded[item, : part.shape[0], : part.shape[1]] = part
    return padded
