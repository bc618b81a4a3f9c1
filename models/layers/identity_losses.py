"""What CiSIN learns from: grounding, tracks of one person, tokens of one person, gender.

B sets, N tokens, M tracks. All terms are means that ignore padding, and 0 where nothing is known.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GROUNDING_MARGIN, TRACK_MARGIN = 3.0, 2.0
_NEVER = -1e9


@dataclass(frozen=True, slots=True)
class IdentityWeights:
    """How much each term counts; those of the public code."""

    grounding: float = 1.0
    text: float = 0.1
    video: float = 0.1
    gender: float = 1.0


def grounding_loss(
    scores: Tensor, is_right: Tensor, is_own: Tensor, is_token: Tensor, *, margin: float = 3.0
) -> Tensor:
    """Equations (6.12) and (6.13) with the hardest wrong and the best right pair each way.

    scores: (B, N, M). is_right: bool (B, N, M), the tracks of the token's character in its clip.
    is_own: bool (B, N, M), tracks of its clip. is_token: bool (B, N). Tokens without a right
    track, or without a wrong one, take no part. Wrong tokens for a track are all of the set that
    are not right for it; a track counts once for each of its tokens.
    """
    scores = scores.float()
    right = is_right & is_own & is_token[..., None]
    by_token = _hinge(scores, right, is_own & ~right, margin, dim=2)  # (B, N)
    num_tokens = is_token.sum(dim=1).clamp_min(1)
    others = is_token[..., None] & ~right & right.any(dim=1, keepdim=True)
    by_track = _hinge(scores, right, others, margin, dim=1)  # (B, M)
    uses = right.sum(dim=1)
    return (
        by_token.sum(dim=1) / num_tokens
        + (by_track * uses).sum(dim=1) / uses.sum(dim=1).clamp_min(1)
    ).mean()


def track_loss(
    same_track: Tensor,
    is_same: Tensor,
    is_known: Tensor,
    *,
    kind: Literal["triplets", "cross_entropy"],
    margin: float = TRACK_MARGIN,
) -> Tensor:
    """Of V (B, M, M): triplets max(0, margin - V+ + V-) around each track (6.14), or the binary
    cross entropy of sigmoid(V) (public code).

    is_same: bool (B, M, M). is_known: bool (B, M), tracks whose person is known.
    """
    same_track, pairs = same_track.float(), _pairs(is_known)
    if kind == "cross_entropy":
        terms = F.binary_cross_entropy_with_logits(same_track, is_same.float(), reduction="none")
        return _mean_of_sets(terms, pairs)
    positive, negative = pairs & is_same, pairs & ~is_same
    triplets = positive[..., :, None] & negative[..., None, :]  # (B, M, M, M)
    terms = (margin - same_track[..., :, None] + same_track[..., None, :]).clamp_min(0)
    return (terms * triplets).sum() / triplets.sum().clamp_min(1)


def token_loss(same: Tensor, is_same: Tensor, is_known: Tensor) -> Tensor:
    """Binary cross entropy of C (B, N, N), shares from 0 to 1, over pairs without the diagonal."""
    with torch.autocast(same.device.type, enabled=False):
        terms = F.binary_cross_entropy(same.float(), is_same.float(), reduction="none")
    return _mean_of_sets(terms, _pairs(is_known))


def gender_loss(gender: Tensor, is_female: Tensor, is_known: Tensor) -> Tensor:
    """Binary cross entropy of shares (B, N) where the gender is known."""
    with torch.autocast(gender.device.type, enabled=False):
        terms = F.binary_cross_entropy(gender.float(), is_female.float(), reduction="none")
    return (terms * is_known).sum() / is_known.sum().clamp_min(1)


def _hinge(scores: Tensor, right: Tensor, wrong: Tensor, margin: float, dim: int) -> Tensor:
    best = scores.masked_fill(~right, _NEVER).amax(dim)
    worst = scores.masked_fill(~wrong, _NEVER).amax(dim)
    both = right.any(dim) & wrong.any(dim)
    return (margin - best + worst).clamp_min(0).where(both, torch.zeros_like(best))


def _pairs(is_known: Tensor) -> Tensor:
    """(B, N, N) bool: both are known and they are two."""
    size = is_known.shape[1]
    others = ~torch.eye(size, dtype=torch.bool, device=is_known.device)
    return is_known[:, :, None] & is_known[:, None] & others


def _mean_of_sets(terms: Tensor, pairs: Tensor) -> Tensor:
    total = (terms * pairs).sum(dim=(1, 2))
    return (total / pairs.sum(dim=(1, 2)).clamp_min(1)).mean()
