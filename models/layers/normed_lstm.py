"""LSTMs that begin with a given state, with layer normalisation where it is asked for.

Layer normalisation (Ba, Kiros and Hinton, 2016): of what the input and the state before add to the
gates, each by itself, and of the cell before its tanh.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class LstmState(NamedTuple):
    """hidden, cell: (layers, B, D). Both directions of a layer begin with the same."""

    hidden: Tensor
    cell: Tensor

    @property
    def last(self) -> Tensor:
        """(B, D) hidden state of the last layer."""
        return self.hidden[-1]

    def flat(self) -> Tensor:
        """(B, 2 layers D), a row a sequence; see `of_flat`."""
        both = torch.stack([self.hidden, self.cell])  # (2, layers, B, D)
        return both.permute(2, 0, 1, 3).flatten(1)

    @classmethod
    def of_flat(cls, rows: Tensor, num_layers: int) -> "LstmState":
        hidden, cell = rows.view(len(rows), 2, num_layers, -1).permute(1, 2, 0, 3)
        return cls(hidden.contiguous(), cell.contiguous())


class Lstm(nn.LSTM):
    """`torch.nn.LSTM` and its entries over sequences (B, T, C) that are padded behind.

    has_norms: adds a scale and a shift for each of the three normalisations of a layer.
    """

    def __init__(
        self,
        num_in: int,
        num_hidden: int,
        *,
        num_layers: int = 1,
        is_bidirectional: bool = False,
        has_norms: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            num_in,
            num_hidden,
            num_layers,
            batch_first=True,
            bidirectional=is_bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.norms: nn.ModuleDict | None = None
        if has_norms:
            sizes = {"input": 4 * num_hidden, "state": 4 * num_hidden, "cell": num_hidden}
            self.norms = nn.ModuleDict(
                {
                    f"{what}{ending}": nn.LayerNorm(size)
                    for ending in self._endings()
                    for what, size in sizes.items()
                }
            )

    def run(
        self, rows: Tensor, length: Tensor, start: LstmState | None = None
    ) -> tuple[Tensor, LstmState]:
        """Outputs (B, T, D or 2 D), 0 where padded, and the state behind each sequence's last row;
        of both directions, the forward one.

        rows: (B, T, C). length: int (B,), at least 1. start: None for zeros.
        """
        if start is None:
            zeros = rows.new_zeros(self.num_layers, len(rows), self.hidden_size)
            start = LstmState(zeros, zeros)
        if self.norms is not None:
            return self._run_normed(rows, length, start)
        directions = 2 if self.bidirectional else 1
        first = tuple(part.repeat_interleave(directions, dim=0) for part in start)
        packed = pack_padded_sequence(rows, length.cpu(), batch_first=True, enforce_sorted=False)
        outputs, (hidden, cell) = self(packed, first)
        padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=rows.shape[1])
        return padded, LstmState(hidden[::directions], cell[::directions])

    def _endings(self) -> list[str]:
        directions = ("", "_reverse") if self.bidirectional else ("",)
        return [f"_l{layer}{side}" for layer in range(self.num_layers) for side in directions]

    def _run_normed(
        self, rows: Tensor, length: Tensor, start: LstmState
    ) -> tuple[Tensor, LstmState]:
        is_real = torch.arange(rows.shape[1], device=rows.device) < length[:, None]  # (B, T)
        ends: list[tuple[Tensor, Tensor]] = []
        for layer in range(self.num_layers):
            if layer and self.training:
                rows = nn.functional.dropout(rows, self.dropout)
            first = start.hidden[layer], start.cell[layer]
            read, end = self._run_direction(rows, is_real, first, f"_l{layer}")
            if self.bidirectional:
                back, _ = self._run_direction(rows, is_real, first, f"_l{layer}_reverse")
                read = torch.cat([read, back], dim=-1)
            ends.append(end)
            rows = read
        hidden, cell = zip(*ends, strict=True)
        return rows, LstmState(torch.stack(hidden), torch.stack(cell))

    def _run_direction(
        self, rows: Tensor, is_real: Tensor, start: tuple[Tensor, Tensor], ending: str
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        assert self.norms is not None
        norm_input, norm_state, norm_cell = (
            self.norms[f"{what}{ending}"] for what in ("input", "state", "cell")
        )
        of_state: Tensor = getattr(self, f"weight_hh{ending}")
        bias = getattr(self, f"bias_ih{ending}") + getattr(self, f"bias_hh{ending}")
        of_rows = norm_input(rows @ getattr(self, f"weight_ih{ending}").T) + bias  # (B, T, 4 D)
        hidden, cell = start
        places = range(rows.shape[1])
        outputs: list[Tensor] = []
        for place in reversed(places) if ending.endswith("_reverse") else places:
            gates = of_rows[:, place] + norm_state(hidden @ of_state.T)
            i, f, g, o = gates.chunk(4, dim=-1)
            new_cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            new_hidden = o.sigmoid() * norm_cell(new_cell).tanh()
            is_here = is_real[:, place, None]
            cell = torch.where(is_here, new_cell, cell)
            hidden = torch.where(is_here, new_hidden, hidden)
            outputs.append(hidden * is_here)
        if ending.endswith("_reverse"):
            outputs.reverse()
        return torch.stack(outputs, dim=1), (hidden, cell)
