"""Attention by scaled cosine similarity between words, regions and frames, and what comes of it.

After Lei et al. (TVQA+, 2020) and Kim et al. (2020, arXiv 2005.06409): two sequences look at each
other, what a row found is laid beside the row, and both are mapped back to its width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.models.layers.sequences import masked_softmax


class CosineAttention(nn.Module):
    """Weights between rows x (..., L, C) and y (..., S, C): softmax of `scale` times their cosine;
    dropout acts on the normalised rows."""

    def __init__(self, scale: float, dropout: float) -> None:
        super().__init__()
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """(..., L, S)"""
        x, y = (self.dropout(F.normalize(rows, dim=-1)) for rows in (x, y))
        return self.scale * (x @ y.mT)

    def one_way(self, x: Tensor, y: Tensor, pairs: Tensor) -> Tensor:
        """(..., L, C): what x finds in y. pairs: bool (..., L, S), True where a row of x may see
        one of y; a row that sees none finds zeros."""
        weights = masked_softmax(self.similarity(x, y), pairs)
        return weights.to(y.dtype) @ y

    def both_ways(self, x: Tensor, y: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """What x finds in y (..., L, C), and y in x (..., S, C), of one similarity."""
        similarity = self.similarity(x, y)
        forth = masked_softmax(similarity, pairs, dim=-1).to(y.dtype) @ y
        back = masked_softmax(similarity, pairs, dim=-2).to(x.dtype).mT @ x
        return forth, back


class FrameAttention(nn.Module):
    """Self-attention of several heads, (N, L, C) -> (N, L, C); dropout acts on the weights.

    masks_keys: rows of padding are seen by none. Off, as published: they are seen, and see all
    rows alike.
    """

    def __init__(self, width: int, heads: int, dropout: float, *, masks_keys: bool) -> None:
        super().__init__()
        self.heads, self.masks_keys = heads, masks_keys
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """mask: bool (N, L), True where a row is real."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N, heads, L, C / heads)
            for layer in (self.query, self.key, self.value)
        )
        scores = (query @ key.mT).float() * query.shape[-1] ** -0.5
        if self.masks_keys:
            weights = masked_softmax(scores, mask[:, None, None])
        else:
            weights = scores.masked_fill(~mask[:, None, :, None], -1e9).softmax(dim=-1)
        found = self.dropout(weights).to(value.dtype) @ value
        merged: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return merged


def strongest(x: Tensor, mask: Tensor) -> Tensor:
    """(..., C): the maximum over the real rows of x (..., L, C); 0 where there is none.

    mask: bool (..., L).
    """
    found = x.masked_fill(~mask[..., None], -1e10).amax(dim=-2)
    return torch.where(mask.any(dim=-1, keepdim=True), found, 0.0)


def four_fold(x: Tensor, y: Tensor) -> Tensor:
    """(..., 4 C): two rows side by side, their product and their sum."""
    return torch.cat([x, y, x * y, x + y], dim=-1)
