"""What rows of features pass before a network of their own width: scaling and a linear map."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.models.layers.row_norm import RowNorm, normalise_real


class InputProjection(nn.Module):
    """(B, S, num_in) -> (B, S, num_out); with neither scaling nor map the rows as they are.

    num_out: channels after a linear map with ReLU, times sqrt(num_out) before that (BMT); None: no
    map. is_normalised: real rows are centred and scaled a channel, in training by the batch and
    then by the statistics that training saw; rows of padding become 0. What comes of them has the
    size of positions then, and attention to it is soft: it is not multiplied.
    """

    def __init__(self, num_in: int, num_out: int | None, *, is_normalised: bool = False) -> None:
        super().__init__()
        self.norm = RowNorm(num_in, affine=False) if is_normalised else None
        self.map = nn.Linear(num_in, num_out) if num_out is not None else None
        self.scale = 1.0 if is_normalised or num_out is None else num_out**0.5

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """mask: bool (B, S), True where a row is real."""
        if self.norm is not None:
            x = normalise_real(self.norm, x, mask)
        if self.map is None:
            return x
        return F.relu(cast(Tensor, self.map(x)) * self.scale)
