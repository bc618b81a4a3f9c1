"""Memory for intermediate results that is written again and again.

Pages that the system hands out are cleared first, one by one when they are touched: for a map of
some megabytes that takes longer than the arithmetic that fills it.
"""

import math

import torch
from torch import Tensor


class Scratch:
    """Named buffers of float32 on the CPU, each as large as the largest that was asked for."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of that shape with any content; the one last taken by that name is void."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size)
        return self._buffers[name][:size].view(shape)
