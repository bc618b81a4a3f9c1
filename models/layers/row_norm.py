"""Batch normalisation of rows, which a batch of a single row does not end."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RowNorm(nn.BatchNorm1d):
    """`BatchNorm1d` of (N, C) or (N, C, T), with its parameters and statistics.

    In training a channel with fewer than two values has no spread to learn from (the last batch of
    an epoch may be a single example): it is scaled by the statistics of the batches before.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() < 2 * self.num_features:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def normalise_real(norm: RowNorm, x: Tensor, mask: Tensor) -> Tensor:
    """(B, S, ..., C) normalised a channel over the places of mask, bool (B, S); 0 elsewhere."""
    real = x[mask]  # (real, ..., C)
    scaled = norm(real.flatten(0, -2)).view_as(real)
    around = mask.view(*mask.shape, *(1 for _ in x.shape[2:])).expand_as(x)
    return torch.zeros_like(x).masked_scatter(around, scaled.to(x.dtype))
