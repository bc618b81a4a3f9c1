"""Pictures of a training: curves as SVG paths, and frames with what was attended on them."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlpipe.pipelines.pictures import data_address

CURVE_WIDTH, CURVE_HEIGHT = 480, 150
_HEAT = np.array((255, 80, 0), np.float64)  # over the frame where attention is strongest
_STRONGEST = 0.75
_MOST_GIF_BYTES = 400_000


@dataclass(frozen=True, slots=True)
class Curve:
    """A line over epochs. path: of an SVG of CURVE_WIDTH x CURVE_HEIGHT; low, high: its range."""

    name: str
    path: str
    low: float
    high: float
    last: float
    dot: tuple[float, float]


def curve(name: str, values: Sequence[float]) -> Curve:
    """The curve of one value an epoch; needs at least one."""
    y = np.asarray(values, np.float64)
    low, high = float(y.min()), float(y.max())
    x = np.linspace(0, CURVE_WIDTH, len(y)) if len(y) > 1 else np.array([CURVE_WIDTH / 2])
    height = CURVE_HEIGHT - 12
    down = 6 + height * (1 - (y - low) / (high - low if high > low else 1.0))
    points = [f"{a:.1f} {b:.1f}" for a, b in zip(x, down, strict=True)]
    dot = (float(x[-1]), float(down[-1]))
    return Curve(name, "M" + "L".join(points), low, high, float(y[-1]), dot)


def attended_frame(
    frame: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.floating],
    weights: npt.NDArray[np.floating],
    *,
    height: int = 84,
) -> Image.Image:
    """The frame [H, W, 3], darkened, with each box lit by its weight.

    boxes: [N, 4 or more], x0, y0, x1, y1 as shares of the frame. weights: [N], 1 the strongest of
    the video.
    """
    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    picture = np.asarray(Image.fromarray(frame).resize((width, height)), np.float64)
    heat = np.zeros((height, width))
    for box, weight in zip(boxes, weights, strict=True):
        x0, x1 = (round(float(x) * width) for x in (box[0], box[2]))
        y0, y1 = (round(float(y) * height) for y in (box[1], box[3]))
        region = heat[max(y0, 0) : y1, max(x0, 0) : x1]
        np.maximum(region, float(weight), out=region)
    share = _STRONGEST * heat[..., None]
    mixed = picture * (1 - share) + _HEAT * share
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8), "RGB")


def moving_picture(path: Path | None) -> str | None:
    """A `data:` address of a GIF that is small enough for a page; None for other media."""
    if path is None or path.suffix.lower() != ".gif" or path.stat().st_size > _MOST_GIF_BYTES:
        return None
    return f"data:image/gif;base64,{base64.b64encode(path.read_bytes()).decode()}"


def as_data(image: Image.Image) -> str:
    """A `data:` address of a photograph."""
    return data_address(image, jpeg=True)
