"""Losses of frames that are relevant to an answer: gates open inside a span, shut outside.

Kim et al. (2020, arXiv 2005.06409), sections 3.5 and 3.6. A span that covers all frames leaves
none outside, for which the published code divides 0 by 0; here an empty side adds nothing.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def balanced_cross_entropy(logits: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """Scalar: cross entropy of logits (B, F), as a mean over the frames inside plus a mean over
    those outside, summed over the batch. inside, outside: bool (B, F), of real frames."""
    logits = logits.float()
    opened = _mean(F.softplus(-logits), inside)  # -log sigmoid
    shut = _mean(F.softplus(logits), outside)  # -log (1 - sigmoid)
    return (opened + shut).sum()


def in_and_out_margin(gates: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """Scalar: 1 + mean outside - mean inside of gates (B, F) from 0 to 1, summed over the batch."""
    gates = gates.float()
    return (1 + _mean(gates, outside) - _mean(gates, inside)).sum()


def frame_selection_losses(
    outputs: Mapping[str, Tensor], answer: Tensor, relevant: Tensor | None
) -> dict[str, Tensor]:
    """`loss_ce_sum`, and with relevant, bool (B, F), `loss_bbce` and `loss_iofsm`, sums over the
    batch; `loss` is their sum. outputs: of the network. answer: int64 (B,)."""
    losses = {"loss_ce_sum": F.cross_entropy(outputs["scores"], answer, reduction="sum")}
    if relevant is not None:
        logits, gates, real = (
            _of_answers(outputs[name], answer)
            for name in ("frame_logits", "frame_gates", "frame_mask")
        )
        inside, outside = relevant & real, ~relevant & real
        losses["loss_bbce"] = balanced_cross_entropy(logits, inside, outside)
        losses["loss_iofsm"] = in_and_out_margin(gates, inside, outside)
    return losses | {"loss": torch.stack(list(losses.values())).sum()}


def _of_answers(values: Tensor, answer: Tensor) -> Tensor:
    """(B, F): of values (B, K, F) those of the candidate `answer`, int64 (B,)."""
    return values[torch.arange(len(values), device=values.device), answer]


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """(B,): over the places of mask; 0 where there is none."""
    total = values.masked_fill(~mask, 0.0).sum(dim=-1)
    return total / mask.sum(dim=-1).clamp_min(1)
