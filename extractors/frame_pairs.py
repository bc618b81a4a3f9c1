"""Optical flow as a feature: which pairs of frames are compared, and at what size.

Shared by the extractors that store flow itself (`pwc`, `raft`). A row is the flow from one frame to
the next, (2, H, W), u (x, to the right) before v (y, down), in pixels of the resized frames; it
lasts from the time of the first frame to that of the second. N frames make N - 1 rows.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Output
from vlpipe.extractors.media import FrameBlock, FrameRequest, MediaInfo, MediaRequest, Resize
from vlpipe.extractors.samples import Block, Sample, Sampler


class FlowConfig(ExtractorConfig):
    """Which frames are compared, and their size.

    fps: frames a second; None compares all neighbours of the source. A frame that is repeated to
        reach the rate gives zero flow.
    size: (height, width) that every frame is brought to, without regard to its aspect, since the
        rows of a feature have one shape in a store. A row of 256x256 takes 256 KiB in float16.
        `i3d_flow` does not read these rows: it computes flow in the aspect of the video.
    """

    fps: float | None = Field(default=25.0, gt=0)
    size: tuple[PositiveInt, PositiveInt] = (256, 256)


class PairSampler:
    """One sample a pair of neighbouring frames: uint8 [2, H, W, 3], from blocks of any length."""

    def __init__(self) -> None:
        self._last: tuple[npt.NDArray[np.uint8], float] | None = None

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, FrameBlock):
            raise TypeError(f"expected frames, got {type(block).__name__}")
        samples = []
        for frame, (start_s, _) in zip(block.frames, block.spans, strict=True):
            if self._last is not None:
                first, first_s = self._last
                samples.append(Sample(np.stack([first, frame]), (first_s, float(start_s))))
            self._last = (frame, float(start_s))
        return samples

    def finish(self) -> Sequence[Sample]:
        return []


class FlowExtractor(Extractor):
    """An extractor whose network takes pairs of RGB frames (B, 2, 3, H, W) and returns `flow`."""

    Config: ClassVar[type[ExtractorConfig]] = FlowConfig
    # Enough to fill a processor; the correlations of RAFT grow with the square of the pixels.
    batch_size = 4

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        settings = cast(FlowConfig, config)
        return FrameRequest(fps=settings.fps, resize=Resize(size=settings.size))

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(FlowConfig, config)
        return (Output(cls.name, "flow", (2, *settings.size), ("uv", "y", "x")),)

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        return PairSampler()

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        pairs = torch.from_numpy(samples).to(self.device)  # (B, 2, H, W, 3) uint8
        return pairs.permute(0, 1, 4, 2, 3)  # (B, 2, 3, H, W)


class OfPairs(nn.Module):
    """(B, 2, 3, H, W) pairs -> what a network of (first, second) returns for them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return cast(dict[str, Tensor], self.network(x[:, 0], x[:, 1]))
