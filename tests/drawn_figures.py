"""Clips of drawn figures that walk about, and detectors that know their colours.

A figure is a rectangle with a coloured upper and lower half and a face, a smaller rectangle in the
upper one. Detectors find what of it is seen; networks without weights would find nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from made_media import ffmpeg
from numpy.typing import NDArray
from torch import nn

Colour = tuple[int, int, int]

BACKGROUND = (90, 110, 90)
PILLAR = (60, 60, 60)


@dataclass(frozen=True)
class Figure:
    """place: centre x, centre y at a frame's number. size: width, height. Later ones are in front.

    face: colour of the face, None for a figure seen from behind.
    """

    upper: Colour
    lower: Colour
    place: Callable[[int], tuple[float, float]]
    size: tuple[int, int] = (20, 50)
    face: Colour | None = None

    @property
    def colours(self) -> list[Colour]:
        return [self.upper, self.lower] + ([self.face] if self.face else [])

    def box(self, number: int) -> tuple[float, float, float, float]:
        x, y = self.place(number)
        width, height = self.size
        left, top = round(x - width / 2), round(y - height / 2)
        return left, top, left + width, top + height


def draw(
    figures: Sequence[Figure], number: int, size: tuple[int, int], pillar: tuple[int, int] | None
) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] of (width, height) = size; a pillar spans columns, in front of all."""
    width, height = size
    frame = np.full((height, width, 3), BACKGROUND, np.uint8)
    for figure in figures:
        x1, y1, x2, y2 = (int(edge) for edge in figure.box(number))
        middle = (y1 + y2) // 2
        _fill(frame, (x1, y1, x2, middle), figure.upper)
        _fill(frame, (x1, middle, x2, y2), figure.lower)
        if figure.face:
            third = (x2 - x1) // 3
            _fill(frame, (x1 + third, y1 + 2, x2 - third, y1 + 2 + third), figure.face)
    if pillar:
        frame[:, pillar[0] : pillar[1]] = PILLAR
    return frame


def _fill(frame: NDArray[np.uint8], box: tuple[int, int, int, int], colour: Colour) -> None:
    x1, y1, x2, y2 = (max(edge, 0) for edge in box)
    frame[y1:y2, x1:x2] = colour


def make_clip(
    path: Path,
    figures: Sequence[Figure],
    *,
    frames: int,
    size: tuple[int, int] = (160, 96),
    fps: int = 24,
    pillar: tuple[int, int] | None = None,
) -> Path:
    """A clip without loss: FFV1 in Matroska."""
    pixels = b"".join(draw(figures, k, size, pillar).tobytes() for k in range(frames))
    ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", fps),
        *("-i", "-", "-c:v", "ffv1", "-pix_fmt", "bgr0", path),
        stdin=pixels,
    )
    return path


def _seen(frame: NDArray[np.uint8], colours: Sequence[Colour]) -> NDArray[np.bool_]:
    return np.any([(frame == colour).all(axis=-1) for colour in colours], axis=0)


def _box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


class FigureDetector(nn.Module):
    """Boxes around what is seen of each figure; weak ones where half of it or more is hidden.

    Key point k lies at a place of its own in the box; the last one is unsure.
    """

    def __init__(self, figures: Sequence[Figure], *, has_keypoints: bool = True) -> None:
        super().__init__()
        self.figures, self.has_keypoints = figures, has_keypoints

    def forward(self, frame: torch.Tensor) -> Mapping[str, torch.Tensor]:
        pixels = (frame * 255).round().byte().permute(1, 2, 0).numpy()
        boxes, scores = [], []
        for figure in self.figures:
            mask = _seen(pixels, figure.colours)
            share = mask.sum() / (figure.size[0] * figure.size[1])
            if share >= 0.2:
                boxes.append(_box_of(mask))
                scores.append(0.95 if share > 0.5 else 0.4)
        found = {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "scores": torch.tensor(scores, dtype=torch.float32),
        }
        if self.has_keypoints:
            found["keypoints"] = place_keypoints(found["boxes"])
        return found


def place_keypoints(boxes: torch.Tensor) -> torch.Tensor:
    """(N, 17, 3): key points of boxes (N, 4) along a diagonal, the last one of confidence 0.1."""
    share = (torch.arange(17) + 0.5) / 17  # (17)
    points = boxes[:, None, :2] + share[:, None] * (boxes[:, None, 2:] - boxes[:, None, :2])
    confidence = torch.full((len(boxes), 17, 1), 0.9)
    confidence[:, -1] = 0.1
    return torch.cat([points, confidence], dim=2)


class FaceFinder(nn.Module):
    """Boxes of the faces of figures, with landmarks at the usual places within them."""

    def __init__(self, figures: Sequence[Figure]) -> None:
        super().__init__()
        self.colours = [figure.face for figure in figures if figure.face]

    def forward(self, frame: torch.Tensor) -> Mapping[str, torch.Tensor]:
        pixels = frame.round().byte().permute(1, 2, 0).numpy()
        masks = [_seen(pixels, [colour]) for colour in self.colours]
        boxes = torch.tensor(
            [_box_of(mask) for mask in masks if mask.any()], dtype=torch.float32
        ).reshape(-1, 4)
        places = torch.tensor([(0.3, 0.3), (0.7, 0.3), (0.5, 0.55), (0.35, 0.8), (0.65, 0.8)])
        edges = boxes[:, 2:] - boxes[:, :2]
        return {
            "boxes": boxes,
            "scores": torch.full((len(boxes),), 0.99),
            "landmarks": boxes[:, None, :2] + places * edges[:, None],
        }


RED_BLUE = ((220, 30, 30), (30, 30, 200))
YELLOW_GREEN = ((230, 220, 40), (30, 160, 40))
WHITE_PURPLE = ((240, 240, 240), (140, 30, 160))


def crossing() -> list[Figure]:
    """Two figures that walk through each other's path in 48 frames of 160 x 96."""
    return [
        Figure(*RED_BLUE, lambda k: (15 + 2.7 * k, 50), face=(250, 200, 170)),
        Figure(*YELLOW_GREEN, lambda k: (145 - 2.7 * k, 50), face=(120, 80, 60)),
    ]


def behind_pillar() -> list[Figure]:
    """A figure that passes behind a pillar and one that stands still, in 60 frames."""
    return [
        Figure(*WHITE_PURPLE, lambda k: (20 + 2.0 * k, 48)),
        Figure(*RED_BLUE, lambda k: (148, 48), size=(16, 44)),
    ]


PILLAR_COLUMNS = (60, 90)
