"""Padded sequences: masks, softmax over what is real, sinusoids for positions."""

import math

import torch
from torch import Tensor


def real_positions(length: Tensor, width: int, *, drop_last: bool = False) -> Tensor:
    """(..., width) bool, True where a position is below its sequence's length.

    length: integers (...). drop_last: a sequence that fills the width loses its last position, as
    masks made by comparing with min(width - 1, length) do (HGA, MASN).
    """
    limit = length.clamp(max=width - 1) if drop_last else length
    return torch.arange(width, device=length.device) < limit[..., None]


def masked_softmax(scores: Tensor, mask: Tensor, *, dim: int | tuple[int, ...] = -1) -> Tensor:
    """Softmax over the positions of `dim` where mask is True, in float32; 0 elsewhere.

    mask broadcasts against scores. Where nothing is True all of it is 0.
    """
    dims = (dim,) if isinstance(dim, int) else dim
    scores = scores.float().masked_fill(~mask, -1e10)
    top = scores.amax(dims, keepdim=True)
    weights = (scores - top).exp() * mask
    return weights / weights.sum(dims, keepdim=True).clamp_min(1e-30)


def sinusoids(num_positions: int, width: int) -> Tensor:
    """(num_positions, width) float32: sine at even channels 2i, cosine at the odd ones, of
    position * 10000^(-2i / width) (Attention Is All You Need, 2017)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(num_positions)[:, None] * rates  # (num_positions, width / 2)
    table = torch.zeros(num_positions, width)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()[:, : width // 2]
    return table
