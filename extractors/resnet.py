"""Frame features of torchvision's residual networks.

Papers: Deep Residual Learning (He et al., 2016), Aggregated Residual Transformations (Xie et al.,
2017), Wide Residual Networks (Zagoruyko and Komodakis, 2016). Code: torchvision.
Checkpoint layout: torchvision's (`conv1.weight`, `layer1.0.conv1.weight`, ..., `fc.bias`), with
or without `num_batches_tracked`.

Data flow: frames (B, H, W, 3) uint8, resized and cropped by the decoder -> x/255, minus mean, by
standard deviation, (B, 3, 224, 224) -> stages -> `res5c` (B, D, 7, 7), the last feature map ->
`pool5` (B, D), its mean -> `logits` (B, 1000). D is 2048, in resnet18 and resnet34 512. The maps
of earlier stages have the names of the paper's table 1, `conv2_x` to `conv4_x`, and are averaged
to the 7x7 cells of the last: (B, D/8, 7, 7), (B, D/4, 7, 7), (B, D/2, 7, 7).
ResNet-152 has 60.2 million parameters. `pool5` is what JSFusion and MASN read, `res5c` CT-SAN and
TGIF-QA. The Caffe models of the older papers (BGR, mean only, stride in the 1x1) give other
numbers than these.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Names, Output
from vlpipe.extractors.inputs.frame_normalisation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    normalise_frames,
)
from vlpipe.extractors.inputs.frame_steps import StepSampler
from vlpipe.extractors.media import FrameRequest, MediaInfo, MediaRequest, Resize
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Sampler
from vlpipe.extractors.torchvision_checkpoints import torchvision_checkpoints
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

STAGES = ("conv2_x", "conv3_x", "conv4_x", "res5c")


class ResNetConfig(ExtractorConfig):
    """Which frames, how they are scaled, and which layers are kept.

    fps: frames a second of the sampled stream; None keeps every frame of the source, as the
        published TGIF-QA features do.
    max_frames: at most so many, equidistant (JSFusion and CT-SAN: 40).
    frame_step: of those, every so many from the first on (MASN: 4 at fps=6).
    resize: pixels of the shorter edge (256 with IMAGENET1K_V1, 232 with V2), then a centre crop.
    whole_frame: scale the whole picture to crop x crop instead, so that no part of it is cut off.
    outputs: `pool5` is the feature of the extractor's own name, any other that name and `_res5c`.
    """

    fps: float | None = Field(default=None, gt=0)
    max_frames: PositiveInt | None = None
    frame_step: PositiveInt = 1
    resize: PositiveInt = 256
    crop: PositiveInt = 224
    whole_frame: bool = False
    outputs: Names[Literal["pool5", "res5c", "conv2_x", "conv3_x", "conv4_x"]] = Field(
        default=("pool5",), min_length=1
    )

    @model_serializer(mode="wrap")
    def _keep_provenance(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Rows that were stored before there was a setting are those of its default.
        fields: dict[str, Any] = dump(self)
        for name in ("frame_step", "whole_frame"):
            if getattr(self, name) == type(self).model_fields[name].default:
                fields.pop(name, None)
        return fields


class ResNetFeatures(nn.Module):
    """(B, 3, H, W) normalised frames -> dict of the file's outputs, see its top.

    last: the stage to end with, `res5c` or an earlier one; outputs behind it are not made.
    """

    def __init__(self, resnet: ResNet, last: str = "res5c") -> None:
        super().__init__()
        self.resnet = resnet
        self.last = last

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        net = self.resnet
        cells = (-(-x.shape[2] // 32), -(-x.shape[3] // 32))
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))  # (B, 64, H/4, W/4)
        made: dict[str, Tensor] = {}
        for name, stage in zip(
            STAGES, (net.layer1, net.layer2, net.layer3, net.layer4), strict=True
        ):
            x = stage(x)  # (B, D/8, H/4, W/4), ..., (B, D, H/32, W/32)
            made[name] = F.adaptive_avg_pool2d(x, cells) if name != "res5c" else x
            if name == self.last:
                break
        if self.last == "res5c":
            made["pool5"] = net.avgpool(x).flatten(1)  # (B, D)
            made["logits"] = net.fc(made["pool5"])
        return made


class ResNetExtractor(Extractor):
    """Frame features of one torchvision residual network."""

    version: ClassVar[int] = 2
    folds_norms: ClassVar[bool] = True
    gpu_batch_size: ClassVar[int | None] = 128
    Config: ClassVar[type[ExtractorConfig]] = ResNetConfig
    # A fifth faster on CPUs than with channels first; the rows differ by rounding.
    memory_format: ClassVar[torch.memory_format] = torch.channels_last
    architecture: ClassVar[str]
    width: ClassVar[int]

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {cls.architecture: torchvision_checkpoints(cls.architecture)}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        settings = cast(ResNetConfig, config)
        if settings.whole_frame:
            resize, crop = Resize(size=(settings.crop, settings.crop)), None
        else:
            resize, crop = Resize(shorter_edge=settings.resize), settings.crop
        return FrameRequest(
            fps=settings.fps,
            max_frames=settings.max_frames,
            resize=resize,
            center_crop=crop,
            crop_rounding="round",
        )

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(ResNetConfig, config)
        cells = -(-settings.crop // 32)
        declared = {
            stage: Output(
                f"{cls.name}_{stage}",
                stage,
                (cls.width // 2 ** (len(STAGES) - number), cells, cells),
                ("channel", "y", "x"),
            )
            for number, stage in enumerate(STAGES, start=1)
        }
        declared["pool5"] = Output(cls.name, "pool5", (cls.width,), ("channel",))
        return tuple(declared[name] for name in settings.outputs)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        return super().samples_per_second(config) / cast(ResNetConfig, config).frame_step

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        wanted = cast(ResNetConfig, config).outputs
        earlier = [stage for stage in STAGES[:-1] if stage in wanted]
        last = earlier[-1] if set(earlier) == set(wanted) else "res5c"
        return ResNetFeatures(get_model(cls.architecture, weights=None), last)

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        # Without statistics every block doubles the variance of its input: 50 blocks overflow
        # float16. Scaling each branch by 1/sqrt(blocks) keeps the growth below e.
        branches = [
            block.bn3 if isinstance(block, Bottleneck) else block.bn2
            for block in network.modules()
            if isinstance(block, Bottleneck | BasicBlock)
        ]
        for norm in branches:
            nn.init.constant_(norm.weight, len(branches) ** -0.5)

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        resnet = cast(ResNetFeatures, network).resnet
        checkpoints[cls.architecture].load_into(resnet, what=f"torchvision {cls.architecture}")

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        return StepSampler(cast(ResNetConfig, self.spec.config).frame_step)

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        frames = torch.from_numpy(samples).to(self.device)  # (B, H, W, 3) uint8
        return normalise_frames(frames, IMAGENET_MEAN, IMAGENET_STD)  # (B, 3, H, W)


# Architecture: width of the last stage, GFLOP a frame of 224x224 (torchvision's table, times two).
_ARCHITECTURES = {
    "resnet18": (512, 3.6),
    "resnet34": (512, 7.3),
    "resnet50": (2048, 8.2),
    "resnet101": (2048, 15.6),
    "resnet152": (2048, 23.0),
    "resnext50_32x4d": (2048, 8.5),
    "resnext101_32x8d": (2048, 32.8),
    "resnext101_64x4d": (2048, 30.9),
    "wide_resnet50_2": (2048, 22.8),
    "wide_resnet101_2": (2048, 45.5),
}

for _architecture, (_width, _gflop) in _ARCHITECTURES.items():
    register(_architecture)(
        type(
            f"{_architecture.title().replace('_', '')}Extractor",
            (ResNetExtractor,),
            {
                "architecture": _architecture,
                "width": _width,
                "gflop_per_sample": _gflop,
                "description": f"torchvision {_architecture}: a row per frame, pool5 {_width}-d",
                "__doc__": f"Frame features of torchvision's {_architecture}.",
            },
        )
    )
