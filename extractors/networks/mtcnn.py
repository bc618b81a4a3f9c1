"""The three networks of MTCNN: proposals over the whole frame, then two that judge each of them.

Paper: Joint Face Detection and Alignment Using Multi-task Cascaded Convolutional Networks (Zhang
et al., 2016). Code: timesler/facenet-pytorch. Checkpoint layout: its three files `pnet.pt`,
`rnet.pt` and `onet.pt` (`conv1.weight`, `prelu1.weight`, ..., `conv4_1.bias`; `dense5_1.weight`;
`dense6_3.weight`), 6,632, 100,178 and 389,040 numbers.

Inputs are RGB, (x - 127.5) / 128. Each network gives `scores`, the probability of a face, and
`shifts`, by how much of its width and height each corner x1, y1, x2, y2 moves.

The weights were trained on transposed pictures, which shows in the order in which the maps are
flattened: column by column, channels last.
"""

import torch
from torch import Tensor, nn


class ProposalNetwork(nn.Module):
    """(B, 3, H, W) -> `scores` (B, h, w), `shifts` (B, 4, h, w) of 12 x 12 pixels every 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3)
        self.prelu1 = nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(10, 16, 3)
        self.prelu2 = nn.PReLU(16)
        self.conv3 = nn.Conv2d(16, 32, 3)
        self.prelu3 = nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))  # (B, 32, h, w)
        return {"scores": self.conv4_1(x).softmax(dim=1)[:, 1], "shifts": self.conv4_2(x)}


class RefinementNetwork(nn.Module):
    """(B, 3, 24, 24) -> `scores` (B), `shifts` (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 28, 3)
        self.prelu1 = nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(28, 48, 3)
        self.prelu2 = nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(48, 64, 2)
        self.prelu3 = nn.PReLU(64)
        self.dense4 = nn.Linear(64 * 3 * 3, 128)
        self.prelu4 = nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.pool1(self.prelu1(self.conv1(x)))  # (B, 28, 11, 11)
        x = self.pool2(self.prelu2(self.conv2(x)))  # (B, 48, 4, 4)
        x = self.prelu3(self.conv3(x))  # (B, 64, 3, 3)
        x = self.prelu4(self.dense4(_flatten_columns(x)))  # (B, 128)
        return {"scores": self.dense5_1(x).softmax(dim=1)[:, 1], "shifts": self.dense5_2(x)}


class OutputNetwork(nn.Module):
    """(B, 3, 48, 48) -> `scores` (B), `shifts` (B, 4), `landmarks` (B, 5, 2), shares of the box.

    Landmarks are x, y of eye, eye, nose, mouth, mouth, from the left of the picture.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.prelu1 = nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.prelu2 = nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.prelu3 = nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4 = nn.Conv2d(64, 128, 2)
        self.prelu4 = nn.PReLU(128)
        self.dense5 = nn.Linear(128 * 3 * 3, 256)
        self.prelu5 = nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.pool1(self.prelu1(self.conv1(x)))  # (B, 32, 23, 23)
        x = self.pool2(self.prelu2(self.conv2(x)))  # (B, 64, 10, 10)
        x = self.pool3(self.prelu3(self.conv3(x)))  # (B, 64, 4, 4)
        x = self.prelu4(self.conv4(x))  # (B, 128, 3, 3)
        x = self.prelu5(self.dense5(_flatten_columns(x)))  # (B, 256)
        return {
            "scores": self.dense6_1(x).softmax(dim=1)[:, 1],
            "shifts": self.dense6_2(x),
            # Five x come first, then five y.
            "landmarks": self.dense6_3(x).unflatten(1, (2, 5)).transpose(1, 2),
        }


def _flatten_columns(x: Tensor) -> Tensor:
    return torch.flatten(x.permute(0, 3, 2, 1), 1)
