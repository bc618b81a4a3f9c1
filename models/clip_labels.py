"""Which rows of a video are its training and evaluation clips, and which actions each clip shows.

A row of features stands for a window of the video, its span. Frames count at 24 a second, of which
every 16th is kept (1.5 a second), as the clips of "Video Transformers for Classification and
Captioning" (2024) are made: kept frames are 0, 16, 32, ...
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlpipe.stores.datasets import Action
from vlpipe.stores.errors import UsageError

FRAMES_PER_S = 24
KEPT_STEP = 16
_TOLERANCE_S = 1e-6  # ends of windows are sums of decimals

Spans = npt.NDArray[np.float64]


def consecutive_clips(spans: Spans) -> npt.NDArray[np.bool_]:
    """[T], the rows to train on: from the first on, whichever begins behind the last one's end.

    spans: [T, 2] seconds, rising. Where the windows do not overlap that is every row. Rows that are
    shorter than the longest, as the end of the video cuts them, are not among them; a video that is
    shorter than a window still has its one row.
    """
    chosen = np.zeros(len(spans), bool)
    lengths = spans[:, 1] - spans[:, 0]
    end_s = -math.inf
    for number, (start_s, own_end_s) in enumerate(spans):
        is_whole = lengths[number] >= lengths.max() - _TOLERANCE_S
        if is_whole and start_s >= end_s - _TOLERANCE_S:
            chosen[number] = True
            end_s = own_end_s
    return chosen


def clips_at_stride(
    spans: Spans, stride_s: float | None, *, video_id: str
) -> npt.NDArray[np.bool_]:
    """[T], the rows that begin at 0, stride_s, 2 stride_s, ...; None: all rows.

    spans: [T, 2] seconds, rising. A video without frames at all these times keeps all its rows.
    Raises UsageError naming the video where stride_s is no multiple of the step between its rows.
    """
    starts = spans[:, 0]
    if stride_s is None:
        return np.ones(len(spans), bool)
    steps = np.diff(starts)
    steps = steps[steps > _TOLERANCE_S]
    if len(steps) and not _is_multiple(stride_s, float(steps.min())):
        raise UsageError(
            f"evaluation windows every {stride_s:g} s are asked for, and the rows of video "
            f"{video_id!r} begin every {steps.min():g} s",
            hint=f"--set task.stride_s={steps.min():g} or a multiple of it; or extract the rows "
            "again with a smaller stride_s",
        )
    chosen = np.array([_is_multiple(float(start), stride_s) for start in starts], bool)
    return chosen if chosen.any() else np.ones(len(spans), bool)


def _is_multiple(value: float, step: float) -> bool:
    """Whether value is 0, step, 2 step, ... up to rounding."""
    return abs(value - round(value / step) * step) < _TOLERANCE_S and value > -_TOLERANCE_S


def clip_labels(
    actions: Sequence[Action], spans: Spans, num_classes: int
) -> npt.NDArray[np.float32]:
    """[T, num_classes], 1 where a kept frame of the row's span lies in an action of the class.

    An action marks the frames from floor(24 start) to floor(24 end), both included; a span has
    those that begin in it, its end excluded. An action between two kept frames marks none.
    """
    first, behind = _first_kept(spans[:, 0]), _first_kept(spans[:, 1])  # [T]
    labels = np.zeros((len(spans), num_classes), np.float32)
    for action in actions:
        begin = -(-int(FRAMES_PER_S * action.start_s) // KEPT_STEP)
        last = int(FRAMES_PER_S * action.end_s) // KEPT_STEP
        is_shown = np.maximum(first, begin) <= np.minimum(behind - 1, last)
        labels[is_shown, action.place] = 1
    return labels


def _first_kept(times_s: Spans) -> npt.NDArray[np.int64]:
    """The number, among the kept frames, of the first one at each time or behind it."""
    numbers = (times_s - _TOLERANCE_S) * (FRAMES_PER_S / KEPT_STEP)
    return np.ceil(numbers).astype(np.int64)
