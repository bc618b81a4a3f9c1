"""Vectors of a person's body parts: the last map of a ResNet-50 at the key points (CiSIN, 6.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50

_CELLS = 6.99  # a place of 1 still lies in the last of seven cells (public code)


class BodyVectors(nn.Module):
    """Pictures (K, 3, 224, 224) and key points (K, 17, 2) -> (K, 17, 2048) of length 1.

    key_points: x, y as shares of the picture, 0 to 1. Entries are those of torchvision's
    ResNet-50 without its classifier, below `body.`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = resnet50(weights=None)
        self.body.fc = nn.Identity()
        self.body.avgpool = nn.Identity()

    def forward(self, images: Tensor, key_points: Tensor) -> Tensor:
        maps = self.body(images).view(len(images), 2048, 7, 7)
        column, row = (key_points.clamp(0, 1) * _CELLS).long().unbind(-1)  # (K, 17)
        place = torch.arange(len(images), device=images.device)[:, None]
        return F.normalize(maps[place, :, row, column], dim=-1)
