"""Recurrent layers over sequences that are padded in front or behind.

torch packs sequences that are padded behind. Those padded in front (the frames of JSFusion) are
moved to the front of their rows, run, and moved back.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Side = Literal["start", "end"]
"""Where in its rows a sequence stands: what is padded is at the other side."""


def standing_positions(length: Tensor, width: int, side: Side) -> Tensor:
    """(..., width) bool, True where a sequence of that length (...) stands."""
    places = torch.arange(width, device=length.device)
    if side == "start":
        return places < length[..., None]
    return places >= width - length[..., None]


def run_over_sequences(
    rnn: nn.LSTM, rows: Tensor, length: Tensor, side: Side
) -> tuple[Tensor, Tensor]:
    """(B, T, H) outputs of the real steps at their places, 0 elsewhere; (B, H) states at the ends.

    rows: (B, T, C). length: int (B,), at least 1. The end of the forward direction is the last real
    step, that of the backward direction the first; H holds both where the layer has both.
    """
    width = rows.shape[1]
    if side == "end":
        rows = rolled(rows, length - width)
    packed = pack_padded_sequence(rows, length.cpu(), batch_first=True, enforce_sorted=False)
    packed_outputs, (last, _) = rnn(packed)
    outputs, _ = pad_packed_sequence(packed_outputs, batch_first=True, total_length=width)
    if side == "end":
        outputs = rolled(outputs, width - length)
    return outputs, torch.cat(list(last), dim=-1)


def rolled(rows: Tensor, steps: Tensor) -> Tensor:
    """Each of (B, T, C) rotated along T by its own number of steps (B,)."""
    places = torch.arange(rows.shape[1], device=rows.device)
    source = (places - steps.to(rows.device)[:, None]) % rows.shape[1]  # (B, T)
    return rows.gather(1, source[..., None].expand_as(rows))
