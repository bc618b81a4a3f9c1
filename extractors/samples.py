"""Samples: what one input of a network is, and how the stream of a video is cut into them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from vlpipe.extractors.media import AudioBlock, FrameBlock

Block = FrameBlock | AudioBlock


@dataclass(frozen=True, slots=True)
class Sample:
    """One input of the network, without batch axis, and the span [start_s, end_s) it describes."""

    data: npt.NDArray[Any]
    span: tuple[float, float]


class Sampler(Protocol):
    """Cuts the stream of one video into samples; blocks come in order and each once."""

    def push(self, block: Block) -> Sequence[Sample]:
        """The samples that this block completes."""
        ...

    def finish(self) -> Sequence[Sample]:
        """The samples that the end of the stream completes."""
        ...


class FrameSampler:
    """One sample a frame: uint8 [H, W, 3] RGB with the frame's own span."""

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, FrameBlock):
            raise TypeError(f"expected frames, got {type(block).__name__}")
        return [
            Sample(frame, (float(start), float(end)))
            for frame, (start, end) in zip(block.frames, block.spans, strict=True)
        ]

    def finish(self) -> Sequence[Sample]:
        return []
