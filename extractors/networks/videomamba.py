"""VideoMamba: 24 or 32 bidirectional Mamba blocks over the patches of all frames.

Paper: VideoMamba: State Space Model for Efficient Video Understanding (Li et al., 2024). Code:
OpenGVLab/VideoMamba, `videomamba/video_sm/models/videomamba.py`. Entries of a checkpoint:
`cls_token`, `pos_embed`, `temporal_pos_embedding`, `patch_embed.proj.weight`,
`layers.0.mixer.A_log`, ..., `layers.0.norm.weight`, ..., `norm_f.weight`; a direction of time has
its own convolution, projections, A and D (those of reversed time end in `_b`), and both share
`in_proj` and `out_proj`. Three layouts are read:

- video: the above, with `head.weight` and `head.bias`, which are left out;
- masked pretraining: `norm.weight` is `norm_f.weight`, and `clip_decoder.*` is left out;
- images (`*_in1k_*`): the patch filter has no time axis, and without `temporal_pos_embedding`
  all frames get the same position, as when the authors start training on videos.

Data flow: (B, 3, T, H, W) -> patches (B T, P, C) with a class token and positions -> one class
token, then frame after frame, (B, 1 + T P, C) -> blocks -> RMSNorm -> `tokens`; `cls` is token 0
and `tokens_mean` the mean of the others. Parameters without the head: tiny 6.96 million, small
25.42, middle 73.65.
"""

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.networks.selective_scan import selective_scan
from vlpipe.extractors.weights.checkpoint import Checkpoint, State

PATCH = 16
GRID = 14  # of the published files: 224 pixels
STATES = 16
TAPS = 4

Variant = Literal["tiny", "small", "middle"]


@dataclass(frozen=True, slots=True)
class Shape:
    """Width of the tokens and number of blocks."""

    width: int
    depth: int


SHAPES: dict[Variant, Shape] = {
    "tiny": Shape(192, 24),
    "small": Shape(384, 24),
    "middle": Shape(576, 32),
}


class Mixer(nn.Module):
    """(B, L, C) -> (B, L, C): a gated selective scan forward in time plus one backward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner, self.rank = 2 * width, math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        for suffix in ("", "_b"):
            convolution = nn.Conv1d(inner, inner, TAPS, groups=inner, padding=TAPS - 1)
            self.add_module(f"conv1d{suffix}", convolution)
            projection = nn.Linear(inner, self.rank + 2 * STATES, bias=False)
            self.add_module(f"x_proj{suffix}", projection)
            self.add_module(f"dt_proj{suffix}", nn.Linear(self.rank, inner))
            levels = torch.arange(1, STATES + 1, dtype=torch.float32).log()
            self.register_parameter(f"A{suffix}_log", nn.Parameter(levels.repeat(inner, 1)))
            self.register_parameter(f"D{suffix}", nn.Parameter(torch.ones(inner)))
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        x, z = self.in_proj(h).transpose(1, 2).chunk(2, dim=1)  # (B, D, L) each
        # Both directions go through one scan: their channels stand side by side.
        forward = self._arguments(x, "")
        backward = self._arguments(x.flip(-1), "_b")
        u, delta = (torch.cat(pair, 1) for pair in zip(forward[:2], backward[:2], strict=True))
        b, c = (torch.stack(pair, 1) for pair in zip(forward[2:], backward[2:], strict=True))
        a_log, d, bias = (
            torch.cat([self.get_parameter(name.format(suffix)) for suffix in ("", "_b")])
            for name in ("A{}_log", "D{}", "dt_proj{}.bias")
        )
        gate = torch.cat([z, z.flip(-1)], 1)  # (B, 2 D, L)
        y, _ = selective_scan(
            u, delta, -torch.exp(a_log.float()), b, c, d=d, z=gate, delta_bias=bias
        )
        ahead, back = y.chunk(2, dim=1)  # (B, D, L) each
        return cast(Tensor, self.out_proj((ahead + back.flip(-1)).transpose(1, 2)))

    def _arguments(self, x: Tensor, suffix: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u, delta (B, D, L) and B, C (B, N, L) of the scan of one direction."""
        length = x.shape[2]
        # Padded on both sides; without what comes after the end, the convolution is causal.
        u = F.silu(self.get_submodule(f"conv1d{suffix}")(x)[..., :length])  # (B, D, L)
        projected = self.get_submodule(f"x_proj{suffix}")(u.transpose(1, 2))  # (B, L, R + 2 N)
        dt, b, c = projected.split([self.rank, STATES, STATES], dim=-1)
        # The bias joins inside of the scan, in float32.
        delta = F.linear(dt, self.get_parameter(f"dt_proj{suffix}.weight"))  # (B, L, D)
        return u, delta.transpose(1, 2), b.transpose(1, 2), c.transpose(1, 2)


class Block(nn.Module):
    """mixer(RMSNorm(x)); the sum with x is the caller's."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.mixer = Mixer(width)
        self.norm = nn.RMSNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.mixer(self.norm(x)))


class PatchEmbedding(nn.Module):
    """(B, 3, T, H, W) -> (B, T, P, C), P patches row by row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, width, (1, PATCH, PATCH), (1, PATCH, PATCH))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.proj(x)).flatten(3).permute(0, 2, 3, 1)


class VideoMambaNetwork(nn.Module):
    """(B, 3, T, H, W) normalised clips -> dict of `cls`, `tokens`, `tokens_mean`.

    variant: width and depth. num_frames: entries of the time embedding before a checkpoint is
        loaded, which brings its own number. eps: of all RMSNorms.
    Clips of any T, and of any H and W that are multiples of 16: positions are interpolated,
    linearly over time and bicubically over the picture, as in the published code.
    """

    def __init__(self, variant: Variant, *, num_frames: int = 16, eps: float = 1e-5) -> None:
        super().__init__()
        self.variant = variant
        width, depth = SHAPES[variant].width, SHAPES[variant].depth
        self.patch_embed = PatchEmbedding(width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID**2, width))
        self.temporal_pos_embedding = nn.Parameter(torch.zeros(1, num_frames, width))
        self.layers = nn.ModuleList(Block(width, eps) for _ in range(depth))
        self.norm_f = nn.RMSNorm(width, eps=eps)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        num_frames, rows, columns = x.shape[2], x.shape[3] // PATCH, x.shape[4] // PATCH
        patches = self.patch_embed(x).float()  # (B, T, P, C)
        positions = resize_grid(self.pos_embed[:, 1:], rows, columns)  # (1, P, C)
        times = resize_times(self.temporal_pos_embedding, num_frames)  # (1, T, C)
        patches = patches + positions[:, None] + times[:, :, None]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)  # (B, 1, C)
        # Sums stay in float32 under autocast.
        residual = torch.cat([cls, patches.flatten(1, 2)], dim=1)  # (B, 1 + T P, C)
        for layer in self.layers:
            residual = residual + layer(residual)
        tokens = self.norm_f(residual)
        return {"cls": tokens[:, 0], "tokens": tokens, "tokens_mean": tokens[:, 1:].mean(dim=1)}

    def initialise_untrained(self) -> None:
        """Draws positions, and steps that are long and short like those that training starts with.

        Linear and convolution layers keep PyTorch's own initial weights.
        """
        for parameter in (self.cls_token, self.pos_embed, self.temporal_pos_embedding):
            nn.init.trunc_normal_(parameter, std=0.02)
        for name, bias in self.named_parameters():
            if "dt_proj" in name and name.endswith("bias"):
                # softplus of the bias is spread evenly in its logarithm from 0.001 to 0.1.
                step = torch.exp(torch.empty_like(bias).uniform_(math.log(1e-3), math.log(0.1)))
                bias.data.copy_(step + torch.log(-torch.expm1(-step)))

    def load(self, checkpoint: Checkpoint) -> None:
        """Fills the network from one of the three layouts; WeightsRejected for anything else."""
        what = f"VideoMamba {self.variant}"
        state = in_video_layout(checkpoint.state)
        given = find_variant(state)
        if given is not None and given != self.variant:
            raise WeightsRejected(
                f"{checkpoint.path}: this is a checkpoint of VideoMamba {given}, expected {what}",
                hint=f"set variant={given}",
            )
        width = SHAPES[self.variant].width
        times = state.setdefault("temporal_pos_embedding", torch.zeros(1, 1, width))
        if times.ndim == 3 and times.shape[::2] == (1, width):
            self.temporal_pos_embedding = nn.Parameter(torch.zeros_like(times))
        checkpoint.load_into(self, state, what=what)


def in_video_layout(state: State) -> State:
    """The entries of the backbone by the names and in the shapes of the video layout."""
    kept = {k: v for k, v in state.items() if not k.startswith(("head.", "clip_decoder."))}
    if "norm.weight" in kept and "norm_f.weight" not in kept:
        kept["norm_f.weight"] = kept.pop("norm.weight")
    filters = kept.get("patch_embed.proj.weight")
    if filters is not None and filters.ndim == 4:
        kept["patch_embed.proj.weight"] = filters[:, :, None]  # (C, 3, 1, 16, 16)
    return kept


def find_variant(state: State) -> Variant | None:
    """The variant whose width and depth the entries have."""
    width = state["cls_token"].shape[-1] if "cls_token" in state else 0
    depth = sum(key.startswith("layers.") and key.endswith(".norm.weight") for key in state)
    return next((name for name, shape in SHAPES.items() if shape == Shape(width, depth)), None)


def resize_times(embedding: Tensor, num_frames: int) -> Tensor:
    """(1, num_frames, C) from (1, T, C), linearly between the centres of the steps."""
    if embedding.shape[1] == num_frames:
        return embedding
    resized = F.interpolate(embedding.transpose(1, 2), num_frames, mode="linear")
    return resized.transpose(1, 2)


def resize_grid(embedding: Tensor, rows: int, columns: int) -> Tensor:
    """(1, rows columns, C) from a square grid (1, n n, C), bicubically."""
    edge = math.isqrt(embedding.shape[1])
    if (rows, columns) == (edge, edge):
        return embedding
    grid = torch.unflatten(embedding.transpose(1, 2), 2, (edge, edge))  # (1, C, n, n)
    resized = F.interpolate(grid, (rows, columns), mode="bicubic")
    return resized.flatten(2).transpose(1, 2)
