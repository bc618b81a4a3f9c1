"""One decoded picture with its time on screen, before any request is applied to it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SourceFrame:
    """A decoded picture.

    index: position in display order among the pictures of the file.
    start, end: ticks on screen, half-open, from the start of the file.
    to_rgb: makes uint8 [H, W, 3], upright; only called for pictures that a request wants.
    """

    index: int
    start: int
    end: int
    to_rgb: Callable[[], NDArray[np.uint8]]


class DecodeFault(Exception):
    """A decoder reported an error, or gave fewer pictures than promised.

    num_decoded: pictures that were decoded before it; None when it is not about pictures.
    """

    def __init__(self, reason: str, num_decoded: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.num_decoded = num_decoded
