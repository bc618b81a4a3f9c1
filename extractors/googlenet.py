"""Frame features of GoogLeNet: objects (`googlenet`) and scenes (`googlenet_places`).

Paper: Going Deeper with Convolutions (Szegedy et al., 2015). Code: torchvision
(network=torchvision) and Caffe (network=caffe, see `googlenet_caffe.py`): two networks of one name,
whose checkpoints and numbers have nothing in common. Layout of torchvision: `conv1.conv.weight`,
`conv1.bn.bias`, ..., `inception5b.branch4.1.bn.weight`, ..., `fc.bias`, with or without
`num_batches_tracked` and with or without the heads of training, `aux1` and `aux2`. 6.6 million
parameters with 1000 classes.

Data flow: frames (B, H, W, 3) uint8, resized and cropped by the decoder -> torchvision: x / 255,
minus mean, by standard deviation, then brought to [-1, 1] as the weights of 2014 want it
(`transform_input`); Caffe: BGR minus a mean -> `inception_5b` (B, 1024, 7, 7), the last map, of 224
as of 227 pixels -> `pool5` (B, 1024), its mean -> `logits` (B, classes).

GEAN's scenes are `pool5` of the Places205 model (256x256, centre 227), its fovea `inception_5b` of
the ImageNet model (the whole frame at 227x227), both of every fifth frame from the sixteenth on,
where its C3D clips end: frame_step=5, first_frame=15.

torchvision turns its second scaling on by itself when it downloads its weights, and only then: a
network that is filled from the file gives other features without it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, cast

import numpy.typing as npt
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn
from torchvision.models import GoogLeNet

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Names, Output
from vlpipe.extractors.googlenet_caffe import WIDTH, CaffeGoogLeNet
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

Network = Literal["torchvision", "caffe"]
Rgb = tuple[float, float, float]

# Of the data that the Caffe models were trained on, red first, of 255.
_IMAGENET_CAFFE_MEAN: Rgb = (123.0, 117.0, 104.0)
_PLACES_CAFFE_MEAN: Rgb = (116.060394287, 113.741088867, 105.487823486)

# The cells of the last map stand for so many pixels; fewer leave a pool without input.
_CELL_PX = 32


class GoogLeNetConfig(ExtractorConfig):
    """Which frames, how they are scaled, which network and which layers.

    fps, max_frames: frames a second (None: every frame of the source), at most so many of them,
        equidistant.
    frame_step, first_frame: of those, every frame_step-th from first_frame on, counted from 0.
    resize, crop: pixels of the shorter edge, or height and width; then of a centred square.
    network: whose GoogLeNet, `torchvision` or `caffe`.
    transform_input: torchvision only: scale frames to [-1, 1] after all, as its weights need.
    caffe_mean: Caffe only: what is subtracted from red, green and blue.
    outputs: `pool5` is the feature of the extractor's own name, `inception_5b` that name and
        `_inception_5b`.
    """

    fps: float | None = Field(default=None, gt=0)
    max_frames: PositiveInt | None = None
    frame_step: PositiveInt = 1
    first_frame: NonNegativeInt = 0
    resize: PositiveInt | tuple[PositiveInt, PositiveInt] = 256
    crop: int = Field(default=224, ge=_CELL_PX)
    network: Network = "torchvision"
    transform_input: bool = True
    caffe_mean: Rgb = _IMAGENET_CAFFE_MEAN
    outputs: Names[Literal["pool5", "inception_5b"]] = Field(default=("pool5",), min_length=1)

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        edge = self.resize if isinstance(self.resize, int) else min(self.resize)
        if self.crop > edge:
            raise ValueError(f"crop exceeds the shorter edge, resize={self.resize}")
        return self


class GoogLeNetPlacesConfig(GoogLeNetConfig):
    """As GoogLeNetConfig, with the Places205 model of Caffe and its frames."""

    resize: PositiveInt | tuple[PositiveInt, PositiveInt] = (256, 256)
    crop: int = Field(default=227, ge=_CELL_PX)
    network: Network = "caffe"
    caffe_mean: Rgb = _PLACES_CAFFE_MEAN


class TorchvisionGoogLeNet(nn.Module):
    """(B, 3, H, W) ImageNet-normalised frames -> dict of `inception_5b`, `pool5`, `logits`."""

    def __init__(self, num_classes: int, *, transform_input: bool) -> None:
        super().__init__()
        self.body = GoogLeNet(
            num_classes, aux_logits=False, transform_input=transform_input, init_weights=False
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        net = self.body
        x = net.conv1(net._transform_input(x))  # (B, 64, H/2, W/2)
        x = net.maxpool2(net.conv3(net.conv2(net.maxpool1(x))))  # (B, 192, H/8, W/8)
        x = net.maxpool3(net.inception3b(net.inception3a(x)))  # (B, 480, H/16, W/16)
        x = net.inception4c(net.inception4b(net.inception4a(x)))
        x = net.maxpool4(net.inception4e(net.inception4d(x)))  # (B, 832, H/32, W/32)
        x = net.inception5b(net.inception5a(x))  # (B, 1024, H/32, W/32)
        pool5 = net.avgpool(x).flatten(1)  # (B, 1024)
        return {"inception_5b": x, "pool5": pool5, "logits": net.fc(pool5)}

    def load(self, checkpoint: Checkpoint) -> None:
        """Fills the network; the class head follows the file."""
        state = {k: v for k, v in checkpoint.state.items() if not k.startswith(("aux1.", "aux2."))}
        head = state.get("fc.weight")
        if head is not None and head.ndim == 2:
            self.body.fc = nn.Linear(WIDTH, len(head))
        checkpoint.load_into(self.body, state, what="torchvision googlenet")


@register("googlenet")
class GoogLeNetExtractor(Extractor):
    """Features of frames, (rows, 1024), and the map that they are the mean of."""

    version: ClassVar[int] = 1
    folds_norms: ClassVar[bool] = True
    Config: ClassVar[type[ExtractorConfig]] = GoogLeNetConfig
    num_classes: ClassVar[int] = 1000
    gflop_per_sample: ClassVar[float] = 3.0
    gpu_batch_size: ClassVar[int | None] = 128
    description: ClassVar[str] = "GoogLeNet on ImageNet: a row per frame, pool5 1024-d, for GEAN"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        caffe = PublishedCheckpoint(
            "googlenet_caffe",
            "bvlc_googlenet.caffemodel",
            "https://github.com/BVLC/caffe/tree/master/models/bvlc_googlenet",
            "unrestricted use",
            settings={"network": "caffe", "resize": (256, 256)},
        )
        return {cls.name: [*torchvision_checkpoints("googlenet"), caffe]}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        settings = cast(GoogLeNetConfig, config)
        size = settings.resize
        return FrameRequest(
            fps=settings.fps,
            max_frames=settings.max_frames,
            resize=Resize(shorter_edge=size) if isinstance(size, int) else Resize(size=size),
            center_crop=settings.crop,
            crop_rounding="round",
        )

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(GoogLeNetConfig, config)
        cells = map_cells(settings.crop, settings.network)
        declared = {
            "pool5": Output(cls.name, "pool5", (WIDTH,), ("channel",)),
            "inception_5b": Output(
                f"{cls.name}_inception_5b",
                "inception_5b",
                (WIDTH, cells, cells),
                ("channel", "y", "x"),
            ),
        }
        return tuple(declared[name] for name in settings.outputs)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        return super().samples_per_second(config) / cast(GoogLeNetConfig, config).frame_step

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        settings = cast(GoogLeNetConfig, config)
        if settings.network == "caffe":
            return CaffeGoogLeNet(cls.num_classes)
        return TorchvisionGoogLeNet(cls.num_classes, transform_input=settings.transform_input)

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        # PyTorch's own initial weights shrink the signal layer by layer to nothing.
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        cast(TorchvisionGoogLeNet | CaffeGoogLeNet, network).load(checkpoints[cls.name])

    @classmethod
    def check_checkpoint(cls, role: str, checkpoint: Checkpoint) -> None:
        is_caffe = any(key.startswith(("conv1/", "conv1_")) for key in checkpoint.state)
        config = cls.Config.model_validate({"network": "caffe" if is_caffe else "torchvision"})
        cls.load(cls.build_network(config), {role: checkpoint})

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        settings = cast(GoogLeNetConfig, self.spec.config)
        return StepSampler(settings.frame_step, settings.first_frame)

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        settings = cast(GoogLeNetConfig, self.spec.config)
        frames = torch.from_numpy(samples).to(self.device)  # (B, H, W, 3) uint8
        if settings.network == "torchvision":
            return normalise_frames(frames, IMAGENET_MEAN, IMAGENET_STD)  # (B, 3, H, W)
        x = frames.permute(0, 3, 1, 2).float()  # (B, 3, H, W) RGB
        return x.sub_(x.new_tensor(settings.caffe_mean).view(3, 1, 1)).flip(1)  # BGR


@register("googlenet_places")
class GoogLeNetPlaces(GoogLeNetExtractor):
    """As GoogLeNetExtractor, of a network that was trained on scenes."""

    Config: ClassVar[type[ExtractorConfig]] = GoogLeNetPlacesConfig
    num_classes: ClassVar[int] = 205
    gflop_per_sample: ClassVar[float] = 3.2
    description: ClassVar[str] = "GoogLeNet on Places: a row per frame, pool5 1024-d, for GEAN"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {
            cls.name: [
                PublishedCheckpoint(
                    "googlenet_places205",
                    "googlelet_places205_train_iter_2400000.caffemodel",
                    "https://places.csail.mit.edu/downloadCNN.html",
                    "CC-BY",
                ),
                PublishedCheckpoint(
                    "googlenet_places365",
                    "googlenet_places365.caffemodel",
                    "https://github.com/CSAILVision/places365",
                    "CC-BY",
                    settings={"caffe_mean": (116.676, 112.514, 104.051), "crop": 224},
                ),
            ]
        }


def map_cells(edge: int, network: Network) -> int:
    """Rows and columns of `inception_5b` for frames of edge x edge pixels."""
    cells = (edge + 1) // 2
    # The last pool of torchvision's network is 2x2, of Caffe's 3x3: of an odd number of cells it
    # keeps one more.
    for window in (3, 3, 3, 2 if network == "torchvision" else 3):
        cells = -(-(cells - window) // 2) + 1
    return cells
