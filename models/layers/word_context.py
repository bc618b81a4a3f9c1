"""Words in their context, learnt from scratch: a table of vectors and a two-way LSTM over them."""

import torch
from torch import Tensor, nn

from vlpipe.models.layers.padded_rnn import run_over_sequences


class WordContext(nn.Module):
    """Ids of words (B, L), mask (B, L), True at real ones, from the left -> (B, L, D).

    Each word is its own vector beside what the LSTM says of its neighbours, half of D each, so
    that a word that is seen once is not lost in a context that is new.
    """

    def __init__(self, vocabulary_size: int, width: int, dropout: float) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"a width of {width} does not part into four")
        self.words = nn.Embedding(vocabulary_size, width // 2, padding_idx=0)
        self.context = nn.LSTM(width // 2, width // 4, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        words = self.dropout(self.words(ids))  # (B, L, D / 2)
        context, _ = run_over_sequences(self.context, words, mask.sum(dim=1).clamp_min(1), "start")
        return torch.cat([words, context], dim=-1)
