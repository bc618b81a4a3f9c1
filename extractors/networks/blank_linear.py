"""Large linear layers whose first weights nobody sees."""

from typing import cast

import torch
from torch import nn


def blank_linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer with undefined weights, for networks that always fill it: from a checkpoint,
    or with what they draw themselves. Drawing PyTorch's own tens of millions takes a second."""
    layer = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Linear, in_features, out_features, device=torch.get_default_device()
    )
    return cast("nn.Linear", layer)
