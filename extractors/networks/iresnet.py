"""The residual networks of ArcFace: an aligned face to a vector of 512 numbers.

Papers: ArcFace (Deng et al., 2019), whose block (BatchNorm, convolution, BatchNorm, PReLU,
convolution, BatchNorm) is the improved one of Duta et al. (2020). Code:
deepinsight/insightface, recognition/arcface_torch. Checkpoint layout (`backbone.pth`):
`conv1.weight`, `bn1.*`, `prelu.weight`, `layerN.M.{bn1,conv1,bn2,prelu,conv2,bn3,downsample.0,
downsample.1}.*`, `bn2.*`, `fc.{weight,bias}`, `features.*`, with or without `num_batches_tracked`.
Parameters: iresnet18 24.0 million, iresnet34 34.1, iresnet50 43.6, iresnet100 65.2.

Data flow: (B, 3, 112, 112) RGB in [-1, 1], (x - 127.5) / 127.5 -> stem (B, 64, 112, 112) ->
four stages, each halving the map, (B, 512, 7, 7) -> BatchNorm, flattened channel by channel,
linear, BatchNorm -> `embedding` (B, 512), not normalised.

The published checkpoints are for non-commercial research. Any backbone of this layout will do;
training one is what the original code is for.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

FACE_EDGE = 112
WIDTH = 512
_CELLS = 7
_STAGES = (64, 128, 256, 512)

DEPTHS: Mapping[str, tuple[int, int, int, int]] = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}
"""Blocks of each stage, by name."""

_MODEL_ZOO = "https://github.com/deepinsight/insightface/tree/master/recognition/arcface_torch"


class IResNetBlock(nn.Module):
    """(B, C, H, W) -> (B, width, H / stride, W / stride)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.conv1(self.bn1(x))
        x = self.bn3(self.conv2(self.prelu(self.bn2(x))))
        return torch.add(x, shortcut)


class IResNet(nn.Module):
    """(B, 3, 112, 112) in [-1, 1] -> dict of `embedding` (B, 512); see the file's top."""

    def __init__(self, depths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _STAGES[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STAGES[0])
        self.prelu = nn.PReLU(_STAGES[0])
        channels = _STAGES[0]
        for index, (width, depth) in enumerate(zip(_STAGES, depths, strict=True)):
            blocks = [IResNetBlock(channels, width, 2)]
            blocks += [IResNetBlock(width, width, 1) for _ in range(depth - 1)]
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
            channels = width
        self.bn2 = nn.BatchNorm2d(channels)
        # 0 in the published networks; it has no weights, and keeps its place in the layout.
        self.dropout = nn.Dropout(0.0)
        self.fc = nn.Linear(channels * _CELLS**2, WIDTH)
        self.features = nn.BatchNorm1d(WIDTH)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.prelu(self.bn1(self.conv1(x)))  # (B, 64, 112, 112)
        for index in range(len(_STAGES)):
            x = self.get_submodule(f"layer{index + 1}")(x)  # last: (B, 512, 7, 7)
        x = self.dropout(self.bn2(x).flatten(1))  # (B, 512 * 49)
        return {"embedding": self.features(self.fc(x))}

    def initialise_untrained(self) -> None:
        """Draws weights that keep activations within float16: each branch adds its share."""
        blocks = [block for block in self.modules() if isinstance(block, IResNetBlock)]
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        for block in blocks:
            nn.init.constant_(block.bn3.weight, len(blocks) ** -0.5)

    def load(self, checkpoint: Checkpoint, *, what: str) -> None:
        """Fills the network from the published layout; WeightsRejected for any other."""
        checkpoint.load_into(self, what=what)


def arcface_checkpoints(architecture: str) -> tuple[PublishedCheckpoint, ...]:
    """The checkpoints of that network in the model zoo of the original code."""
    depth = architecture.removeprefix("iresnet")
    return tuple(
        PublishedCheckpoint(
            f"arcface_{name}_r{depth}",
            "backbone.pth",
            _MODEL_ZOO,
            "non-commercial research only",
        )
        for name in ("ms1mv3", "glint360k")
    )
