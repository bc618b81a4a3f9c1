"""Depthwise separable convolutions over a padded sequence (QANet; Yu et al., ICLR 2018).

As in the code of Lei et al. and Kim et al. for TVQA: two convolutions, and no self-attention.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.models.layers.sequences import sinusoids

_NUM_CONVOLUTIONS = 2


class SeparableConvolution(nn.Module):
    """(N, L, C) -> (N, L, C): a kernel for each channel, then a linear map over channels, ReLU."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.pointwise = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pointwise(self.depthwise(x.mT))).mT


class SeparableEncoder(nn.Module):
    """(N, L, C) with places -> (N, L, C): residual convolutions over normalised rows.

    kernel: odd, so that lengths stay. dropout: before the first convolution.
    """

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(_NUM_CONVOLUTIONS))
        self.convolutions = nn.ModuleList(
            SeparableConvolution(width, kernel) for _ in range(_NUM_CONVOLUTIONS)
        )
        self.last_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """mask: bool (N, L), True where a row is real: no other one is read, and theirs are 0.
        None: rows of padding are convolved like the others, as the published code does."""
        real = None if mask is None else mask[..., None].to(x.dtype)
        x = x + sinusoids(x.shape[1], x.shape[2]).to(x)
        for place, (norm, convolve) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            rows = norm(x)
            rows = self.dropout(rows) if place == 0 else rows
            x = x + convolve(rows if real is None else rows * real)
        x = self.last_norm(x)
        return x if real is None else torch.where(real > 0, x, 0.0)
