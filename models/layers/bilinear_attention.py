"""Attention over all pairs of nodes and words, low-rank bilinear, with several glimpses.

Bilinear Attention Networks (Kim, Jun and Zhang, NeurIPS 2018), as MASN uses them.

V videos, K questions of each, M nodes, L words, D width, G glimpses, R rank.
"""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.models.layers.sequences import masked_softmax
from vlpipe.models.layers.weight_norm import WeightNormLinear

_INPUT_DROPOUT, _NODE_DROPOUT = 0.2, 0.5
_RANK_OF_WIDTH = 3


class NodeSide(NamedTuple):
    """What the attention needs of the nodes, made once for all questions about them.

    ranked: (V, M, R). glimpses: G tensors (V, M, D). mask: (V, M) bool.
    """

    ranked: Tensor
    glimpses: tuple[Tensor, ...]
    mask: Tensor


class BilinearAttention(nn.Module):
    """Adds to every word of a question what the pairs of nodes and words say, glimpse by glimpse.

    1.  logit[g, i, j] = sum_k H[g, k] v[i, k] q[j, k] + c[g], with v = ReLU(W nodes) and
        q = ReLU(W' words), of the first words alone; softmax over all pairs (i, j).
    2.  For each glimpse in turn: b = sum_ij att[g, i, j] v'_i * q'_j of the words so far, and every
        position of the question, padded ones as well, gets W b added.
    """

    def __init__(self, width: int, num_glimpses: int, *, dropout_scale: float = 1.0) -> None:
        super().__init__()
        self.dropout_scale = dropout_scale
        rank = _RANK_OF_WIDTH * width
        self.nodes = WeightNormLinear(width, rank)
        self.words = WeightNormLinear(width, rank)
        self.direction = nn.Parameter(torch.empty(1, num_glimpses, 1, rank).normal_())
        self.gain = nn.Parameter(self.direction.norm().detach().clone())
        self.bias = nn.Parameter(torch.empty(1, num_glimpses, 1, 1).normal_())
        glimpses = range(num_glimpses)
        self.glimpse_nodes = nn.ModuleList(WeightNormLinear(width, width) for _ in glimpses)
        self.glimpse_words = nn.ModuleList(WeightNormLinear(width, width) for _ in glimpses)
        self.updates = nn.ModuleList(WeightNormLinear(width, width) for _ in glimpses)

    def _drop(self, x: Tensor, share: float = _INPUT_DROPOUT) -> Tensor:
        return F.dropout(x, share * self.dropout_scale, self.training)

    def node_side(self, nodes: Tensor, mask: Tensor) -> NodeSide:
        """nodes: (V, M, D); mask: (V, M) bool."""
        ranked = self._drop(F.relu(self.nodes(self._drop(nodes))), _NODE_DROPOUT)  # (V, M, R)
        glimpses = tuple(F.relu(layer(self._drop(nodes))) for layer in self.glimpse_nodes)
        return NodeSide(ranked, glimpses, mask)

    def forward(self, side: NodeSide, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """words: (V, K, L, D), mask: (V, K, L) bool -> words (V, K, L, D), attention
        (V, K, G, L, M), which sums to 1 over (L, M)."""
        num_videos, num_questions, num_words, width = words.shape
        ranked = F.relu(self.words(self._drop(words))).flatten(1, 2)  # (V, K L, R)
        head = self.direction * (self.gain / self.direction.norm())  # (1, G, 1, R)
        logits = (ranked[:, None] * head) @ side.ranked[:, None].mT + self.bias  # (V, G, K L, M)
        logits = logits.unflatten(2, (num_questions, num_words)).transpose(1, 2)  # (V, K, G, L, M)
        pairs = mask[:, :, None, :, None] & side.mask[:, None, None, None, :]
        attention = masked_softmax(logits, pairs, dim=(-2, -1)).to(words.dtype)
        for g, (to_word, update) in enumerate(zip(self.glimpse_words, self.updates, strict=True)):
            weights = attention[:, :, g].flatten(1, 2)  # (V, K L, M)
            seen = (weights @ side.glimpses[g]).view(num_videos, num_questions, num_words, width)
            told = F.relu(to_word(self._drop(words)))  # (V, K, L, D)
            joint = (seen * told).sum(dim=2, keepdim=True)  # (V, K, 1, D)
            words = words + cast(Tensor, update(self._drop(joint)))
        return words, attention
