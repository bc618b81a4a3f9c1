"""Joining what the words of a question found in appearance and in motion, and pooling it.

Seo et al., ACL 2021, section 3.4 (motion-appearance fusion); the pooling is that of MCAN (2019).

B videos, K questions of each, L words, D width.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.models.layers.sequences import masked_softmax


class UnbiasedNorm(nn.Module):
    """gain * (x - mean) / (std + 1e-6) + bias, with the unbiased standard deviation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return self.gain * centred / (x.std(-1, keepdim=True) + 1e-6) + self.bias


class WordFusion(nn.Module):
    """The words as appearance and as motion see them (B, K, 2L, D) -> joined (B, K, 2L, D).

    Three attentions, over the appearance half, the motion half and both; the question weighs them.
    """

    KINDS = ("appearance", "motion", "both")

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.ModuleDict({kind: nn.Linear(width, width) for kind in self.KINDS})
        self.key = nn.ModuleDict({kind: nn.Linear(width, width) for kind in self.KINDS})
        self.value = nn.ModuleDict({kind: nn.Linear(width, width) for kind in self.KINDS})
        self.norm = nn.ModuleDict({kind: UnbiasedNorm(width) for kind in self.KINDS})
        self.question_query = nn.Linear(width, width)
        self.pool_key = nn.Linear(width, width)
        self.feed_in = nn.Linear(width, width)
        self.feed_out = nn.Linear(width, width)
        self.out_norm = UnbiasedNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, words: Tensor, summary: Tensor, mask: Tensor, counted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The joined words, and the weights of the three (B, K, 3).

        words: (B, K, 2L, D), the appearance half first. summary: (B, K, D) of the question.
        mask, counted: (B, K, L) bool, the words that are there, and the positions whose sums
        make the weights.
        """
        num_words, scale = mask.shape[-1], words.shape[-1] ** -0.5
        mask = torch.cat([mask, mask], dim=-1)  # (B, K, 2L)
        counted = torch.cat([counted, counted], dim=-1)[..., None]  # (B, K, 2L, 1)
        is_appearance = torch.arange(2 * num_words, device=words.device) < num_words
        columns = {"appearance": is_appearance, "motion": ~is_appearance}
        seen = []
        for kind in self.KINDS:
            scores = self.query[kind](words) @ self.key[kind](words).mT * scale  # (B, K, 2L, 2L)
            pairs = mask[..., :, None] & mask[..., None, :]
            if kind in columns:
                pairs = pairs & columns[kind]
            attention = self.dropout(masked_softmax(scores, pairs).to(words.dtype))
            seen.append(self.norm[kind](words + attention @ self.value[kind](words)))
        ways = torch.stack(seen, dim=2)  # (B, K, 3, 2L, D)
        pools = (ways * counted[:, :, None]).sum(dim=3)  # (B, K, 3, D)
        asked = self.question_query(summary)[:, :, None]  # (B, K, 1, D)
        weights = ((asked * self.pool_key(pools)).sum(-1) * scale).softmax(dim=-1)  # (B, K, 3)
        z = (self.dropout(weights)[..., None, None] * ways).sum(dim=2)  # (B, K, 2L, D)
        fed = self.feed_out(self.dropout(F.relu(self.feed_in(self.dropout(z)))))
        return self.out_norm(z + fed), weights


class AttentionPool(nn.Module):
    """(..., P, D), mask (..., P) -> (..., D): the mean weighted by a small network, projected."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)
        self.merge = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.score(self.dropout(F.relu(self.inner(x)))).squeeze(-1)  # (..., P)
        weights = masked_softmax(scores, mask).to(x.dtype)
        return cast(Tensor, self.merge((weights[..., None] * x).sum(dim=-2)))
