"""I3D features of RGB frames: a row for every 64 frames at 25 a second.

Paper: Quo Vadis, Action Recognition? (Carreira and Zisserman, 2017). Original code of the
features: v-iashin/video_features, branch `bmt` (BMT, MDVC) and its HEAD. Network, parameters and
checkpoint layouts: `networks/i3d.py`; which frames make a row: `inputs/stacks.py`.

Data flow: frames at 25 fps, shorter edge 256, centre crop 224 (cut at the floor) -> stacks
(B, 64, 224, 224, 3) uint8, which count as full when a 65th frame exists -> 2 x / 255 - 1,
(B, 3, 64, 224, 224) -> `pooled` (B, 1024), `mixed_5c` (B, 1024, 8, 7, 7).

`pooled` is what BMT stores as NAME_rgb.npy; MDVC's rows are stack_size=24, step_size=24. CiSIN
pools `mixed_5c` over tracks: step j of a row stands for its frames 8 j to 8 j + 7, a cell for 32
pixels of the crop, or with whole_frame=true for a seventh of each edge of the picture.

Differs from the bmt branch: frames are scaled by Pillow in memory, as in HEAD, where that branch
used ffmpeg's bicubic filter and JPEG files in between.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Names, Output
from vlpipe.extractors.inputs.stacks import StackConfig, StackSampler
from vlpipe.extractors.media import FrameRequest, MediaInfo, MediaRequest, Resize
from vlpipe.extractors.networks.i3d import (
    MIN_FRAMES,
    WIDTH,
    I3dNetwork,
    i3d_checkpoints,
    mixed_5c_shape,
)
from vlpipe.extractors.networks.i3d_inference import inference_form
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Sampler
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint


class I3dRgbConfig(StackConfig):
    """Which frames make a row, how they are scaled, and which layers are kept.

    fps: frames a second; None keeps every frame of the source.
    stack_size, step_size: frames of a row, and from the first of one row to that of the next.
    tail: `cycle` is the rule of BMT's features, `drop` that of video_features today.
    resize, crop: pixels of the shorter edge, then of a centred square.
    whole_frame: scale the whole picture to crop x crop instead, so that no part of it is cut off.
    eps: of BatchNorm, 1e-5 in BMT and video_features, 1e-3 in TensorFlow and piergiaj's port.
    outputs: `pooled` is the feature `i3d_rgb`, `mixed_5c` is `i3d_rgb_mixed_5c`.
    """

    stack_size: int = Field(default=64, ge=MIN_FRAMES)
    resize: PositiveInt = 256
    crop: int = Field(default=224, ge=32)
    whole_frame: bool = False
    eps: float = Field(default=1e-5, gt=0)
    outputs: Names[Literal["pooled", "mixed_5c"]] = Field(default=("pooled",), min_length=1)


@register("i3d_rgb")
class I3dRgb(Extractor):
    """Features of RGB stacks, (rows, 1024), and the map that they are pooled from."""

    version: ClassVar[int] = 2
    Config: ClassVar[type[ExtractorConfig]] = I3dRgbConfig
    # 10 MB of frames and 0.2 GB of activations: a stack alone fills the arithmetic units, and a
    # larger batch is filled up with copies where a video has few of them.
    batch_size = 1
    gpu_batch_size: ClassVar[int | None] = 4
    gflop_per_sample: ClassVar[float] = 222.0
    description: ClassVar[str] = "I3D (RGB): a 1024-d row every 64 frames at 25 fps, as in BMT"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {"i3d_rgb": i3d_checkpoints("rgb")}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        settings = cast(I3dRgbConfig, config)
        if settings.whole_frame:
            edge = settings.crop
            return FrameRequest(fps=settings.fps, resize=Resize(size=(edge, edge)))
        return FrameRequest(
            fps=settings.fps,
            resize=Resize(shorter_edge=settings.resize),
            center_crop=settings.crop,
            crop_rounding="floor",
        )

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(I3dRgbConfig, config)
        map_shape = mixed_5c_shape(settings.stack_size, settings.crop)
        declared = {
            "pooled": Output(cls.name, "pooled", (WIDTH,), ("channel",)),
            "mixed_5c": Output(
                f"{cls.name}_mixed_5c", "mixed_5c", map_shape, ("channel", "step", "y", "x")
            ),
        }
        return tuple(declared[name] for name in settings.outputs)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        return super().samples_per_second(config) / cast(I3dRgbConfig, config).step_size

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        return I3dNetwork(3, eps=cast(I3dRgbConfig, config).eps)

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        cast(I3dNetwork, network).initialise_untrained()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        cast(I3dNetwork, network).load(checkpoints["i3d_rgb"], what="I3D for RGB frames")

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        return StackSampler(cast(I3dRgbConfig, self.spec.config).stack_rule())

    def inference_form(self) -> nn.Module:
        return inference_form(cast(I3dNetwork, self.network), self.spec)

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        frames = torch.from_numpy(samples).to(self.device)  # (B, T, H, W, 3) uint8
        return scale_to_unit(frames)  # (B, 3, T, H, W)


def scale_to_unit(frames: Tensor) -> Tensor:
    """float32 (B, 3, T, H, W) in [-1, 1], 2 x / 255 - 1, from uint8 (B, T, H, W, 3) RGB."""
    x = frames.permute(0, 4, 1, 2, 3).float()  # (B, 3, T, H, W)
    return x.mul_(2).div_(255).sub_(1)
