"""The colours of a person's clothes: a small vector that tells two crossing persons apart.

Needs no weights. A track is followed through frames with it (`people/tracking.py`); telling persons
apart over clips is the work of `faces` and `body_parts`.
"""

import numpy as np
import numpy.typing as npt

BINS = 4
PARTS = 2
WIDTH = PARTS * BINS**3

# The middle of the box, where the person covers the background.
_MARGIN = 0.2


def describe_appearance(
    frame: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """float32 [N, 128] of length 1, not negative, of a frame [H, W, 3] RGB and boxes [N, 4].

    Square roots of the shares of colours (4 x 4 x 4 levels of red, green and blue) in the upper
    and in the lower half of the box, so that the scalar product of two is the mean Bhattacharyya
    coefficient. Boxes lie within the frame; each is read at one pixel at least.
    """
    height, width = frame.shape[:2]
    described = np.zeros((len(boxes), WIDTH), np.float32)
    for row, (x1, y1, x2, y2) in zip(described, boxes.astype(np.float64), strict=True):
        inset = _MARGIN * (x2 - x1)
        left, right = _pixels(x1 + inset, x2 - inset, width)
        middle = (y1 + y2) / 2
        halves = (_pixels(y1, middle, height), _pixels(middle, y2, height))
        for part, (top, bottom) in enumerate(halves):
            levels = frame[top:bottom, left:right].reshape(-1, 3) // (256 // BINS)  # (P, 3)
            colours = levels @ np.array([BINS**2, BINS, 1])
            counts = np.bincount(colours, minlength=BINS**3)
            row[part * BINS**3 : (part + 1) * BINS**3] = np.sqrt(counts / (PARTS * counts.sum()))
    return described


def _pixels(start: float, stop: float, edge: int) -> tuple[int, int]:
    first = min(max(int(np.floor(start)), 0), edge - 1)
    return first, min(max(int(np.ceil(stop)), first + 1), edge)
