"""What a question is answered with, and how scores become answers and losses.

    count            one number: squared error; rounded half to even and clamped to 1..10
    multiple choice  a score for each of K candidates: hinge with margin 1; the first of the highest
    answer set       a score for each known answer: cross entropy; the first of the highest

Rules of TGIF-QA and of the code of HGA and MASN (the hinge as one expression, not a double loop).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

COUNT, MULTIPLE_CHOICE, ANSWER_SET = "count", "multiple_choice", "answer_set"
LEAST_COUNT, MOST_COUNT = 1, 10
NO_ANSWER = -1
"""The index of a right answer that is not in the answer set: no signal, and never correct."""


def count_predictions(logits: Tensor) -> Tensor:
    """(B,) int64 in 1..10 of raw numbers (B,)."""
    return logits.float().round().clamp(LEAST_COUNT, MOST_COUNT).long()


def count_loss(logits: Tensor, answer: Tensor) -> Tensor:
    """Mean squared error of the raw numbers (B,) against counts (B,), 0 raised to 1."""
    return F.mse_loss(logits.float(), answer.float().clamp_min(LEAST_COUNT))


def hinge_loss(logits: Tensor, answer: Tensor) -> Tensor:
    """Mean over rows and wrong candidates of max(0, 1 + wrong - right); (B, K), (B,)."""
    logits = logits.float()
    right = logits.gather(1, answer[:, None])  # (B, 1)
    wrong = torch.ones_like(logits, dtype=torch.bool).scatter(1, answer[:, None], False)
    return (1 + logits - right).clamp_min(0)[wrong].mean()


def answer_set_loss(logits: Tensor, answer: Tensor) -> Tensor:
    """Cross entropy of (B, A), (B,); rows whose answer is NO_ANSWER count for nothing."""
    kept = (answer != NO_ANSWER).sum().clamp_min(1)
    total = F.cross_entropy(logits.float(), answer, ignore_index=NO_ANSWER, reduction="sum")
    return total / kept


def answer_loss(kind: str, logits: Tensor, answer: Tensor) -> Tensor:
    """The training loss of one of the three kinds, a scalar."""
    losses = {COUNT: count_loss, MULTIPLE_CHOICE: hinge_loss, ANSWER_SET: answer_set_loss}
    return losses[kind](logits, answer)


def answer_predictions(kind: str, logits: Tensor) -> Tensor:
    """(B,) int64: the count, the place of the candidate, or the index in the answer set."""
    return count_predictions(logits) if kind == COUNT else logits.argmax(dim=1)
