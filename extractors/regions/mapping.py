"""Boxes on their way through the resize and the crop that a network's frames went through."""

import numpy as np
import numpy.typing as npt

from vlpipe.extractors.media import FrameRequest

Boxes = npt.NDArray[np.float64]


def map_boxes(boxes: Boxes, size: tuple[int, int], request: FrameRequest) -> Boxes:
    """Boxes (n, 4) in pixels of what `request` makes of a frame of that (height, width).

    boxes: x1, y1, x2, y2 over the width and height of the frame, (n, 4). The result may lie
    outside of a crop, whose pixels begin at 0.
    """
    height, width = request.resize.output_size(*size) if request.resize else size
    mapped = boxes * np.array([width, height, width, height], np.float64)
    if request.center_crop is not None:
        left, top = (_crop_margin(edge, request) for edge in (width, height))
        mapped -= np.array([left, top, left, top], np.float64)
    return mapped


def share_inside(boxes: Boxes, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """(n,): the share of each box (n, 4) that lies in the image of that (height, width).

    A box without area counts by its place: 1 in the image, 0 outside.
    """
    shares = np.ones(len(boxes))
    for axis, length in ((0, size[1]), (1, size[0])):
        low, high = boxes[:, axis], boxes[:, axis + 2]
        extent = high - low
        inside = np.minimum(high, length) - np.maximum(low, 0)
        is_line = extent <= 0
        share = inside / np.where(is_line, 1, extent)
        shares *= np.where(is_line, inside >= 0, share.clip(0, 1))
    return shares.astype(np.float32)


def _crop_margin(edge: int, request: FrameRequest) -> int:
    """Pixels before the crop on an edge of so many pixels; negative where it was filled up."""
    excess = edge - (request.center_crop or edge)
    if excess < 0:
        return -(-excess // 2)
    down, rest = divmod(excess, 2)
    if request.crop_rounding == "round":
        return down + (rest and down % 2)
    return down + (rest if request.crop_rounding == "ceil" else 0)
