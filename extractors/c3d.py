"""C3D features of clips of 16 frames around chosen frames.

Paper: Learning Spatiotemporal Features with 3D Convolutional Networks (Tran et al., 2015). Code:
facebook/C3D (Caffe). Network and checkpoint layouts: `networks/c3d.py`.

Data flow: frames scaled to 112x112 -> clips (B, 16, 112, 112, 3) uint8 -> BGR minus a mean,
(B, 3, 16, 112, 112) -> `conv5b` (B, 1024, 7, 7), `fc6` (B, 4096).

The defaults are those of GEAN: every fifth frame from the sixteenth on, each with the 15 frames
before it, scaled without regard to the aspect and not cropped. TGIF-QA's features are
align=centre, anchor_step=1: every frame with the 8 before and the 7 after it, where the first
frame stands in for those before the video and the last one for those after it. That paper repeats
the last frame of a GIF until there are 16; here a short one has a row for each of its own frames.

The Caffe model subtracts a mean for each pixel and frame, which its ports replace by one for each
channel, as here; the PyTorch port of DavideA subtracts none and leaves the channels as RGB.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Names, Output
from vlpipe.extractors.media import FrameBlock, FrameRequest, MediaInfo, MediaRequest, Resize
from vlpipe.extractors.networks.c3d import (
    CELL_PX,
    CONV5B_CHANNELS,
    EDGE_PX,
    NUM_FRAMES,
    WIDTH,
    C3dNetwork,
    Pool5,
)
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

Align = Literal["past", "centre"]

# Frames of a clip before its anchor frame.
_NUM_BEFORE: dict[Align, int] = {"past": NUM_FRAMES - 1, "centre": NUM_FRAMES // 2}


class C3dConfig(ExtractorConfig):
    """Which clips, how frames become input, and which layers are kept.

    fps: frames a second; None keeps every frame of the source.
    align, anchor_step: `past` is a clip that ends at every anchor_step-th frame from the first
        with 15 before it; `centre` one around every anchor_step-th frame from the first frame,
        with the first and last frame repeated beyond the ends.
    resize, crop: (height, width) that frames are scaled to, or pixels of the shorter edge; then of
        a centred square, which for fc6 has to be 112.
    channels, mean: order of the channels, and what is subtracted from red, green and blue.
    pool5: `caffe` or `ports`, see `networks/c3d.py`; it changes fc6 alone.
    outputs: `fc6` is the feature `c3d`, `conv5b` is `c3d_conv5b`.
    """

    fps: float | None = Field(default=None, gt=0)
    align: Align = "past"
    anchor_step: PositiveInt = 5
    resize: PositiveInt | tuple[PositiveInt, PositiveInt] = (EDGE_PX, EDGE_PX)
    crop: int = Field(default=EDGE_PX, ge=CELL_PX)
    channels: Literal["bgr", "rgb"] = "bgr"
    mean: tuple[float, float, float] = (102.0, 98.0, 90.0)
    pool5: Pool5 = "caffe"
    outputs: Names[Literal["fc6", "conv5b"]] = Field(default=("fc6",), min_length=1)

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        edge = self.resize if isinstance(self.resize, int) else min(self.resize)
        if self.crop > edge:
            raise ValueError(f"crop exceeds the shorter edge, resize={self.resize}")
        if "fc6" in self.outputs and self.crop != EDGE_PX:
            raise ValueError(f"fc6 takes frames of {EDGE_PX}x{EDGE_PX}; crop is {self.crop}")
        return self


class AnchorClipSampler:
    """A clip for every anchor frame, uint8 [16, H, W, 3], as `C3dConfig` says.

    Its span is that of the anchor frame. Holds one clip of frames, never the video.
    """

    def __init__(self, align: Align, step: int) -> None:
        self._align: Align = align
        self._before, self._step = _NUM_BEFORE[align], step
        self._frames: deque[npt.NDArray[np.uint8]] = deque(maxlen=NUM_FRAMES)
        self._spans: deque[tuple[float, float]] = deque(maxlen=NUM_FRAMES)
        self._num_frames = 0

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, FrameBlock):
            raise TypeError(f"expected frames, got {type(block).__name__}")
        samples: list[Sample] = []
        for frame, (start, end) in zip(block.frames, block.spans, strict=True):
            if not self._num_frames and self._align == "centre":
                self._frames.extend([frame] * self._before)
            self._frames.append(frame)
            self._spans.append((float(start), float(end)))
            self._num_frames += 1
            samples += self._cut(num_repeated=0)
        return samples

    def finish(self) -> Sequence[Sample]:
        samples: list[Sample] = []
        if self._align == "centre" and self._num_frames:
            for k in range(1, NUM_FRAMES - self._before):
                self._frames.append(self._frames[-1])
                samples += self._cut(num_repeated=k)
        return samples

    def _cut(self, num_repeated: int) -> list[Sample]:
        """The clip of the 16 frames at hand, of which so many repeat the last frame."""
        anchor = self._num_frames + num_repeated - NUM_FRAMES + self._before
        first = self._before if self._align == "past" else 0
        if anchor < first or (anchor - first) % self._step:
            return []
        span = self._spans[anchor - self._num_frames]
        return [Sample(np.stack(self._frames), span)]


@register("c3d")
class C3d(Extractor):
    """Features of clips of 16 frames, (rows, 4096), and the last map, (rows, 1024, 7, 7)."""

    version: ClassVar[int] = 1
    draw: ClassVar[int] = 2  # large layers once
    Config: ClassVar[type[ExtractorConfig]] = C3dConfig
    # 2.4 MB of frames and 0.6 GB of activations.
    batch_size = 4
    gpu_batch_size: ClassVar[int | None] = 16
    gflop_per_sample: ClassVar[float] = 77.1
    description: ClassVar[str] = "C3D: a 4096-d row per clip of 16 frames, for GEAN and TGIF-QA"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        mmaction = "https://download.openmmlab.com/mmaction/recognition/c3d"
        mmaction_file = "c3d_sports1m_pretrain_20201016-dcc47ddc.pth"
        return {
            "c3d": [
                PublishedCheckpoint(
                    "c3d_sports1m",
                    "c3d.pickle",
                    "https://imagelab.ing.unimore.it/files/c3d_pytorch/c3d.pickle",
                    "MIT",
                ),
                PublishedCheckpoint(
                    "c3d_sports1m_mmaction",
                    mmaction_file,
                    f"{mmaction}/{mmaction_file}",
                    "Apache-2.0",
                    sha256="dcc47ddc",
                    settings={"channels": "rgb", "mean": (104.0, 117.0, 128.0), "pool5": "ports"},
                ),
            ]
        }

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        settings = cast(C3dConfig, config)
        size = settings.resize
        return FrameRequest(
            fps=settings.fps,
            resize=Resize(shorter_edge=size) if isinstance(size, int) else Resize(size=size),
            center_crop=settings.crop,
            crop_rounding="round",
        )

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(C3dConfig, config)
        cells = settings.crop // CELL_PX
        map_shape = (CONV5B_CHANNELS, cells, cells)
        declared = {
            "fc6": Output(cls.name, "fc6", (WIDTH,), ("channel",)),
            "conv5b": Output(f"{cls.name}_conv5b", "conv5b", map_shape, ("channel", "y", "x")),
        }
        return tuple(declared[name] for name in settings.outputs)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        return super().samples_per_second(config) / cast(C3dConfig, config).anchor_step

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        return C3dNetwork(cast(C3dConfig, config).pool5)

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        cast(C3dNetwork, network).initialise_untrained()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        cast(C3dNetwork, network).load(checkpoints["c3d"])

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        settings = cast(C3dConfig, self.spec.config)
        return AnchorClipSampler(settings.align, settings.anchor_step)

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        settings = cast(C3dConfig, self.spec.config)
        clips = torch.from_numpy(samples).to(self.device)  # (B, 16, 112, 112, 3) uint8 RGB
        x = clips.permute(0, 4, 1, 2, 3).float()  # (B, 3, 16, 112, 112)
        x = x.sub_(x.new_tensor(settings.mean).view(3, 1, 1, 1))
        return x.flip(1) if settings.channels == "bgr" else x
