"""The graph of MASN: objects of all frames, and edges that their likeness draws."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.models.layers.sequences import masked_softmax
from vlpipe.models.layers.weight_norm import WeightNormLinear

_SHARPNESS = 100.0  # of the adjacency: rows become nearly one-hot


class ObjectGraph(nn.Module):
    """Nodes (B, M, D) exchange what they hold along edges that their likeness draws."""

    def __init__(self, width: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.edges = nn.ModuleList(
            WeightNormLinear(width, width, is_per_row=True, has_bias=False) for _ in range(2)
        )
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(num_layers))

    def forward(self, nodes: Tensor, mask: Tensor) -> Tensor:
        shape = nodes.shape[-1:]
        h = nodes
        for edge in self.edges:
            h = F.relu(edge(h))
        pairs = mask[:, :, None] & mask[:, None, :]  # (B, M, M)
        # In half precision a hundred times a sum of squares would overflow.
        with torch.autocast(h.device.type, enabled=False):
            likeness = h.float() @ h.float().mT  # (B, M, M)
        adjacency = masked_softmax(_SHARPNESS * likeness, pairs).to(nodes.dtype)
        x = nodes
        for layer in self.layers:
            x = self.dropout(F.relu(F.layer_norm(adjacency @ layer(x), shape)))
        return F.layer_norm(nodes + x, shape)
