"""Boxes of the Visual Genome Faster R-CNN: anchors, deltas, overlaps, proposals.

Boxes are (x1, y1, x2, y2) in pixels. `pixel` is 1 where a box from x1 to x2 is x2 - x1 + 1 wide, as
in Caffe's detectors, and 0 where it is x2 - x1 wide, as in torchvision and detectron2. Suppression
with 1 equals torchvision's after the right and lower sides have moved by one.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms

# About cell (0, 0), ratio by ratio (0.5, 1, 2), each at four scales.
CAFFE_ANCHORS: Sequence[tuple[int, int, int, int]] = (
    (-38, -16, 53, 31),
    (-84, -40, 99, 55),
    (-176, -88, 191, 103),
    (-360, -184, 375, 199),
    (-24, -24, 39, 39),
    (-56, -56, 71, 71),
    (-120, -120, 135, 135),
    (-248, -248, 263, 263),
    (-14, -36, 29, 51),
    (-36, -80, 51, 95),
    (-80, -168, 95, 183),
    (-168, -344, 183, 359),
)

# A delta of size may enlarge an anchor of 16 pixels to 1000.
MAX_LOG_RATIO = math.log(1000 / 16)

_PROPOSAL_OVERLAP = 0.7
_MOST_BEFORE_SUPPRESSION = 6000


def symmetric_anchors() -> list[tuple[float, float, float, float]]:
    """12 anchors about a cell's corner, sizes 64 to 512 with ratios 0.5, 1, 2 each (detectron2)."""
    made = []
    for size in (64, 128, 256, 512):
        for ratio in (0.5, 1.0, 2.0):
            width = size / math.sqrt(ratio)
            height = width * ratio
            made.append((-width / 2, -height / 2, width / 2, height / 2))
    return made


def place_anchors(anchors: Tensor, height: int, width: int, stride: int) -> Tensor:
    """(height * width * A, 4): the A anchors at every cell, row by row, in pixels."""
    y, x = torch.meshgrid(
        torch.arange(height, device=anchors.device, dtype=anchors.dtype) * stride,
        torch.arange(width, device=anchors.device, dtype=anchors.dtype) * stride,
        indexing="ij",
    )
    shifts = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)  # (h w, 1, 4)
    return (shifts + anchors).view(-1, 4)


def decode_deltas(boxes: Tensor, deltas: Tensor, *, pixel: float) -> Tensor:
    """Boxes (N, 4 k) of boxes (N, 4) and deltas (N, 4 k), k classes one after the other.

    The centre moves by dx, dy times the size, the size grows by exp(dw), exp(dh).
    """
    x1, y1, x2, y2 = boxes[:, :, None].unbind(dim=1)  # (N, 1) each
    width, height = x2 - x1 + pixel, y2 - y1 + pixel
    dx, dy, dw, dh = deltas.view(len(deltas), -1, 4).unbind(dim=2)  # (N, k) each
    centre_x = x1 + 0.5 * width + dx * width
    centre_y = y1 + 0.5 * height + dy * height
    half_width = 0.5 * width * dw.clamp(max=MAX_LOG_RATIO).exp()
    half_height = 0.5 * height * dh.clamp(max=MAX_LOG_RATIO).exp()
    corners = (
        centre_x - half_width,
        centre_y - half_height,
        centre_x + half_width,
        centre_y + half_height,
    )
    return torch.stack(corners, dim=2).flatten(1)  # (N, 4 k)


def widen(boxes: Tensor, pixel: float) -> Tensor:
    """The boxes (N, 4) as regions without a pixel to add, for torchvision's operations."""
    return boxes + boxes.new_tensor([0.0, 0.0, pixel, pixel])


def best_proposals(
    boxes: Tensor,
    scores: Tensor,
    size: tuple[int, int],
    *,
    min_side: float,
    pixel: float,
    most: int,
) -> tuple[Tensor, Tensor]:
    """At most `most` of the boxes (N, 4) with scores (N,), best first, and their scores.

    Boxes are clipped to the image of that (height, width); empty ones, those not above `min_side`
    and those that overlap a better one by 0.7 are dropped. Boxes that are not finite, which only a
    network that overflows gives, are dropped as well.
    """
    height, width = size
    x = boxes[:, 0::2].clamp(0, width - pixel)
    y = boxes[:, 1::2].clamp(0, height - pixel)
    boxes = torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)
    sides = boxes[:, 2:] - boxes[:, :2]
    is_kept = ((sides > 0) & (sides + pixel > min_side)).all(dim=1)
    is_kept &= boxes.isfinite().all(dim=1) & scores.isfinite()
    boxes, scores = boxes[is_kept], scores[is_kept]
    order = scores.argsort(descending=True, stable=True)[:_MOST_BEFORE_SUPPRESSION]
    boxes, scores = boxes[order], scores[order]
    chosen = nms(widen(boxes, pixel), scores, _PROPOSAL_OVERLAP)[:most]
    return boxes[chosen], scores[chosen]
