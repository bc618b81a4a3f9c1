"""Events from two readings of a video, forwards and backwards (Bi-SST).

Paper: Bidirectional Attentive Fusion with Context Gating for Dense Video Captioning (Wang et al.,
CVPR 2018, section 3.1), after SST (Buch et al., CVPR 2017). At each row the forward reading scores
events of K lengths that end there, the backward reading events that start there; an event's
confidence is the product of both scores. iPerceive names it and publishes no code, so the loss is
ours: cross entropy against "some true event overlaps by half", cells with and without one in equal
parts.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

_ENOUGH = 0.5  # tIoU with a true event


class BiSst(nn.Module):
    """anchors_s: the K lengths in seconds, kept with the weights."""

    anchors: Tensor

    def __init__(self, width: int, hidden: int, anchors_s: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.tensor(anchors_s))
        self.reading = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.ends = nn.Linear(hidden, len(anchors_s))
        self.starts = nn.Linear(hidden, len(anchors_s))

    def forward(
        self, x: Tensor, mask: Tensor, step_s: Tensor, events: Tensor | None
    ) -> dict[str, Tensor]:
        """x: (B, S, width). mask: bool (B, S), real rows first. step_s: (B,), seconds from row to
        row. events: (N, 3), item, start and end in seconds.

        Returns `predictions`, float32 (B, S K, 3), centre and length in seconds and confidence, 0
        where a row is padding; and, if events are given, `proposal_loss`.
        """
        length = mask.sum(dim=1).clamp_min(1)
        packed = pack_padded_sequence(x, length.cpu(), batch_first=True, enforce_sorted=False)
        read, _ = pad_packed_sequence(
            self.reading(packed)[0], batch_first=True, total_length=x.shape[1]
        )
        forwards, backwards = read.chunk(2, dim=-1)  # (B, S, hidden)
        ends, starts = self.ends(forwards).float(), self.starts(backwards).float()  # (B, S, K)
        num_rows = (self.anchors / step_s.float()[:, None]).round().clamp_min(1).long()  # (B, K)
        last = torch.arange(x.shape[1], device=x.device)[:, None]  # (S, 1)
        first = (last - num_rows[:, None] + 1).clamp_min(0)  # (B, S, K)
        starts = starts.gather(1, first)
        step = step_s.float()[:, None, None]
        start_s, end_s = first * step, ((last + 1) * step).expand_as(first)
        real = mask[..., None].expand_as(first)
        confidence = ends.sigmoid() * starts.sigmoid() * real
        cells = torch.stack([(start_s + end_s) / 2, end_s - start_s, confidence.detach()], dim=-1)
        outputs = {"predictions": cells.flatten(1, 2)}
        if events is not None:
            wanted = _overlaps_enough(start_s, end_s, events)
            outputs["proposal_loss"] = sum(
                (_balanced(said[real], wanted[real]) for said in (ends, starts)),
                start=x.new_zeros(()),
            )
        return outputs


def _overlaps_enough(start_s: Tensor, end_s: Tensor, events: Tensor) -> Tensor:
    """bool (B, S, K): does the interval overlap some event of its item by half?"""
    found = torch.zeros_like(start_s, dtype=torch.bool)
    for item, start, end in events.tolist():
        mine = slice(int(item), int(item) + 1)
        overlap = (end_s[mine].clamp_max(end) - start_s[mine].clamp_min(start)).clamp_min(0)
        union = (end_s[mine] - start_s[mine]) + (end - start) - overlap
        found[mine] |= overlap >= _ENOUGH * union
    return found


def _balanced(said: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy of logits (n,) against bool (n,), both kinds in equal parts."""
    each = F.binary_cross_entropy_with_logits(said, wanted.float(), reduction="none")
    kinds = [each[wanted], each[~wanted]]
    return torch.stack([kind.mean() for kind in kinds if len(kind)]).mean()
