"""SVT: TimeSformer's ViT-B/16 with attention over time and over space in turn.

Papers: Self-supervised Video Transformer (Ranasinghe et al., 2022); Is Space-Time Attention All
You Need for Video Understanding? (Bertasius et al., 2021). Code: kahnchana/svt,
`models/timesformer.py`. Entries of a checkpoint: `backbone.cls_token`, `backbone.pos_embed`,
`backbone.time_embed`, `backbone.patch_embed.proj.weight`, `backbone.blocks.0.norm1.weight`, ...,
`backbone.norm.bias`, 247 of them, with or without `backbone.`; those of the projection head,
`head.*`, are left out. 121.26 million parameters.

Data flow: (B, 3, T, H, W) -> patches (B, P, T, C), C = 768, with positions and times; one class
token of a clip, which has no time -> 12 blocks -> LayerNorm -> `tokens` (B, 1 + P T, 768): the
class token, then patch by patch its T steps; `cls` is token 0, `tokens_mean` the mean of the
others.
"""

import math
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.extractors.weights.checkpoint import Checkpoint

WIDTH = 768
DEPTH = 12
HEADS = 12
PATCH = 16
GRID = 14  # of the published file: 224 pixels
TIMES = 8
EPS = 1e-6

TimeResize = Literal["nearest", "tile"]


class Attention(nn.Module):
    """(N, L, 768) -> (N, L, 768): attention of 12 heads within each of N sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts  # (N, 12, L, 64) each
        seen = F.scaled_dot_product_attention(query, key, value)
        return cast(Tensor, self.proj(seen.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    """768 -> 3072 -> 768 with the exact GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))


class Block(nn.Module):
    """Attention over time, over space, then an MLP, each with its norm before and its sum after.

    cls: (B, 1, C). patches: (B, P, T, C).
    """

    def __init__(self) -> None:
        super().__init__()
        self.temporal_norm1 = nn.LayerNorm(WIDTH, eps=EPS)
        self.temporal_attn = Attention()
        self.temporal_fc = nn.Linear(WIDTH, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH, eps=EPS)
        self.attn = Attention()
        self.norm2 = nn.LayerNorm(WIDTH, eps=EPS)
        self.mlp = Mlp()

    def forward(self, cls: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        batch, cells, steps, _ = patches.shape
        over_time = self.temporal_attn(self.temporal_norm1(patches).flatten(0, 1))  # (B P, T, C)
        patches = patches + self.temporal_fc(over_time).view_as(patches)

        frames = patches.transpose(1, 2).flatten(0, 1)  # (B T, P, C)
        copies = cls.repeat_interleave(steps, dim=0)  # (B T, 1, C)
        seen = self.attn(self.norm1(torch.cat([copies, frames], dim=1)))  # (B T, 1 + P, C)
        seen = seen.unflatten(0, (batch, steps))  # (B, T, 1 + P, C)
        cls = cls + seen[:, :, :1].mean(dim=1)
        patches = patches + seen[:, :, 1:].transpose(1, 2)

        tokens = torch.cat([cls, patches.flatten(1, 2)], dim=1)  # (B, 1 + P T, C)
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens[:, :1], tokens[:, 1:].unflatten(1, (cells, steps))


class PatchEmbedding(nn.Module):
    """(N, 3, H, W) -> (N, P, 768), patches row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.proj(x)).flatten(2).transpose(1, 2)


class SvtNetwork(nn.Module):
    """(B, 3, T, H, W) normalised clips -> dict of `cls`, `tokens`, `tokens_mean`.

    time_resize: how the checkpoint's steps serve another T, see `resize_times`.
    Clips of any T, and of any H and W that are multiples of 16: positions are those of the
    nearest cell, as in the published code.
    """

    def __init__(self, *, time_resize: TimeResize = "nearest") -> None:
        super().__init__()
        self.time_resize: TimeResize = time_resize
        self.patch_embed = PatchEmbedding()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID**2, WIDTH))
        self.time_embed = nn.Parameter(torch.zeros(1, TIMES, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, eps=EPS)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        batch, _, steps, height, width = x.shape
        frames = x.transpose(1, 2).flatten(0, 1)  # (B T, 3, H, W)
        cells = self.patch_embed(frames).unflatten(0, (batch, steps)).transpose(1, 2)
        positions = resize_grid(self.pos_embed[:, 1:], height // PATCH, width // PATCH)
        times = resize_times(self.time_embed, steps, self.time_resize)  # (1, T, C)
        patches = cells + positions[:, :, None] + times[:, None]  # (B, P, T, C)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)  # (B, 1, C)
        for block in self.blocks:
            cls, patches = block(cls, patches)
        tokens = self.norm(torch.cat([cls, patches.flatten(1, 2)], dim=1))  # (B, 1 + P T, C)
        return {"cls": tokens[:, 0], "tokens": tokens, "tokens_mean": tokens[:, 1:].mean(dim=1)}

    def initialise_untrained(self) -> None:
        """Draws weights as training starts with, save that attention over time is not left out."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def load(self, checkpoint: Checkpoint) -> None:
        """Fills the network; a time embedding of another length is taken as it is.

        Raises WeightsRejected for a checkpoint of another network.
        """
        state = {
            key.removeprefix("backbone."): value
            for key, value in checkpoint.state.items()
            if not key.startswith("head.")
        }
        times = state.get("time_embed")
        if times is not None and times.ndim == 3 and times.shape[::2] == (1, WIDTH):
            self.time_embed = nn.Parameter(torch.zeros_like(times))
        checkpoint.load_into(self, state, what="SVT (ViT-B/16)")


def resize_times(embedding: Tensor, steps: int, how: TimeResize) -> Tensor:
    """(1, steps, C) from (1, T, C).

    how: `nearest` repeats every entry in place (0, 0, 1, 1, ...), as the published code; `tile`
        repeats the whole (0, 1, ..., 0, 1, ...), as "Video Transformers for Classification and
        Captioning" (2024) does before it trains on longer clips.
    """
    given = embedding.shape[1]
    if how == "tile":
        return embedding[:, torch.arange(steps, device=embedding.device) % given]
    if given == steps:
        return embedding
    return F.interpolate(embedding.transpose(1, 2), steps, mode="nearest").transpose(1, 2)


def resize_grid(embedding: Tensor, rows: int, columns: int) -> Tensor:
    """(1, rows columns, C) from a square grid (1, n n, C), each of the nearest cell."""
    edge = math.isqrt(embedding.shape[1])
    if (rows, columns) == (edge, edge):
        return embedding
    grid = torch.unflatten(embedding.transpose(1, 2), 2, (edge, edge))  # (1, C, n, n)
    return F.interpolate(grid, (rows, columns), mode="nearest").flatten(2).transpose(1, 2)
