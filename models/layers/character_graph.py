"""Who is who across clips: pairs of tracks, pairs of tokens, and the way between them (CiSIN).

B sets of clips, N character tokens, M person tracks. Masks tell what is not padding.
"""

import torch
from torch import Tensor, nn

from vlpipe.models.layers.sequences import masked_softmax


class Scaled(nn.Module):
    """weight * x + bias with one number each, which start at 1 and -0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.full((1,), -0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x + self.bias


def part_likeness(parts: Tensor, visible: Tensor) -> Tensor:
    """(B, M, M): mean product of two tracks' key points that both show; 0 without any (eq. 6.8).

    parts: (B, M, 17, C). visible: bool (B, M, 17).
    """
    seen = (parts * visible[..., None]).flatten(2)  # (B, M, 17 C)
    shown = visible.to(parts.dtype)
    return seen @ seen.mT / (shown @ shown.mT).clamp_min(1)


def own_clip_tracks(token_clip: Tensor, track_clip: Tensor) -> Tensor:
    """(B, N, M) bool: the track lies in the token's clip. Clips below 0 are padding."""
    is_own = token_clip[:, :, None] == track_clip[:, None]
    return is_own & (token_clip >= 0)[:, :, None]


def hard_assignment(grounding: Tensor, is_own: Tensor) -> Tensor:
    """(B, N, M): 1 at each token's best track of its own clip; a row of 0 without one."""
    best = grounding.masked_fill(~is_own, -torch.inf).argmax(dim=-1, keepdim=True)
    return torch.zeros_like(grounding).scatter(-1, best, 1.0) * is_own


def soft_assignment(grounding: Tensor, is_own: Tensor, *, sharpness: float = 1.0) -> Tensor:
    """(B, N, M): softmax of sharpness * grounding over the tracks of the token's own clip."""
    return masked_softmax(sharpness * grounding, is_own)


def linked_tokens(
    assignment: Tensor, same_track: Tensor, is_own: Tensor, *, same_clip: float | None
) -> Tensor:
    """Z = P V P^T, (B, N, N), equation (6.11) before its sigmoid.

    same_clip: row n of P V has this number at the tracks of token n's own clip, so that two tokens
    of a clip are others unless their sentences say otherwise (public code); None: as printed.
    """
    rows = assignment @ same_track  # (B, N, M)
    if same_clip is not None:
        rows = rows.masked_fill(is_own, same_clip)
    return rows @ assignment.mT
