"""The joint tensor of a video and a sentence, and the convolutions that read it (JSFusion, 2018).

P pairs, F frames, M words, D width of both, C channels. Frames stand at the end of their rows,
words at the start. A cell (frame, word) is valid where both are there; elsewhere everything is 0.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.models.layers.padded_rnn import standing_positions
from vlpipe.models.layers.row_norm import RowNorm

Activation = Callable[[Tensor], Tensor]

KERNEL = 3
STRIDES = (1, 1, 2)
LEAST_STEPS = 7
"""An axis must be that long for three stages to have an output."""

_NORM_EPS = 1e-3


class Dense(nn.Module):
    """activation(norm(W x + b)) of (..., in); the norm is over all leading axes.

    Evaluation folds the norm into W and b: one product, nothing else to read or write.
    """

    def __init__(
        self,
        num_in: int,
        num_out: int,
        activation: Activation | None = torch.tanh,
        *,
        has_norm: bool = True,
        has_bias: bool = True,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(num_in, num_out, bias=has_bias)
        self.norm = RowNorm(num_out, eps=_NORM_EPS) if has_norm else None
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is None:
            x = self.linear(x)
        elif self.training:
            y = self.linear(x)
            x = self.norm(y.reshape(-1, y.shape[-1])).view_as(y)
        else:
            norm = self.norm
            mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
            scale = norm.weight * (variance + norm.eps).rsqrt()  # (out,)
            shift = norm.bias - mean * scale
            if self.linear.bias is not None:
                shift = shift + self.linear.bias * scale
            x = F.linear(x, self.linear.weight * scale[:, None], shift)
        return x if self.activation is None else self.activation(x)


def valid_dense(layer: Dense, x: Tensor, mask: Tensor) -> Tensor:
    """The layer over the places of x (..., in) where mask (...) is True; 0 elsewhere.

    What is padded takes no part in the norm's statistics.
    """
    return _scattered(mask, layer(x[mask]))


def shrunk(length: Tensor, stride: int) -> Tensor:
    """How many outputs of a stage are valid, at least 1, for inputs of that length."""
    return ((length - 1) // 2 if stride == 2 else length - 2).clamp_min(1)


class JointTensor(nn.Module):
    """J = alpha * gamma of every valid cell, equations (5.2) and (5.3)."""

    def __init__(
        self, width: int, channels: int, dropout: float, *, attention: bool, attention_norm: bool
    ) -> None:
        super().__init__()
        self.has_attention = attention
        if attention:
            self.d2 = Dense(width, channels)
            self.att = Dense(channels, 1, torch.sigmoid, has_norm=attention_norm, has_bias=False)
        self.d3 = Dense(width, channels)
        self.d4 = Dense(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """(K, D) products of frame and word -> J (K, C), alpha (K, 1)."""
        gamma = self.d4(self.dropout(self.d3(cells)))
        if not self.has_attention:
            return gamma, torch.ones_like(gamma[:, :1])
        alpha = self.att(self.dropout(self.d2(cells)))
        return alpha * gamma, alpha


class GatedStage(nn.Module):
    """One of the three stages, equation (5.4): (P, C, ...) -> (P, C', ...), without padding.

    kind: `conv`, or pooling over the same windows in its place, which keeps the channels.
    axes: 2 for frames x words, 1 for frames alone, where convolution and gate are one layer.
    """

    def __init__(
        self,
        num_in: int,
        num_out: int,
        stride: int,
        *,
        kind: Literal["conv", "max", "mean"],
        has_gate: bool,
        activation: Activation | None,
        gate_activation: Activation | None,
        axes: Literal[1, 2] = 2,
    ) -> None:
        super().__init__()
        self.kind, self.stride, self.axes = kind, stride, axes
        self.activation, self.gate_activation = activation, gate_activation
        make = nn.Conv2d if axes == 2 else nn.Conv1d
        is_joined = axes == 1
        self.conv = make(num_in, num_out + is_joined, KERNEL, stride) if kind == "conv" else None
        self.gate = make(num_in, 1, KERNEL, stride) if has_gate and not is_joined else None
        self.num_out = num_out if kind == "conv" else num_in

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gated map, and the gate (P, 1, ...), which is None without one."""
        if self.conv is None:
            pool = F.max_pool2d if self.kind == "max" else F.avg_pool2d
            y = pool(x, KERNEL, self.stride)
            gate = None if self.gate is None else self.gate(x)
        else:
            weight, bias = self.conv.weight, cast(Tensor, self.conv.bias)
            if self.gate is not None:  # as one more channel it costs one pass over x less
                weight = torch.cat([weight, self.gate.weight])
                bias = torch.cat([bias, cast(Tensor, self.gate.bias)])
            convolve = F.conv2d if self.axes == 2 else F.conv1d
            y = convolve(x, weight, bias, self.stride)
            gate = y[:, self.num_out :] if y.shape[1] > self.num_out else None
            y = y[:, : self.num_out]
        if self.activation is not None and self.conv is not None:
            y = self.activation(y)
        if gate is None:
            return y, None
        if self.gate_activation is not None:
            gate = self.gate_activation(gate)
        gate = gate.sigmoid()
        return y * gate, gate


class Fused(NamedTuple):
    """pooled: (P, C). alpha: (P, F, M) or (P, F). gates: of each stage, (P, F', M') or (P, F')."""

    pooled: Tensor
    alpha: Tensor
    gates: tuple[Tensor, ...]


class JointFusion(nn.Module):
    """Pairs of encoded frames and words -> one vector a pair, read from the joint tensor alone.

    pool: `mean` over the valid cells of the last map, or their `sum`.
    """

    def __init__(
        self, tensor: JointTensor, stages: Sequence[GatedStage], pool: Literal["mean", "sum"]
    ) -> None:
        super().__init__()
        self.tensor = tensor
        self.stage1, self.stage2, self.stage3 = stages
        self.pool = pool

    def forward(
        self, frames: Tensor, num_frames: Tensor, words: Tensor, num_words: Tensor | None
    ) -> Fused:
        """frames: (P, F, D). words: (P, M, D), or (P, D) and num_words None: a single word each,
        and no axis of words. num_frames, num_words: int (P,), how many are there."""
        lengths = [num_frames] if num_words is None else [num_frames, num_words]
        valid = _valid_cells(lengths, [frames.shape[1], words.shape[1]])
        if num_words is None:
            cells = (frames * words[:, None])[valid]
        elif bool(valid.all()):
            cells = (frames[:, :, None] * words[:, None]).flatten(0, 2)
        else:
            pair, row, column = valid.nonzero(as_tuple=True)
            cells = frames[pair, row] * words[pair, column]
        joint, alpha = self.tensor(cells)
        x = _scattered(valid, joint).movedim(-1, 1)  # (P, C, F[, M])
        gates = []
        for stage in (self.stage1, self.stage2, self.stage3):
            y, gate = stage(x)
            lengths = [shrunk(length, stage.stride) for length in lengths]
            outside = ~_valid_cells(lengths, y.shape[2:])[:, None]
            x = y.masked_fill(outside, 0)
            if gate is not None:
                gates.append(gate.masked_fill(outside, 0).squeeze(1))
        pooled = x.flatten(2).sum(dim=2)  # (P, C)
        if self.pool == "mean":
            pooled = pooled / torch.stack(lengths).prod(dim=0)[:, None]
        return Fused(pooled, _scattered(valid, alpha).squeeze(-1), tuple(gates))


def cropped(
    frames: Tensor, num_frames: Tensor, words: Tensor, num_words: Tensor
) -> tuple[Tensor, Tensor]:
    """frames (P, F, D) and words (P, M, D) without what no pair has: the fused vector is the same.

    Frames lose an even number of rows, so that the stage of stride 2 reads the same windows.
    """
    longest = max(int(num_frames.max()), LEAST_STEPS)
    start = max(frames.shape[1] - longest, 0) // 2 * 2
    return frames[:, start:], words[:, : max(int(num_words.max()), LEAST_STEPS)]


def _valid_cells(lengths: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """(P, F) bool of frames alone, or (P, F, M) of frames and words."""
    valid = standing_positions(lengths[0], sizes[0], "end")
    if len(lengths) == 1:
        return valid
    return valid[:, :, None] & standing_positions(lengths[1], sizes[1], "start")[:, None]


def _scattered(mask: Tensor, rows: Tensor) -> Tensor:
    """(*mask, C) with the rows (valid, C) where mask is True, 0 elsewhere."""
    if len(rows) == mask.numel():
        return rows.view(*mask.shape, -1)
    full = rows.new_zeros(*mask.shape, rows.shape[-1])
    full[mask] = rows
    return full
