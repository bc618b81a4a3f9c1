"""Convolutions over the frames of a video, closed by a gated linear unit (yj-yu/lsmdc)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.models.layers.row_norm import RowNorm


class FrameConvolution(nn.Module):
    """ReLU(norm(convolution over three frames)), (B, C, T) -> (B, out, T)."""

    def __init__(self, num_in: int, num_out: int, *, has_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(num_in, num_out, 3, padding=1)
        self.norm = RowNorm(num_out, eps=1e-3) if has_norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.relu(x if self.norm is None else self.norm(x))


class FrameConvolutions(nn.Module):
    """(B, T, C) -> (B, T, width / 2): three convolutions; the second half of the last gates the
    first. Padded frames are read as they are."""

    def __init__(self, num_in: int, width: int, *, has_norm: bool) -> None:
        super().__init__()
        self.video_conv1 = FrameConvolution(num_in, width, has_norm=has_norm)
        self.video_conv2 = FrameConvolution(width, width, has_norm=has_norm)
        self.video_conv3 = FrameConvolution(width, width, has_norm=has_norm)

    def forward(self, video: Tensor) -> Tensor:
        x = self.video_conv3(self.video_conv2(self.video_conv1(video.mT)))  # (B, width, T)
        passed, gate = x.chunk(2, dim=1)
        return torch.mul(passed, gate.sigmoid()).mT


def halved_sinusoids(num_positions: int, width: int) -> Tensor:
    """(num_positions, width): sines in the first half of the channels, cosines in the other, of
    position * 10000^(-k / (width / 2 - 1)) (tensor2tensor)."""
    half = width // 2
    rates = 10000.0 ** -(torch.arange(half) / max(half - 1, 1))
    angles = torch.arange(num_positions)[:, None] * rates  # (num_positions, half)
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width - 2 * half))
