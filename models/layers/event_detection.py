"""Events in time from the rows of a stream: convolutions, anchors, and what they learn from.

After the one-dimensional YOLO of "A Better Use of Audio-Visual Cues" (Iashin and Rahtu, BMVC 2020,
section 3.2; code: v-iashin/BMT). Every head looks at the same rows with its own kernel. At each row
and anchor (a length in seconds) it says three numbers c, l, o:

    centre = (sigmoid(c) + row) * stride    length = anchor * exp(l)    confidence = sigmoid(o)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NUMBERS = 3  # centre, logarithm of the length, confidence


class DetectionHead(nn.Module):
    """Rows (B, S, width) -> (B, S, 3 A)."""

    def __init__(
        self, width: int, hidden: Sequence[int], num_anchors: int, kernel: int, dropout: float
    ) -> None:
        super().__init__()
        sizes = [width, *hidden, _NUMBERS * num_anchors]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel if place == 0 else 1, padding="same")
            for place, (before, after) in enumerate(pairwise(sizes))
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT  # (B, width, S)
        for place, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if place + 1 < len(self.convolutions):
                x = F.relu(self.dropout(x))
        return x.mT


@dataclass(frozen=True, slots=True)
class EventTargets:
    """N events of B videos: item int64 (N,), centre_s and length_s float32 (N,), length_s > 0."""

    item: Tensor
    centre_s: Tensor
    length_s: Tensor

    @classmethod
    def of(cls, events: Tensor) -> "EventTargets":
        """events: (N, 3), item, start and end in seconds; those that do not end later than they
        start are left out."""
        kept = events[events[:, 2] > events[:, 1]]
        start_s, end_s = kept[:, 1], kept[:, 2]
        return cls(kept[:, 0].long(), ((start_s + end_s) / 2).float(), (end_s - start_s).float())


class EventDetector(nn.Module):
    """The heads of one stream. anchors: lengths in seconds, ascending, kept with the weights."""

    anchors: Tensor

    def __init__(
        self,
        width: int,
        hidden: Sequence[int],
        anchors: Sequence[float],
        kernels: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.tensor(anchors))
        self.heads = nn.ModuleList(
            DetectionHead(width, hidden, len(anchors), kernel, dropout) for kernel in kernels
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """What each head says of the rows x (B, S, width): (B, S, 3 A), channel anchor * 3 +
        number, before any sigmoid."""
        return [head(x).float() for head in self.heads]

    def predictions(self, raw: Sequence[Tensor], stride_s: Tensor) -> Tensor:
        """(B, P, 3) centre and length in seconds, and confidence, of P = heads * A * S; in a head
        all rows of the first anchor come first. stride_s: (B,), from row to row."""
        return torch.cat([self._decoded(said, stride_s) for said in raw], dim=1)

    def _decoded(self, said: Tensor, stride_s: Tensor) -> Tensor:
        numbers = self._numbers(said.detach())  # (B, A, S, 3)
        rows = torch.arange(numbers.shape[2], device=said.device)
        centre = (numbers[..., 0].sigmoid() + rows) * stride_s[:, None, None]
        length = self.anchors[:, None] * numbers[..., 1].exp()
        return torch.stack([centre, length, numbers[..., 2].sigmoid()], dim=-1).flatten(1, 2)

    def losses(self, raw: Sequence[Tensor], events: EventTargets, stride_s: Tensor) -> Tensor:
        """(4,) sums over the heads: squared error of the centre in its row and of the logarithm of
        the length, cross entropy of the rows with an event, and of all others.

        An event belongs to the anchor whose length is most like its own, and to the row that holds
        its centre. Without events the first three are 0.
        """
        batch, num_rows = raw[0].shape[:2]
        place = events.centre_s / stride_s[events.item]  # (N,), in rows
        row = place.long().clamp(0, num_rows - 1)
        lengths = events.length_s[:, None], self.anchors[None]  # (N, 1), (1, A)
        overlap = torch.minimum(*lengths) / torch.maximum(*lengths)
        anchor = overlap.argmax(dim=1)  # (N,)
        cells = events.item, anchor, row
        wanted = torch.zeros(batch, len(self.anchors), num_rows, 2, device=place.device)
        wanted[cells] = torch.stack(
            [place - place.floor(), (events.length_s / self.anchors[anchor]).log()], dim=-1
        )
        is_event = torch.zeros(wanted.shape[:3], dtype=torch.bool, device=place.device)
        is_event[cells] = True
        goal = wanted[is_event]  # (events without those that share a cell, 2)
        return torch.stack([_head_losses(self._numbers(r), is_event, goal) for r in raw]).sum(0)

    @staticmethod
    def _numbers(said: Tensor) -> Tensor:
        """(B, S, 3 A) -> (B, A, S, 3)"""
        return said.reshape(*said.shape[:2], -1, _NUMBERS).transpose(1, 2)


def _head_losses(numbers: Tensor, is_event: Tensor, goal: Tensor) -> Tensor:
    found, confidence = numbers[is_event], numbers[..., 2]
    others = confidence[~is_event]
    nothing = F.binary_cross_entropy_with_logits(others, torch.zeros_like(others))
    if not len(goal):
        zero = nothing.new_zeros(())
        return torch.stack([zero, zero, zero, nothing])
    return torch.stack(
        [
            F.mse_loss(found[:, 0].sigmoid(), goal[:, 0]),
            F.mse_loss(found[:, 1], goal[:, 1]),
            F.binary_cross_entropy_with_logits(found[:, 2], torch.ones_like(found[:, 2])),
            nothing,
        ]
    )
