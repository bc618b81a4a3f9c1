"""Samples: what one input of a network is, and how the stream of a video is cut into them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vlpipe.extractors.media import AudioBlock, FrameBlock


@dataclass(frozen=True, slots=True)
class Sample:
    """One input of the network, without batch axis, and the span [start_s, end_s) it describes.

    data: samples of equal shape share a batch. context: what else its extractor has to know of
    the sample, such as the boxes in a frame; it is not part of the batch.
    """

    data: npt.NDArray[Any]
    span: tuple[float, float]
    context: Any = None


@dataclass(frozen=True, slots=True)
class SourceRows:
    """What another extractor made of one of its samples of the same video; R may be 0.

    source: the role under which the reader declared that extractor (`Extractor.sources`).
    rows: by key of the output, [R, *row_shape], before they are rounded to the store's dtype.
    spans: float64 [R, 2] seconds. span: of the sample that they were made of.
    """

    source: str
    rows: Mapping[str, npt.NDArray[Any]]
    spans: npt.NDArray[np.float64]
    span: tuple[float, float]


Block = FrameBlock | AudioBlock | SourceRows


class Sampler(Protocol):
    """Cuts the stream of one video into samples.

    Blocks of one kind come in order and each once. A reader that makes the same media request as
    its source gets frames before the rows that were made of them, and the rows later by as much
    as the source's batches take to fill up.
    """

    def push(self, block: Block) -> Sequence[Sample]:
        """The samples that this block completes."""
        ...

    def finish(self) -> Sequence[Sample]:
        """The samples that the end of the stream, and of all sources, completes."""
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
