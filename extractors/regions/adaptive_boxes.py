"""Which regions of an image are kept: 10 to 100 of the detector's proposals.

Paper: Bottom-Up and Top-Down Attention (Anderson et al., 2018), section 3.1. Code:
MILVLG/bottom-up-attention.pytorch, `utils/extract_utils.py`. Every class suppresses among the same
boxes, so the overlaps are computed once and all classes are walked through together.
"""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from vlpipe.extractors.regions.faster_rcnn_boxes import widen


def class_confidences(
    boxes: Tensor, probabilities: Tensor, overlap: float, *, pixel: float = 1.0
) -> Tensor:
    """(N,): the highest probability with which each box survives suppression within a class.

    boxes: (N, 4). probabilities: (N, C), background left out. A box that no class keeps has 0.
    overlap: a box is suppressed by a better one of its class from this share on.
    Memory: N * (N + 3 C) numbers.
    """
    num_boxes, num_classes = probabilities.shape
    if num_boxes == 0 or num_classes == 0:
        return probabilities.new_zeros(num_boxes)
    regions = widen(boxes, pixel)
    suppresses = box_iou(regions, regions) >= overlap  # (N, N)
    suppresses.fill_diagonal_(False)
    order = probabilities.argsort(dim=0, descending=True, stable=True)  # (N, C), best first
    is_out = torch.zeros((num_classes, num_boxes), dtype=torch.bool, device=boxes.device)
    for best in order:  # (C,): the next box of every class
        is_kept = ~is_out.gather(1, best[:, None])  # (C, 1)
        is_out |= suppresses[best] & is_kept
    # Of two boxes that overlap the worse is out before its turn: what was kept is never marked.
    return probabilities.masked_fill(is_out.T, 0).amax(dim=1)


def choose_boxes(confidences: Tensor, *, threshold: float, fewest: int, most: int) -> Tensor:
    """Indices of the kept boxes, int64 (K,).

    Boxes from `threshold` on stay in their order. If those are fewer than `fewest` or more than
    `most`, the best so many are taken instead, by falling confidence (equal ones in their order).
    """
    kept = (confidences >= threshold).nonzero()[:, 0]
    if fewest <= len(kept) <= most:
        return kept
    count = fewest if len(kept) < fewest else most
    return confidences.argsort(descending=True, stable=True)[:count]


def spatial_numbers(boxes: Tensor, height: int, width: int) -> Tensor:
    """(N, 6): x1, y1, x2, y2, x2 - x1, y2 - y1 of boxes (N, 4) over the size of the image."""
    scaled = boxes / boxes.new_tensor([width, height, width, height])
    return torch.cat([scaled, scaled[:, 2:] - scaled[:, :2]], dim=1)
