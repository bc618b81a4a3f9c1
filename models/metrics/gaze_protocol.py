"""The evaluation of predicted gaze over the frames of a split: random draws of frames, and means.

Which frames are drawn, which ones stand against each for the shuffled AUC, and which pixels of
these, follows from the seed and the order of the frames alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from vlpipe.models.metrics.gaze import (
    Pixels,
    auc_judd,
    auc_shuffled,
    correlation,
    drawn_frames,
    frame_prediction,
    frame_truth,
    other_frames,
    similarity,
)


class DrawSettings(BaseModel):
    """draws: how often frames are drawn, frames_per_draw of them; figures are means over draws.
    Where there are no more frames than that, all of them are one draw. seed: of all draws."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    draws: PositiveInt = 10
    frames_per_draw: PositiveInt = 3000
    seed: NonNegativeInt = 0


@dataclass(frozen=True, slots=True, eq=False)
class GazeFrame:
    """A frame that somebody looked at. grid: float (49, 49), the predicted map. pixels: int64
    (N, 2), x and y, a row for each subject. width, height: of the frame."""

    grid: npt.NDArray[np.floating]
    pixels: Pixels
    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """frames: int64 (D, F), the frames of each draw. others: int64 (frames in all, at most 10), the
    frames whose fixations stand against those of each frame."""

    frames: npt.NDArray[np.int64]
    others: npt.NDArray[np.int64]


def draw(num_frames: int, settings: DrawSettings) -> Draws:
    """The draws for so many frames."""
    generator = np.random.default_rng(settings.seed)
    frames = drawn_frames(num_frames, settings.draws, settings.frames_per_draw, generator)
    return Draws(frames, other_frames(num_frames, generator))


def gaze_figures(frames: Sequence[GazeFrame], settings: DrawSettings) -> dict[str, float]:
    """`Sim`, `CC`, `sAUC` and `AUC`, from 0 to 1 (CC from -1), means over frames and draws. Without
    a second frame there is no sAUC. ValueError without frames."""
    if not frames:
        raise ValueError("there are no frames with fixations")
    draws = draw(len(frames), settings)
    found = {
        int(n): frame_figures(frames, int(n), draws, settings.seed) for n in np.unique(draws.frames)
    }
    names = next(iter(found.values()))
    return {
        name: float(np.mean([[found[int(n)][name] for n in of_draw] for of_draw in draws.frames]))
        for name in names
    }


def frame_figures(
    frames: Sequence[GazeFrame], number: int, draws: Draws, seed: int
) -> Mapping[str, float]:
    """The figures of one frame."""
    frame = frames[number]
    prediction = frame_prediction(frame.grid.astype(np.float64), frame.width, frame.height)
    truth = frame_truth(frame.pixels, frame.width, frame.height)
    figures = {"Sim": similarity(prediction, truth), "CC": correlation(prediction, truth)}
    others = [_on_frame_of(frames[int(n)], frame) for n in draws.others[number]]
    if others:
        generator = np.random.default_rng([seed, number])
        figures["sAUC"] = auc_shuffled(prediction, frame.pixels, np.concatenate(others), generator)
    return figures | {"AUC": auc_judd(prediction, frame.pixels)}


def _on_frame_of(other: GazeFrame, frame: GazeFrame) -> Pixels:
    """The other frame's pixels, brought to the size of this one."""
    scale = np.array([frame.width - 1, frame.height - 1]) / [other.width - 1, other.height - 1]
    return np.rint(other.pixels * scale).astype(np.int64)
