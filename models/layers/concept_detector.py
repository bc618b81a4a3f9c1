"""Which words a video shows: traces of attention over the cells of its frames (CT-SAN, 4.1-4.6).

V videos of T frames; maps of H x W cells with C channels, after pooling h x w, L = h w of them;
D hidden units; N words.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.models.layers.normed_lstm import Lstm

Detector = Literal["thesis", "public"]

_LEAST_SQUARE = 1e-12


class Detected(NamedTuple):
    """logits: (V, N). maps: (V, T, L, h, w), where each trace looks, 0 at padding."""

    logits: Tensor
    maps: Tensor


def pooled_cells(size: int) -> int:
    """How many rows or columns 2 x 2 pooling leaves, the odd border kept: 7 -> 4."""
    return -(-size // 2)


class ConceptDetector(nn.Module):
    """One LSTM, shared by L traces that begin at one cell each.

    kind: `thesis`, real frames alone and the products of cells and state as they are; `public`, for
        the code: tanh of the cells, channels of unit length over the cells, no bias of the words,
        and padding in front is read as well.
    num_words: 0 for the reduced frames alone, without traces.
    """

    def __init__(
        self, num_channels: int, num_hidden: int, num_words: int, num_cells: int, kind: Detector
    ) -> None:
        super().__init__()
        self.kind = kind
        self.video_conv = nn.Conv2d(num_channels, num_hidden, 3, padding=1, bias=False)
        if num_words:
            self.att_conv1 = nn.Conv2d(num_hidden, num_hidden, 3, padding=1)
            self.att_conv2 = nn.Conv2d(num_hidden, 1, 3, padding=1)
            self.trace_rnn = Lstm(num_hidden, num_hidden)
            self.out = nn.Linear(num_cells * num_hidden, num_words, bias=kind == "thesis")
            for layer in (self.att_conv1, self.att_conv2):
                assert layer.bias is not None
                nn.init.constant_(layer.bias, 0.1)  # public code

    def reduced(self, video: Tensor) -> Tensor:
        """(V, T, H, W, C) -> (V, T, D, h, w)."""
        maps = video.flatten(0, 1).permute(0, 3, 1, 2)  # (V T, C, H, W)
        # With ceil_mode the last row and column stay where their number is odd.
        maps = F.max_pool2d(maps, 2, 2, ceil_mode=True)
        found: Tensor = self.video_conv(maps)
        return found.view(*video.shape[:2], *found.shape[1:])

    def forward(self, cells: Tensor, is_real: Tensor) -> Detected:
        """cells: `reduced` frames, 0 at padding. is_real: bool (V, T), False in front."""
        num_videos, num_frames, width, height, columns = cells.shape
        num_cells = height * columns
        one_cell = torch.eye(num_cells, device=cells.device).view(1, num_cells, height, columns)
        state = cells.new_zeros(num_videos * num_cells, width)  # (V L, D)
        cell_state = state
        maps: list[Tensor] = []
        for place in range(num_frames):
            frame = cells[:, place]  # (V, D, h, w)
            here = is_real[:, place]
            begins = torch.ones_like(here) if place == 0 else ~is_real[:, place - 1]
            found = one_cell.expand(num_videos, -1, -1, -1)
            if not bool(begins.all()):
                looked = self._look(frame, state.view(num_videos, num_cells, width))
                found = torch.where(begins[:, None, None, None], found, looked)  # (V, L, h, w)
            context = torch.einsum("vlhw,vdhw->vld", found, frame).flatten(0, 1)
            _, (states, cells_after) = self.trace_rnn(
                context[:, None], (state[None], cell_state[None])
            )
            new_state, new_cell = states[0], cells_after[0]
            if self.kind == "thesis":
                is_read = here.repeat_interleave(num_cells)[:, None]
                state = torch.where(is_read, new_state, state)
                cell_state = torch.where(is_read, new_cell, cell_state)
            else:
                state, cell_state = new_state, new_cell
            maps.append(found * here[:, None, None, None])
        traces = state.view(num_videos, num_cells * width)  # trace after trace
        return Detected(self.out(traces), torch.stack(maps, dim=1))

    def _look(self, frame: Tensor, state: Tensor) -> Tensor:
        """(V, L, h, w) shares of the cells of frames (V, D, h, w), for states (V, L, D)."""
        if self.kind == "public":
            frame = frame.tanh()
        products = frame[:, None] * state[..., None, None]  # (V, L, D, h, w)
        if self.kind == "public":
            squares = products.square().sum(dim=(-2, -1), keepdim=True)
            products = products / squares.clamp_min(_LEAST_SQUARE).sqrt()
        scores = self.att_conv2(F.relu(self.att_conv1(products.flatten(0, 1))))  # (V L, 1, h, w)
        shares: Tensor = scores.flatten(1).softmax(dim=-1)
        return shares.view(*state.shape[:2], *frame.shape[-2:])


def concept_targets(sentence: Tensor, concept_ids: Tensor) -> Tensor:
    """float (B, N): 1 for each of the words `concept_ids` (N,) that a sentence (B, M) has."""
    found = torch.stack([torch.isin(concept_ids, words) for words in sentence])
    return found.float()
