"""Scaling and cropping of RGB frames, with the arithmetic of torchvision on PIL images."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlpipe.extractors.media.requests import CropRounding, FrameRequest, Resize

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def resize_frame(frame: NDArray[np.uint8], resize: Resize) -> NDArray[np.uint8]:
    """uint8 [h, w, 3] scaled from uint8 [H, W, 3]; the same array when nothing changes.

    Pillow widens its filter when shrinking (antialias), as torchvision does on PIL images.
    """
    height, width = resize.output_size(*frame.shape[:2])
    if (height, width) == frame.shape[:2]:
        return frame
    image = Image.fromarray(frame)
    return np.asarray(image.resize((width, height), _RESAMPLING[resize.interpolation]))


def center_crop(frame: NDArray[np.uint8], edge: int, rounding: CropRounding) -> NDArray[np.uint8]:
    """uint8 [edge, edge, 3], the middle of uint8 [H, W, 3]; smaller frames get zeros around."""
    height, width = frame.shape[:2]
    if height < edge or width < edge:
        pad_h, pad_w = max(edge - height, 0), max(edge - width, 0)
        frame = np.pad(
            frame, ((pad_h // 2, (pad_h + 1) // 2), (pad_w // 2, (pad_w + 1) // 2), (0, 0))
        )
        height, width = frame.shape[:2]
    top, left = _margin(height - edge, rounding), _margin(width - edge, rounding)
    return frame[top : top + edge, left : left + edge]


def _margin(excess: int, rounding: CropRounding) -> int:
    if rounding == "floor":
        return excess // 2
    return round(excess / 2) if rounding == "round" else math.ceil(excess / 2)


class FrameScaler:
    """Scaled and cropped forms of one source frame, each made once for all requests."""

    def __init__(self) -> None:
        self.num_scaled = 0
        self._frame: NDArray[np.uint8] | None = None
        self._scaled: dict[Resize | None, NDArray[np.uint8]] = {}

    def start(self, frame: NDArray[np.uint8]) -> None:
        """Takes the next source frame, uint8 [H, W, 3]."""
        self._frame = frame
        self._scaled = {None: frame}

    def get(self, request: FrameRequest) -> NDArray[np.uint8]:
        """The current frame as the request wants it, uint8 [h, w, 3]; not to be written to."""
        assert self._frame is not None
        if request.resize not in self._scaled:
            assert request.resize is not None
            scaled = resize_frame(self._frame, request.resize)
            self.num_scaled += scaled is not self._frame
            self._scaled[request.resize] = scaled
        frame = self._scaled[request.resize]
        if request.center_crop is None:
            return frame
        return center_crop(frame, request.center_crop, request.crop_rounding)
