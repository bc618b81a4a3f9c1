"""From predictions of events to proposals: clipping, choosing, suppression.

Predictions are (P, 3): centre and length in seconds, and confidence. Proposals are (N, 3): start
and end in seconds, and confidence, the most confident first. The published code has two orders of
the same steps, which give different proposals; both are here.
"""

import torch
from torch import Tensor

SHORTEST_S = 0.2
"""Proposals must be longer."""


def evaluation_proposals(
    predictions: Tensor, duration_s: float, *, most: int = 100, suppress_from: float | None = None
) -> Tensor:
    """The order of BMT's evaluation: the most confident predictions, clipped to the video, then
    suppression, then the short ones go. Fewer than `most` remain where good predictions lie behind
    the video's end."""
    chosen = _clipped(_most_confident(predictions, most), duration_s)
    return _long_enough(suppress(chosen, suppress_from))


def video_proposals(
    predictions: Tensor, duration_s: float, *, most: int = 100, suppress_from: float | None = 0.4
) -> Tensor:
    """The order of BMT's single-video program: all clipped to the video, the short ones go, then
    the most confident, then suppression. Possibly none."""
    kept = _long_enough(_clipped(predictions, duration_s))
    return suppress(_most_confident(kept, most), suppress_from)


def suppress(proposals: Tensor, suppress_from: float | None) -> Tensor:
    """Without those whose tIoU with a more confident one that stays is at least suppress_from;
    all of them with None. The most confident must come first."""
    if suppress_from is None or not len(proposals):
        return proposals
    likeness = temporal_iou(proposals[:, :2], proposals[:, :2]).cpu()
    kept: list[int] = []
    for place in range(len(proposals)):
        if not kept or float(likeness[place, kept].max()) < suppress_from:
            kept.append(place)
    return proposals[torch.tensor(kept, device=proposals.device)]


def temporal_iou(first: Tensor, second: Tensor) -> Tensor:
    """(M, N) overlap of (M, 2) and (N, 2) starts and ends over the time that they cover together:
    overlap / (min(hull, sum of lengths - overlap) + 1e-8), as in the challenge's evaluation."""
    (start, end), (other_start, other_end) = first.T[..., None], second.T[:, None]
    overlap = (torch.minimum(end, other_end) - torch.maximum(start, other_start)).clamp_min(0)
    hull = torch.maximum(end, other_end) - torch.minimum(start, other_start)
    union = torch.minimum(hull, (end - start) + (other_end - other_start) - overlap)
    return overlap / (union + 1e-8)


def _most_confident(rows: Tensor, most: int) -> Tensor:
    """rows: (P, 3)"""
    return rows[rows[:, 2].topk(min(most, len(rows))).indices]


def _clipped(rows: Tensor, duration_s: float) -> Tensor:
    """(P, 3) predictions as start, end and confidence, inside the video."""
    centre, length, confidence = rows.unbind(dim=-1)
    start = (centre - length / 2).clamp(0, duration_s)
    end = (centre + length / 2).clamp_max(duration_s)
    return torch.stack([start, end, confidence], dim=-1)


def _long_enough(rows: Tensor) -> Tensor:
    return rows[rows[:, 1] - rows[:, 0] > SHORTEST_S]
