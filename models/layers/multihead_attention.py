"""Attention between streams of different widths, with keys and values that can be kept.

The maps and their order are those of "A Better Use of Audio-Visual Cues" (Iashin and Rahtu, BMVC
2020); with equal widths, those of "Attention Is All You Need". Dropout acts on what the heads
found, not on their weights.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.stores.errors import UsageError


class KeysValues(NamedTuple):
    """keys, values: (B, heads, S, inner / heads) of a memory of S rows."""

    keys: Tensor
    values: Tensor

    def followed_by(self, later: "KeysValues") -> "KeysValues":
        """The same with later rows behind."""
        return KeysValues(
            torch.cat([self.keys, later.keys], dim=2), torch.cat([self.values, later.values], dim=2)
        )

    def of_rows(self, rows: Tensor) -> "KeysValues":
        """Those of the batch's entries `rows`, int64 (N,)."""
        return KeysValues(self.keys[rows], self.values[rows])


class MultiHeadAttention(nn.Module):
    """Rows (B, L, query_width) look at a memory (B, S, memory_width); (B, L, query_width)."""

    def __init__(
        self, query_width: int, memory_width: int, inner: int, heads: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if inner % heads:
            raise UsageError(
                f"{heads} attention heads cannot share {inner} channels evenly",
                hint=f"heads that divide {inner}: --set model.heads=N",
            )
        self.heads = heads
        self.query = nn.Linear(query_width, inner)
        self.key = nn.Linear(memory_width, inner)
        self.value = nn.Linear(memory_width, inner)
        self.output = nn.Linear(inner, query_width)
        self.dropout = nn.Dropout(dropout)

    def remember(self, memory: Tensor) -> KeysValues:
        """The keys and values of a memory (B, S, memory_width), to be looked at many times."""
        return KeysValues(self._parted(self.key(memory)), self._parted(self.value(memory)))

    def look(self, x: Tensor, seen: KeysValues, mask: Tensor | None) -> Tensor:
        """x: (B, L, query_width). mask: bool (B, 1 or L, S), True where a key counts; None: all."""
        query = self._parted(self.query(x))
        around = None if mask is None else mask[:, None]  # (B, 1, 1 or L, S), for all heads
        found = F.scaled_dot_product_attention(query, seen.keys, seen.values, attn_mask=around)
        found = self.dropout(found)  # (B, heads, L, inner / heads)
        merged: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return merged

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        return self.look(x, self.remember(memory), mask)

    def _parted(self, x: Tensor) -> Tensor:
        """(B, S, inner) -> (B, heads, S, inner / heads)"""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """(..., width) -> (..., width) through `inner` rectified channels, a share of them dropped."""

    def __init__(self, width: int, inner: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.rise = nn.Linear(width, inner)
        self.fall = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        lowered: Tensor = self.fall(self.dropout(F.relu(self.rise(x))))
        return lowered


def positions(num_rows: int, width: int, *, first: int = 0, like: Tensor) -> Tensor:
    """(num_rows, width) codes of the positions first, first + 1, ..., of the dtype and device of
    `like`.

    Channel i holds the sine (i even) or cosine (i odd) of position / 10000^(i / width), computed in
    double: i itself, so that sine and cosine of a pair have different rates (MDVC and BMT).
    """
    channel = torch.arange(width, dtype=torch.float64, device=like.device)
    place = torch.arange(first, first + num_rows, dtype=torch.float64, device=like.device)
    angle = place[:, None] / 10000 ** (channel / width)  # (num_rows, width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).to(like.dtype)


def earlier_words(length: int, device: torch.device) -> Tensor:
    """bool (length, length), True where a word (row) may see another: itself and those before."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
