"""Margins between the scores of right and wrong pairs (JSFusion, equation 5.6)."""

from typing import Literal

import torch
from torch import Tensor

MARGIN = 10.0


def retrieval_loss(
    scores: Tensor,
    *,
    is_other: Tensor | None = None,
    per: Literal["video", "pair"] = "video",
    margin: float = MARGIN,
) -> Tensor:
    """Sum over sentences l of max(0, S[k, l] - S[k, k] + margin), its mean over videos k.

    scores: (L, L), row k a video and column k its sentence. The sentence itself is in the sum, as
    printed, and adds the constant margin. is_other: bool (L, L), False where sentence l also
    describes video k and is no mistake; the diagonal of it is not read. per: `pair` divides by L
    once more (public code).
    """
    terms = (scores.float() - scores.float().diagonal()[:, None] + margin).clamp_min(0)
    if is_other is not None:
        own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        terms = terms.masked_fill(~(is_other | own), 0)
    total = terms.sum() / len(scores)
    return total if per == "video" else total / len(scores)


def choice_loss(
    scores: Tensor, answer: Tensor, *, is_counted: Tensor | None = None, margin: float = MARGIN
) -> Tensor:
    """Sum over candidates of max(0, S[candidate] - S[right] + margin), its mean over rows.

    scores: (B, K). answer: int (B,), the place of the right one, which adds the constant margin.
    is_counted: bool (B, K), False for candidates that are no mistake.
    """
    scores = scores.float()
    right = scores.gather(1, answer[:, None])  # (B, 1)
    terms = (scores - right + margin).clamp_min(0)
    if is_counted is not None:
        terms = terms.masked_fill(~is_counted, 0)
    return terms.sum(dim=1).mean()
