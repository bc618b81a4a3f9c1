"""Linear maps whose weight is a direction times a gain (Salimans and Kingma, 2016).

torch has one with a gain per output row only, and under names that move with its versions; the
papers' checkpoints use a single gain for the whole matrix as well, so both are here.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.linalg import vector_norm


class WeightNormLinear(nn.Module):
    """(..., in) -> (..., out) by W = gain * direction / |direction|, and a bias if it has one.

    is_per_row: a gain and a norm for each output row, gain (out, 1); else one for the matrix,
        gain () and the Frobenius norm.
    """

    def __init__(
        self, num_in: int, num_out: int, *, is_per_row: bool = False, has_bias: bool = True
    ) -> None:
        super().__init__()
        self.is_per_row = is_per_row
        self.direction = nn.Parameter(torch.empty(num_out, num_in))
        nn.init.kaiming_uniform_(self.direction, a=math.sqrt(5))
        self.gain = nn.Parameter(self._norm().detach().clone())
        self.bias: nn.Parameter | None = None
        if has_bias:
            bound = num_in**-0.5
            self.bias = nn.Parameter(torch.empty(num_out).uniform_(-bound, bound))

    def initialise_he(self) -> None:
        """Draws the weight so that a ReLU behind it keeps the variance (He et al., 2015)."""
        with torch.no_grad():
            nn.init.kaiming_normal_(self.direction, nonlinearity="relu")
            self.gain.copy_(self._norm())

    def _norm(self) -> Tensor:
        if self.is_per_row:
            return cast(Tensor, vector_norm(self.direction, dim=1, keepdim=True))  # (out, 1)
        return cast(Tensor, vector_norm(self.direction))  # ()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.direction * (self.gain / self._norm())  # (out, in)
        return F.linear(x, weight, self.bias)
