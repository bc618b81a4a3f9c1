"""The loss of maps that are probabilities over cells."""

from torch import Tensor


def map_cross_entropy(logits: Tensor, target: Tensor, is_known: Tensor) -> Tensor:
    """Cross entropy of the softmax over the cells with a target map, mean over the known maps.

    logits, target: float (..., H, W), each target summing to 1. is_known: bool (...); a map whose
    target is not known has no influence. 0 if none is.
    """
    log_shares = logits.float().flatten(-2).log_softmax(dim=-1)
    entropies = -(target.flatten(-2) * log_shares).sum(dim=-1).masked_fill(~is_known, 0)
    return entropies.sum() / is_known.sum().clamp_min(1)
