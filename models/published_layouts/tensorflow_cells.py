"""LSTM cells of TensorFlow 1 as entries of `torch.nn.LSTM`."""

import torch
from torch import Tensor


def lstm_entries(value: Tensor, part: str, ending: str = "_l0") -> dict[str, Tensor]:
    """Entry of the layer -> tensor, for a kernel (in + H, 4 H) or a bias (4 H,).

    part: `kernel` or `weights`, else a bias. ending: layer and direction. The gates i, g, f, o
    become i, f, g, o, with the 1 that TensorFlow adds to the forget gate at run time.
    """
    i, g, f, o = value.chunk(4, dim=-1)
    if part in ("kernel", "weights"):
        weight = torch.cat([i, f, g, o], dim=-1).T  # (4 H, in + H)
        num_hidden = weight.shape[0] // 4
        return {
            f"weight_ih{ending}": weight[:, :-num_hidden].contiguous(),
            f"weight_hh{ending}": weight[:, -num_hidden:].contiguous(),
        }
    bias = torch.cat([i, f + 1.0, g, o])
    return {f"bias_ih{ending}": bias, f"bias_hh{ending}": torch.zeros_like(bias)}
