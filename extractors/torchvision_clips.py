"""Clip features of torchvision's video networks: R(2+1)D, R3D, MC3 and S3D.

Papers: A Closer Look at Spatiotemporal Convolutions for Action Recognition (Tran et al., 2018)
for the three residual networks of 18 layers, Rethinking Spatiotemporal Feature Learning (Xie et
al., 2018) for S3D. Code: torchvision. Checkpoint layout: torchvision's (`stem.0.weight`, ...,
`fc.bias`; `features.0.0.0.weight`, ..., `classifier.1.bias`), with or without
`num_batches_tracked`, 400 classes. Parameters: r2plus1d_18 31.5 million, r3d_18 33.4, mc3_18
11.7, s3d 8.3.

Data flow: frames at 15 fps -> scaled to 128x171 (s3d: 256x256), centre crop 112 (224) -> clips
(B, 16, 112, 112, 3) uint8 (s3d: 128 frames) -> x/255, minus mean, by standard deviation,
(B, 3, T, H, W) -> last map (B, 512, T/8, H/16, W/16), of mc3_18 with all T steps, of s3d
(B, 1024, T/8, H/32, W/32) -> `pooled` (B, 512) or (B, 1024) -> `logits` (B, 400).

Rate and length of clips are those of torchvision's evaluation. Frames are scaled by torchvision's
own function without antialiasing, which its presets keep since the weights were trained so; the
decoder only scales with it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.video import S3D, VideoResNet
from torchvision.models.video.resnet import BasicBlock
from torchvision.transforms.functional import center_crop, resize

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Names, Output
from vlpipe.extractors.inputs.stacks import Frames, StackConfig, StackSampler
from vlpipe.extractors.media import FrameRequest, MediaInfo, MediaRequest
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Sampler
from vlpipe.extractors.torchvision_checkpoints import torchvision_checkpoints
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

# Mean and standard deviation of Kinetics-400's training frames, as in torchvision's presets (RGB).
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)
KINETICS_CLASSES = 400


class ClipConfig(StackConfig):
    """Which frames make a clip, how they are scaled, and which layers are kept.

    fps: frames a second; None keeps every frame of the source.
    stack_size, step_size: frames of a clip, and from the first of one clip to that of the next.
    tail: `cycle` repeats what is left at the end, from a fifth of a clip on, until a clip is full,
        and any video that is shorter than a clip; `drop` drops it.
    resize, crop: (height, width) or pixels of the shorter edge, then of a centred square.
    outputs: `pooled` is the feature of the extractor's own name, `logits` that name and `_logits`.
    """

    fps: float | None = Field(default=15.0, gt=0)
    stack_size: int = Field(default=16, ge=2)
    step_size: PositiveInt = 16
    resize: PositiveInt | tuple[PositiveInt, PositiveInt] = (128, 171)
    crop: PositiveInt = 112
    outputs: Names[Literal["pooled", "logits"]] = Field(default=("pooled",), min_length=1)


class S3dConfig(ClipConfig):
    """As ClipConfig, with S3D's clips of 128 frames of 224x224; 14 are the fewest it takes."""

    stack_size: int = Field(default=128, ge=14)
    step_size: PositiveInt = 128
    resize: PositiveInt | tuple[PositiveInt, PositiveInt] = (256, 256)
    crop: PositiveInt = 224


class VideoResNetFeatures(nn.Module):
    """(B, 3, T, H, W) normalised clips -> dict of `pooled` (B, 512) and `logits` (B, 400)."""

    def __init__(self, body: VideoResNet) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        net = self.body
        x = net.layer4(net.layer3(net.layer2(net.layer1(net.stem(x)))))  # (B, 512, T/8, 7, 7)
        pooled = net.avgpool(x).flatten(1)  # (B, 512)
        return {"pooled": pooled, "logits": net.fc(pooled)}


class S3dFeatures(nn.Module):
    """(B, 3, T, H, W) normalised clips -> dict of `pooled` (B, 1024) and `logits` (B, 400)."""

    def __init__(self, body: S3D) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body.features(x)  # (B, 1024, T/8, H/32, W/32)
        # torchvision's window is 2x7x7; smaller frames than 224x224 have no such map.
        height, width = (min(7, cells) for cells in x.shape[-2:])
        x = F.avg_pool3d(x, (2, height, width), stride=1)  # (B, 1024, T/8 - 1, 1, 1)
        # The head is linear, so that its mean over windows is the head of their mean.
        logits = self.body.classifier(x).mean(dim=(2, 3, 4))  # (B, 400)
        return {"pooled": x.mean(dim=(2, 3, 4)), "logits": logits}


class ClipExtractor(Extractor):
    """Clip features of one torchvision video network."""

    version: ClassVar[int] = 1
    folds_norms: ClassVar[bool] = True
    Config: ClassVar[type[ExtractorConfig]] = ClipConfig
    architecture: ClassVar[str]
    width: ClassVar[int]
    gpu_batch_size: ClassVar[int | None] = 16

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {cls.architecture: torchvision_checkpoints(cls.architecture)}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        return FrameRequest(fps=cast(ClipConfig, config).fps)

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        declared = {
            "pooled": Output(cls.name, "pooled", (cls.width,), ("channel",)),
            "logits": Output(f"{cls.name}_logits", "logits", (KINETICS_CLASSES,), ("class",)),
        }
        return tuple(declared[name] for name in cast(ClipConfig, config).outputs)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        return super().samples_per_second(config) / cast(ClipConfig, config).step_size

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        del config
        body = get_model(cls.architecture, weights=None)
        return S3dFeatures(body) if isinstance(body, S3D) else VideoResNetFeatures(body)

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        # PyTorch's own initial weights, which S3D keeps, shrink the signal layer by layer to
        # nothing; residual branches add up, so that each is scaled by 1/sqrt(branches).
        for layer in network.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        blocks = [block for block in network.modules() if isinstance(block, BasicBlock)]
        for block in blocks:
            nn.init.constant_(block.conv2[-1].weight, len(blocks) ** -0.5)

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        body = cast(VideoResNetFeatures | S3dFeatures, network).body
        checkpoints[cls.architecture].load_into(body, what=f"torchvision {cls.architecture}")

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        settings = cast(ClipConfig, self.spec.config)
        return StackSampler(settings.stack_rule(look_ahead=0), prepare=self._scale)

    def _scale(self, frames: Frames) -> Frames:
        """uint8 [T, crop, crop, 3] from uint8 [T, H, W, 3], by torchvision's own functions."""
        settings = cast(ClipConfig, self.spec.config)
        size = [settings.resize] if isinstance(settings.resize, int) else list(settings.resize)
        x = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, 3, H, W) uint8
        x = center_crop(resize(x, size, antialias=False), [settings.crop, settings.crop])
        return cast(Frames, np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy()))

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        clips = torch.from_numpy(samples).to(self.device)  # (B, T, H, W, 3) uint8
        x = clips.permute(0, 4, 1, 2, 3).float().div_(255)  # (B, 3, T, H, W)
        mean = x.new_tensor(KINETICS_MEAN).view(3, 1, 1, 1)
        std = x.new_tensor(KINETICS_STD).view(3, 1, 1, 1)
        return x.sub_(mean).div_(std)


# Architecture: configuration, width of the last stage, samples of a batch (at most 0.1 GB of
# frames and 2 GB of activations), GFLOP a clip, which is counted as multiply and add.
_ARCHITECTURES: dict[str, tuple[type[ClipConfig], int, int, float, str]] = {
    "r2plus1d_18": (ClipConfig, 512, 4, 81.0, "16 frames at 15 fps"),
    "r3d_18": (ClipConfig, 512, 4, 81.4, "16 frames at 15 fps"),
    "mc3_18": (ClipConfig, 512, 4, 86.7, "16 frames at 15 fps"),
    "s3d": (S3dConfig, 1024, 2, 287.7, "128 frames at 15 fps"),
}

for _architecture, (_config, _width, _batch_size, _gflop, _clip) in _ARCHITECTURES.items():
    register(_architecture)(
        type(
            f"{_architecture.title().replace('_', '')}Extractor",
            (ClipExtractor,),
            {
                "architecture": _architecture,
                "Config": _config,
                "width": _width,
                "batch_size": _batch_size,
                "gflop_per_sample": _gflop,
                "description": f"torchvision {_architecture}: a {_width}-d row per {_clip}",
                "__doc__": f"Clip features of torchvision's {_architecture}.",
            },
        )
    )
