"""Windows and views: which frames of a video make the clips of a network that reads few of them.

A *window* is a stretch of seconds; one starts every stride, and some of its frames make the clip.
*Views* are a fixed number of clips of a whole video, as in evaluations on short videos of one
action. Which frames are chosen follows the published code, rounding included.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from vlpipe.extractors.media import FrameBlock
from vlpipe.extractors.samples import Block, Sample

Frames = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Spread = Literal["ends", "segments"]
WindowTail = Literal["keep", "drop"]

# Time stamps are multiples of a file's time base, rounded; a frame on a border begins the window.
TOLERANCE_S = 1e-6


def spread_over_ends(num_frames: int, size: int) -> Indices:
    """int64 [size]: evenly from the first frame to the last, rounded down (PyTorchVideo)."""
    return spread_over_span(0, num_frames, num_frames, size)


def spread_over_span(start: float, span: float, num_frames: int, size: int) -> Indices:
    """int64 [size]: evenly from `start` to `start + span - 1`, kept within the video (SVT)."""
    # In float32, as published: the rounding errors decide which frame it is.
    places = torch.linspace(start, start + span - 1, size).clamp(0, num_frames - 1)
    return places.long().numpy()


def spread_over_segments(num_frames: int, size: int, view: int = 0, num_views: int = 1) -> Indices:
    """int64 [size]: one of each of `size` equal segments, near its middle if there is one view.

    VideoMamba: round(s i) + floor(s (view + 1) / (num_views + 1)), s = (num_frames - 1) / size.
    """
    segment = (num_frames - 1) / size
    offset = int(segment / (num_views + 1) * (view + 1))
    places = np.round(segment * np.arange(size)).astype(np.int64) + offset
    return np.minimum(places, num_frames - 1)


@dataclass(frozen=True, slots=True)
class WindowRule:
    """Windows [k stride_s, k stride_s + window_s) from the start of the file, and their frames.

    size: frames of a clip. A window has the frames that begin in it; where there are fewer than
    `size`, some stand several times, and a window without any makes no clip. The last windows end
    with the video; tail `drop` leaves out those that are cut short so, unless there is no other.
    """

    window_s: float
    stride_s: float
    size: int
    spread: Spread = "ends"
    tail: WindowTail = "keep"

    def __post_init__(self) -> None:
        if not 0 < self.stride_s <= self.window_s:
            raise ValueError(
                f"stride_s is {self.stride_s}; expected more than 0 and at most window_s, "
                f"{self.window_s}"
            )

    def choose(self, num_frames: int) -> Indices:
        """int64 [size], which of the frames of a window make its clip."""
        spread = spread_over_ends if self.spread == "ends" else spread_over_segments
        return spread(num_frames, self.size)


class WindowSampler:
    """Clips of a rule's windows, [size, ...] of what `prepare` makes of frames.

    prepare: from uint8 [T, H, W, 3] RGB to an array of T frames.

    A sample's span is its window, cut at the end of the video. Holds the frames of one window.
    """

    def __init__(self, rule: WindowRule, prepare: Callable[[Frames], Frames]) -> None:
        self._rule = rule
        self._prepare = prepare
        self._frames: deque[tuple[float, Frames]] = deque()
        self._next = 0
        self._end_s = 0.0
        self._has_clips = False

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, FrameBlock):
            raise TypeError(f"expected frames, got {type(block).__name__}")
        samples: list[Sample] = []
        for frame, (start, end) in zip(self._prepare(block.frames), block.spans, strict=True):
            while self._frames and self._window_end() <= start + TOLERANCE_S:
                samples += self._cut(self._window_end())
            if not self._frames:
                # The first window that reaches beyond this frame's start.
                behind = (start + TOLERANCE_S - self._rule.window_s) / self._rule.stride_s
                self._next = max(self._next, math.floor(behind) + 1)
            self._frames.append((float(start), frame))
            self._end_s = max(self._end_s, float(end))
        return samples

    def finish(self) -> Sequence[Sample]:
        samples: list[Sample] = []
        while self._frames:
            is_whole = self._window_end() <= self._end_s + TOLERANCE_S
            if self._rule.tail == "drop" and not is_whole and self._has_clips:
                break
            samples += self._cut(min(self._window_end(), self._end_s))
        return samples

    def _window_end(self) -> float:
        return self._next * self._rule.stride_s + self._rule.window_s

    def _cut(self, end_s: float) -> list[Sample]:
        """The clip of the next window, none if it has no frames; goes on to the one after."""
        start_s = self._next * self._rule.stride_s
        limit = self._window_end() - TOLERANCE_S
        inside = [frame for start, frame in self._frames if start < limit]
        self._next += 1
        following = self._next * self._rule.stride_s - TOLERANCE_S
        while self._frames and self._frames[0][0] < following:
            self._frames.popleft()
        if not inside:
            return []
        self._has_clips = True
        clip = np.stack([inside[index] for index in self._rule.choose(len(inside))])
        return [Sample(clip, (start_s, end_s))]


class ViewSampler:
    """Clips of a whole video, [size, ...] of what `prepare` makes of frames.

    views: int64 [size] each, indices of frames in rising order.
    prepare: from uint8 [T, H, W, 3] RGB to an array of T frames.

    The last frame stands for those that the file promises and does not hold. A sample's span goes
    from its first frame to the end of its last one. Holds the chosen frames alone.
    """

    def __init__(self, views: Sequence[Indices], prepare: Callable[[Frames], Frames]) -> None:
        self._views = views
        self._prepare = prepare
        self._wanted = {int(index) for view in views for index in view}
        self._held: dict[int, tuple[Frames, tuple[float, float]]] = {}
        self._last: tuple[Frames, tuple[float, float]] | None = None
        self._num_frames = 0

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, FrameBlock):
            raise TypeError(f"expected frames, got {type(block).__name__}")
        for frame, (start, end) in zip(block.frames, block.spans, strict=True):
            span = (float(start), float(end))
            if self._num_frames in self._wanted:
                self._held[self._num_frames] = (self._prepare(frame[None])[0], span)
            self._num_frames += 1
        self._last = (block.frames[-1:].copy(), span)
        return []

    def finish(self) -> Sequence[Sample]:
        if self._last is None:
            return []
        if any(index >= self._num_frames for index in self._wanted):
            frame, span = self._last
            self._held[self._num_frames - 1] = (self._prepare(frame)[0], span)
        samples = []
        for view in self._views:
            chosen = [self._held[min(int(index), self._num_frames - 1)] for index in view]
            clip = np.stack([frame for frame, _ in chosen])
            samples.append(Sample(clip, (chosen[0][1][0], chosen[-1][1][1])))
        return samples
