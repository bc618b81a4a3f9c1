"""Attention to the words that a detector found in a video (CT-SAN, equations 4.9 to 4.15).

B sentences, M words, K detected words, d numbers a word, D hidden units.
"""

from typing import cast

import torch
from torch import Tensor, nn

_UNDER_ROOT = 1e-8
"""The slope of a root is infinite at 0."""


class InputAttention(nn.Module):
    """(4.9)-(4.10): each word of a sentence, with what the detected words add to it.

    is_attentive: False leaves the words alone (Base-SAN). has_projection: W_x, from d to D; the
        public code has none and takes words as wide as its LSTM.
    """

    def __init__(
        self, width: int, num_out: int, *, is_attentive: bool = True, has_projection: bool = True
    ) -> None:
        super().__init__()
        self.is_attentive = is_attentive
        if is_attentive:
            self.weight = nn.Parameter(torch.empty(width, width))
            self.bias = nn.Parameter(torch.zeros(()))
            self.gate = Gate(width)
            nn.init.xavier_uniform_(self.weight)
        self.proj = nn.Linear(width, num_out, bias=False) if has_projection else None

    def forward(self, words: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, D) inputs of the LSTM, and gamma (B, M, K), without attention (B, M, 0).

        words: (B, M, d). concepts: (B, K, d), the vectors of detected words.
        """
        shares = words.new_zeros(*words.shape[:2], 0)
        x = words
        if self.is_attentive:
            scores = words @ self.weight @ concepts.mT + self.bias
            shares = scores.softmax(dim=-1)
            x = words + self.gate(shares @ concepts)
        return (x if self.proj is None else self.proj(x)), shares


class OutputAttention(nn.Module):
    """(4.11)-(4.12): a state, with what the detected words add to it."""

    def __init__(self, width: int, num_hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_hidden, width))
        self.bias = nn.Parameter(torch.zeros(()))
        self.gate = Gate(num_hidden)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, state: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, D) and beta (B, M, K). state: (B, M, D). concepts: (B, K, d)."""
        turned = concepts.tanh() @ self.weight.T  # (B, K, D)
        shares = (state @ turned.mT + self.bias).softmax(dim=-1)
        return state + cast(Tensor, self.gate(shares @ turned)), shares


class Gate(nn.Module):
    """A weight for each of `width` numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def attention_penalty(shares: Tensor, is_real: Tensor) -> Tensor:
    """(B,) g(A) of (4.15): high where a detected word gets all of a sentence, and where a word of
    it attends to many.

    shares: (B, M, K). is_real: bool (B, M), the words that count.
    """
    shares = shares.float() * is_real[..., None]
    of_concepts = shares.sum(dim=1).square().sum(dim=1)  # (B,)
    of_words = (shares + _UNDER_ROOT).sqrt().sum(dim=2).square() * is_real  # (B, M)
    return (of_concepts + _UNDER_ROOT).sqrt() + of_words.sum(dim=1)
