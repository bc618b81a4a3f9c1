"""Stacks: which frames of a video make each row of a clip network, in a stream and without it.

A row takes `stack_size` frames every `step_size` frames. The published I3D code reads one frame
more than it uses (optical flow needs 65 frames for 64 pairs), so that the rule counts *windows* of
stack_size + look_ahead frames, and a video of exactly 64 frames has no full window.

What is left after the last full window is the tail. video_features (HEAD) drops it. The code that
made BMT's features (branch `bmt`) repeats it from its beginning until the window is full: always
when the whole video is shorter than a window, else only if N mod window is a fifth of the window
or more. That modulus ignores that windows overlap by the look-ahead, so the rule drifts: of 77
frames the last 13 are dropped, and of 129 frames the last one makes a row of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt, model_validator

from vlpipe.extractors.extractor import ExtractorConfig
from vlpipe.extractors.media import FrameBlock
from vlpipe.extractors.samples import Block, Sample

Tail = Literal["cycle", "drop"]

# The share of a window that a tail needs to be repeated, written as in the published code: as a
# float product, 0.2 * 35 is a little more than 7.
_MIN_TAIL_SHARE = 0.2

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class StackRule:
    """Which frames make the rows of a video.

    look_ahead: frames after a stack that must exist for it to count as full, 0 or 1.
    """

    stack_size: int
    step_size: int
    tail: Tail
    look_ahead: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.step_size <= self.stack_size:
            raise ValueError(
                f"step_size is {self.step_size}; expected 1 to stack_size, {self.stack_size}"
            )

    @property
    def window(self) -> int:
        """Frames that a full row reads."""
        return self.stack_size + self.look_ahead

    def is_tail_kept(self, num_frames: int) -> bool:
        """Whether what is left of `num_frames` after the full windows makes one more row."""
        if self.tail == "drop" or num_frames == 0:
            return False
        is_short = num_frames < self.window
        return is_short or num_frames % self.window >= _MIN_TAIL_SHARE * self.window

    def rows(self, num_frames: int) -> list[npt.NDArray[np.int64]]:
        """int64 [window] frame indices of every row of a video of so many frames."""
        num_full = max(0, (num_frames - self.window) // self.step_size + 1)
        made = [np.arange(self.window) + k * self.step_size for k in range(num_full)]
        left = np.arange(num_full * self.step_size, num_frames)
        if len(left) and self.is_tail_kept(num_frames):
            made.append(np.resize(left, self.window))
        return made


class StackConfig(ExtractorConfig):
    """Settings of every extractor whose rows are stacks of frames.

    fps: frames a second; None keeps every frame of the source.
    stack_size, step_size: frames of a row, and from the first of one row to that of the next.
    tail: `cycle` is the rule of BMT's features, `drop` that of video_features today.
    """

    fps: float | None = Field(default=25.0, gt=0)
    stack_size: int = Field(default=64, ge=1)
    step_size: PositiveInt = 64
    tail: Tail = "cycle"

    @model_validator(mode="after")
    def _steps_leave_no_gap(self) -> Self:
        if self.step_size > self.stack_size:
            raise ValueError(f"step_size exceeds stack_size, which is {self.stack_size}")
        return self

    def stack_rule(self, look_ahead: int = 1) -> StackRule:
        """Which frames make the rows; look_ahead as in `StackRule`."""
        return StackRule(self.stack_size, self.step_size, self.tail, look_ahead)


class StackSampler:
    """Samples of one stack each, uint8 [stack_size, H, W, 3], from blocks of any length.

    keep_look_ahead: hand out the whole window, uint8 [window, H, W, 3] (optical flow).
    prepare: applied to the frames of a block, uint8 [T, H, W, 3], before they are gathered.

    Holds one window of frames, never the video. A sample's span runs from its first frame to the
    end of its last real one: a repeated tail ends with the video, and the look-ahead is not
    counted.
    """

    def __init__(
        self,
        rule: StackRule,
        *,
        keep_look_ahead: bool = False,
        prepare: Callable[[Frames], Frames] | None = None,
    ) -> None:
        self._rule = rule
        self._num_kept = rule.window if keep_look_ahead else rule.stack_size
        self._prepare = prepare
        self._frames: Frames = np.empty((0, 0, 0, 3), np.uint8)
        self._spans: list[tuple[float, float]] = []
        self._num_frames = 0

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, FrameBlock):
            raise TypeError(f"expected frames, got {type(block).__name__}")
        frames = block.frames if self._prepare is None else self._prepare(block.frames)
        window = self._rule.window
        if not len(self._frames):
            self._frames = np.empty((window, *frames.shape[1:]), np.uint8)
        samples: list[Sample] = []
        start = 0
        while start < len(frames):
            filled = len(self._spans)
            count = min(window - filled, len(frames) - start)
            self._frames[filled : filled + count] = frames[start : start + count]
            self._spans += map(_as_span, block.spans[start : start + count])
            start += count
            if len(self._spans) == window:
                samples.append(self._cut())
        self._num_frames += len(frames)
        return samples

    def finish(self) -> Sequence[Sample]:
        left = len(self._spans)
        if not left or not self._rule.is_tail_kept(self._num_frames):
            return []
        cycled = self._frames[np.arange(self._num_kept) % left]  # (num_kept, H, W, 3)
        return [Sample(cycled, self._span())]

    def _cut(self) -> Sample:
        sample = Sample(self._frames[: self._num_kept], self._span())
        # The sample keeps its array; the frames that the next stack begins with are copied.
        following: Frames = np.empty_like(self._frames)
        overlap = self._rule.window - self._rule.step_size
        following[:overlap] = self._frames[self._rule.step_size :]
        self._frames = following
        del self._spans[: self._rule.step_size]
        return sample

    def _span(self) -> tuple[float, float]:
        last = min(self._rule.stack_size, len(self._spans)) - 1
        return self._spans[0][0], self._spans[last][1]


def _as_span(pair: npt.NDArray[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])
