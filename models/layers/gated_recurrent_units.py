"""Gated recurrent units as their paper has them (Cho et al., EMNLP 2014), over rows and over maps.

`torch.nn.GRU` differs: there the reset gate acts on U h, after the product, and not on h.
"""

from typing import Literal

import torch
from torch import Tensor, nn

UpdateGate = Literal["thesis", "keep"]
"""The next state: `thesis`, (1 - z) h + z c, where z says how much is new; `keep`, z h + (1 - z) c,
where it says how much stays. What was trained as one is wrong as the other."""


class PlainGru(nn.Module):
    """z, r = sigmoid(W x + U h), c = tanh(W x + U (r h)), from h = 0 on.

    Here with matrices: W has a bias, and U is orthogonal at first.
    """

    def __init__(self, num_in: int, hidden: int, update_gate: UpdateGate) -> None:
        super().__init__()
        self.update_gate = update_gate
        self.w_z, self.w_r, self.w_h = (self.of_input(num_in, hidden) for _ in range(3))
        self.u_z, self.u_r, self.u_h = (self.of_state(hidden) for _ in range(3))

    def of_input(self, num_in: int, hidden: int) -> nn.Module:
        """W of one gate."""
        return nn.Linear(num_in, hidden)

    def of_state(self, hidden: int) -> nn.Module:
        """U of one gate."""
        recurrent = nn.Linear(hidden, hidden, bias=False)
        nn.init.orthogonal_(recurrent.weight)
        return recurrent

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, ...) -> the state after each step, (B, T, hidden, ...)."""
        flat = x.flatten(0, 1)  # (B T, C, ...)
        update, reset, candidate = (
            layer(flat).unflatten(0, x.shape[:2]) for layer in (self.w_z, self.w_r, self.w_h)
        )  # (B, T, hidden, ...)
        h = torch.zeros_like(update[:, 0])
        states = []
        for t in range(x.shape[1]):
            z = (update[:, t] + self.u_z(h)).sigmoid()
            r = (reset[:, t] + self.u_r(h)).sigmoid()
            c = (candidate[:, t] + self.u_h(r * h)).tanh()
            h = (1 - z) * h + z * c if self.update_gate == "thesis" else z * h + (1 - z) * c
            states.append(h)
        return torch.stack(states, dim=1)


class ConvolutionalGru(PlainGru):
    """The same over maps (..., H, W): W and U are 3x3 convolutions with padding 1, without bias.

    GRU-RCN of Ballas et al., Delving Deeper into Convolutional Networks for Learning Video
    Representations (ICLR 2016).
    """

    def of_input(self, num_in: int, hidden: int) -> nn.Module:
        return nn.Conv2d(num_in, hidden, 3, padding=1, bias=False)

    def of_state(self, hidden: int) -> nn.Module:
        return nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)
