"""Turning pictures upright by their display matrix, as ffmpeg's autorotate does."""

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Orientation:
    """degrees: clockwise turn, 0, 90, 180 or 270; is_mirrored: flipped top to bottom beforehand."""

    degrees: int = 0
    is_mirrored: bool = False

    def apply(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [h, w, 3] upright from uint8 [H, W, 3] as stored."""
        if self.is_mirrored:
            frame = frame[::-1]
        if self.degrees:
            frame = np.rot90(frame, k=-(self.degrees // 90))
        return np.ascontiguousarray(frame)


def orientation_of_matrix(matrix: bytes) -> Orientation:
    """The orientation that a display matrix (nine int32, row by row) asks for.

    Angles that are no multiple of 90 degrees are rounded to the nearest one; ffmpeg would turn the
    picture by the odd angle inside a frame of the same size.
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    if a * d - b * c == 0:
        return Orientation()
    # The x axis of the stored picture goes to (a, b) and its y axis, downwards, to (c, d).
    degrees = round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360
    return Orientation(degrees, is_mirrored=a * d - b * c < 0)
