"""I3D-ResNet50: ResNet-50 with some filters inflated over time, with or without non-local blocks.

Papers: Quo Vadis, Action Recognition? (Carreira and Zisserman, 2017), Non-local Neural Networks
(Wang et al., 2018). Code: facebookresearch/video-nonlocal-net (Caffe2); port
Tushar-N/pytorch-resnet3d, whose `utils.convert_weights` makes the checkpoints read here out of the
published pickles: `conv1.weight`, `layer1.0.bn1.bias`, ..., `fc.bias`, 267 entries, and with
non-local blocks `layer2.1.nl.theta.weight`, ..., 327 entries; with or without
`num_batches_tracked`. 28.0 million parameters, with non-local blocks 35.4 million.

Data flow: frames at 6 fps, enlarged if the shorter edge is under 226, centre crop 224 -> a clip
of 8 frames around every frame, (B, 8, 224, 224, 3) int16 -> (B, 3, 8, 224, 224) in [-1, 1]
-> conv1 (B, 64, 4, 112, 112), pool (B, 64, 2, 55, 55) -> layer1, pool (B, 256, 1, 55, 55)
-> layer2 (B, 512, 1, 28, 28) -> layer3 (B, 1024, 1, 14, 14) -> `layer4` (B, 2048, 1, 7, 7)
-> `pooled` (B, 2048), its mean -> `logits` (B, 400). 16 frames leave two steps, 32 leave four.

The defaults are the best available reading of MASN's motion features, which no published code
makes: `pooled` is the global motion, `pool_boxes` of `layer4` the motion of objects, and the
checkpoint is the non-local one. The port's own evaluation is fps=15, clip_size=32, resize=256,
only_enlarge=false, crop=256, scaling=caffe2.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torchvision.ops import roi_align

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Names, Output
from vlpipe.extractors.media import FrameBlock, FrameRequest, MediaInfo, MediaRequest, Resize
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

WIDTH = 2048
KINETICS_CLASSES = 400

# Layer: width before the expansion by 4, spatial stride, and for each block whether its first
# convolution spans three frames and whether a non-local block may follow it.
LAYERS: dict[str, tuple[int, int, str, str]] = {
    "layer1": (64, 1, "111", "000"),
    "layer2": (128, 2, "1010", "0101"),
    "layer3": (256, 2, "101010", "010101"),
    "layer4": (512, 2, "010", "000"),
}

# Frames become whole numbers m x - o that are 0 where the network's input is 0, so that the frames
# of zeros that fill up a clip are exact; the input is those numbers over the divisor.
_SCALINGS = {
    "unit": (2, 255, 255.0),  # 2 x / 255 - 1
    "caffe2": (4, 459, 229.5),  # (x - 114.75) / 57.375
}


class I3dResNet50Config(ExtractorConfig):
    """Which clips, how frames are scaled, and which layers are kept.

    fps: frames a second; None keeps every frame of the source.
    clip_size, anchor_step: a clip of clip_size frames from a - clip_size / 2 on around every
        anchor_step-th frame a.
    resize, only_enlarge, crop: pixels of the shorter edge, whether larger frames are left as they
        are, then of a centred square.
    whole_frame: scale the whole picture to crop x crop instead, so that all boxes have cells.
    scaling: `unit` is 2 x / 255 - 1, `caffe2` is (x - 114.75) / 57.375.
    non_local: None has the non-local blocks that the checkpoint has; random weights have none.
    outputs: `pooled` is the feature `i3d_resnet50`, `layer4` is `i3d_resnet50_layer4`.
    """

    fps: float | None = Field(default=6.0, gt=0)
    clip_size: int = Field(default=8, ge=8, multiple_of=2)
    anchor_step: PositiveInt = 1
    resize: PositiveInt = 226
    only_enlarge: bool = True
    crop: int = Field(default=224, ge=32)
    whole_frame: bool = False
    scaling: Literal["unit", "caffe2"] = "unit"
    non_local: bool | None = None
    outputs: Names[Literal["pooled", "layer4"]] = Field(default=("pooled",), min_length=1)


class NonLocal(nn.Module):
    """x + BatchNorm(out(attention over all cells and steps of x)), (B, C, T, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        self.out = nn.Conv3d(inner, channels, 1)
        self.bn = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        coarse = F.max_pool3d(x, (1, 2, 2))  # (B, C, T, H/2, W/2)
        theta = self.theta(x)  # (B, C/2, T, H, W)
        phi = self.phi(coarse).flatten(2)  # (B, C/2, T H W / 4)
        g = self.g(coarse).flatten(2)  # (B, C/2, T H W / 4)
        scores = theta.flatten(2).transpose(1, 2) @ phi * theta.shape[1] ** -0.5
        attention = scores.softmax(dim=-1)  # (B, T H W, T H W / 4)
        seen = (g @ attention.transpose(1, 2)).view_as(theta)  # (B, C/2, T, H, W)
        return x + cast(Tensor, self.bn(self.out(seen)))


class Bottleneck(nn.Module):
    """1x1 (over three frames if is_temporal), 3x3 with the spatial stride, 1x1, plus the input."""

    def __init__(self, channels: int, width: int, stride: int, *, is_temporal: bool) -> None:
        super().__init__()
        self.width = 4 * width
        span = 3 if is_temporal else 1
        self.conv1 = nn.Conv3d(channels, width, (span, 1, 1), padding=(span // 2, 0, 0), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        steps = (1, stride, stride)
        self.conv2 = nn.Conv3d(width, width, (1, 3, 3), steps, padding=(0, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, self.width, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(self.width)
        self.downsample: nn.Module | None = None
        if stride > 1 or channels != self.width:
            self.downsample = nn.Sequential(
                nn.Conv3d(channels, self.width, 1, steps, bias=False), nn.BatchNorm3d(self.width)
            )
        self.nl: NonLocal | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu_()  # (B, C, T, H, W)
        y = self.bn2(self.conv2(y)).relu_()  # (B, C, T, H/stride, W/stride)
        y = self.bn3(self.conv3(y))  # (B, 4 C, T, H/stride, W/stride)
        y = (y + (x if self.downsample is None else self.downsample(x))).relu_()
        out: Tensor = y if self.nl is None else self.nl(y)
        return out


class I3dResNet50Network(nn.Module):
    """(B, 3, T, H, W) -> dict of `layer4`, `pooled`, `logits`; see the file's top.

    non_local: None leaves it to the checkpoint.
    """

    def __init__(self, *, non_local: bool | None = None) -> None:
        super().__init__()
        self.non_local = non_local
        self.conv1 = nn.Conv3d(3, 64, (5, 7, 7), 2, padding=(2, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        channels = 64
        for name, (width, stride, temporal, _) in LAYERS.items():
            blocks = []
            for k, flag in enumerate(temporal):
                is_temporal = flag == "1"
                block = Bottleneck(
                    channels, width, stride if k == 0 else 1, is_temporal=is_temporal
                )
                channels = block.width
                blocks.append(block)
            self.add_module(name, nn.Sequential(*blocks))
        self.fc = nn.Linear(WIDTH, KINETICS_CLASSES)
        if non_local:
            self.add_non_local()

    def add_non_local(self) -> None:
        """Puts non-local blocks after every second block of layer2 and layer3."""
        for name, (_, _, _, followed) in LAYERS.items():
            for flag, block in zip(followed, self.get_submodule(name).children(), strict=True):
                if flag == "1" and isinstance(block, Bottleneck):
                    block.nl = NonLocal(block.width)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.bn1(self.conv1(x)).relu_()  # (B, 64, T/2, H/2, W/2)
        x = F.max_pool3d(x, (2, 3, 3), 2)  # (B, 64, T/4, 55, 55) of 224 pixels: no pads
        for name in LAYERS:
            x = self.get_submodule(name)(x)
            if name == "layer1":
                x = F.max_pool3d(x, (2, 1, 1))  # (B, 256, T/8, 55, 55)
        pooled = x.mean(dim=(2, 3, 4))  # (B, 2048)
        return {"layer4": x, "pooled": pooled, "logits": self.fc(pooled)}

    def initialise_untrained(self) -> None:
        """Draws weights whose activations stay within float16."""
        branches = 0
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            branches += isinstance(layer, Bottleneck | NonLocal)
        # Each branch adds its variance to that of its input; scaled so, the growth stays below e.
        for layer in self.modules():
            if isinstance(layer, Bottleneck):
                nn.init.constant_(layer.bn3.weight, branches**-0.5)
            elif isinstance(layer, NonLocal):
                nn.init.constant_(layer.bn.weight, branches**-0.5)

    def load(self, checkpoint: Checkpoint) -> None:
        """Fills the network; the class head and, where left open, non-local blocks follow it."""
        state = checkpoint.state
        if self.non_local is None and any(".nl." in key for key in state):
            self.add_non_local()
        head = state.get("fc.weight")
        if head is not None and head.ndim == 2:
            self.fc = nn.Linear(WIDTH, len(head))
        checkpoint.load_into(self, what="I3D-ResNet50")


class ClipSampler:
    """A clip around every anchor frame, int16 [clip_size, H, W, 3] as `_SCALINGS` says.

    Clip a has the frames from a - clip_size / 2 to a + clip_size / 2 - 1 that the video has.
    Missing ones are zeros: before the others when at most half of the clip is there, else behind
    them. Its span is that of frame a. Holds one clip of frames.
    """

    def __init__(self, clip_size: int, anchor_step: int, scaling: str) -> None:
        self._size, self._half, self._step = clip_size, clip_size // 2, anchor_step
        self._multiplier, self._offset, _ = _SCALINGS[scaling]
        self._frames: deque[npt.NDArray[np.int16]] = deque(maxlen=clip_size)
        self._spans: deque[tuple[float, float]] = deque(maxlen=clip_size)
        self._num_frames = 0

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, FrameBlock):
            raise TypeError(f"expected frames, got {type(block).__name__}")
        samples: list[Sample] = []
        for frame, (start, end) in zip(block.frames, block.spans, strict=True):
            self._frames.append(frame.astype(np.int16) * self._multiplier - self._offset)
            self._spans.append((float(start), float(end)))
            self._num_frames += 1
            samples += self._cut(self._num_frames - self._half)
        return samples

    def finish(self) -> Sequence[Sample]:
        first = max(0, self._num_frames - self._half + 1)
        return [sample for a in range(first, self._num_frames) for sample in self._cut(a)]

    def _cut(self, anchor: int) -> list[Sample]:
        if anchor < 0 or anchor % self._step:
            return []
        count = self._num_frames - max(0, anchor - self._half)
        start = self._size - count if count <= self._half else 0
        clip = np.zeros((self._size, *self._frames[-1].shape), np.int16)
        # The last frame that came is the last one of the clip, at the end of the video as well.
        clip[start : start + count] = list(self._frames)[-count:]
        return [Sample(clip, self._spans[anchor - self._num_frames])]


@register("i3d_resnet50")
class I3dResNet50(Extractor):
    """Features of the clip around each frame, (rows, 2048), and the map they are the mean of."""

    version: ClassVar[int] = 1
    folds_norms: ClassVar[bool] = True
    Config: ClassVar[type[ExtractorConfig]] = I3dResNet50Config
    # 19 MB of frames and 0.3 GB of activations.
    batch_size = 8
    gflop_per_sample: ClassVar[float] = 19.4
    description: ClassVar[str] = "I3D-ResNet50: a 2048-d row per frame at 6 fps, for MASN"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        # The files are conversions of these pickles, which hold more than plain tensors.
        base = "https://dl.fbaipublicfiles.com/video-nonlocal"
        return {
            "i3d_resnet50": [
                PublishedCheckpoint(name, filename, f"{base}/{pickle}", "CC-BY-NC-4.0")
                for name, filename, pickle in (
                    (
                        "i3d_resnet50_nl_kinetics",
                        "i3d_r50_nl_kinetics.pth",
                        "i3d_nonlocal_32x2_IN_pretrain_400k.pkl",
                    ),
                    (
                        "i3d_resnet50_kinetics",
                        "i3d_r50_kinetics.pth",
                        "i3d_baseline_32x2_IN_pretrain_400k.pkl",
                    ),
                )
            ]
        }

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        settings = cast(I3dResNet50Config, config)
        if settings.whole_frame:
            edge = settings.crop
            return FrameRequest(fps=settings.fps, resize=Resize(size=(edge, edge)))
        return FrameRequest(
            fps=settings.fps,
            resize=Resize(shorter_edge=settings.resize, only_enlarge=settings.only_enlarge),
            center_crop=settings.crop,
        )

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(I3dResNet50Config, config)
        map_shape = layer4_shape(settings.clip_size, settings.crop)
        declared = {
            "pooled": Output(cls.name, "pooled", (WIDTH,), ("channel",)),
            "layer4": Output(
                f"{cls.name}_layer4", "layer4", map_shape, ("channel", "step", "y", "x")
            ),
        }
        return tuple(declared[name] for name in settings.outputs)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        return super().samples_per_second(config) / cast(I3dResNet50Config, config).anchor_step

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        return I3dResNet50Network(non_local=cast(I3dResNet50Config, config).non_local)

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        cast(I3dResNet50Network, network).initialise_untrained()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        cast(I3dResNet50Network, network).load(checkpoints["i3d_resnet50"])

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        settings = cast(I3dResNet50Config, self.spec.config)
        return ClipSampler(settings.clip_size, settings.anchor_step, settings.scaling)

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        divisor = _SCALINGS[cast(I3dResNet50Config, self.spec.config).scaling][2]
        clips = torch.from_numpy(samples).to(self.device)  # (B, T, H, W, 3) int16
        return clips.permute(0, 4, 1, 2, 3).float().div_(divisor)  # (B, 3, T, H, W)


def layer4_shape(num_frames: int, edge: int) -> tuple[int, int, int, int]:
    """(channels, steps, rows, columns) of `layer4` for clips of edge x edge pixels."""
    steps = (num_frames + 1) // 2 // 2 // 2
    cells = ((edge + 1) // 2 - 1) // 2
    for _ in range(3):
        cells = (cells + 1) // 2
    return WIDTH, steps, cells, cells


def pool_boxes(layer4: Tensor, boxes: Tensor) -> Tensor:
    """(N, 2048), the mean of the map (B, 2048, T, h, w) over each of N boxes.

    boxes: (N, 5) of (index of the clip, x0, y0, x1, y1) in pixels of the network's input. RoIAlign
    into 7x7 bins with as many samples as a bin has cells, not aligned to half pixels (Caffe2's).
    """
    # A cell stands for 32 pixels; where T > 1 a box covers all steps.
    bins = roi_align(layer4.mean(dim=2), boxes, output_size=7, spatial_scale=1 / 32)
    return cast(Tensor, bins).mean(dim=(2, 3))  # (N, 2048, 7, 7) -> (N, 2048)
