"""How well a track fits a token, and whether two tracks are one person (CiSIN).

B sets of clips, N character tokens, M person tracks, H hidden channels.
"""

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.models.layers.character_graph import Scaled, part_likeness

if TYPE_CHECKING:
    from vlpipe.models.cisin import CisinConfig

META_NUMBERS = 4

_SLOPE = 0.01
_PUBLIC_META_WIDTH = 50


class TwoLayers(nn.Module):
    """(..., in) -> (..., out): dense, leaky ReLU, dropout, dense, and `last`."""

    def __init__(
        self, num_in: int, hidden: int, num_out: int, dropout: float, last: str | None
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(num_in, hidden)
        self.fc2 = nn.Linear(hidden, num_out)
        self.dropout, self.last = nn.Dropout(dropout), last

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc2(self.dropout(F.leaky_relu(self.fc1(x), _SLOPE)))
        if self.last == "tanh":
            return x.tanh()
        return F.leaky_relu(x, _SLOPE) if self.last == "leaky" else x


class OneLayer(nn.Module):
    """(..., in) -> (..., out): dense, leaky ReLU, dropout."""

    def __init__(self, num_in: int, num_out: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(num_in, num_out)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.dropout(F.leaky_relu(self.fc1(x), _SLOPE)))


class Grounding(nn.Module):
    """G (B, N, M), equations (6.3) to (6.5)."""

    def __init__(self, c: "CisinConfig", text_width: int) -> None:
        super().__init__()
        is_public = c.variant == "public"
        last, h = "tanh" if is_public else "leaky", c.hidden
        self.text_face = TwoLayers(2 * text_width, h, h, c.dropout, last)
        self.face = TwoLayers(c.face_width, h, h, c.dropout, last)
        width = h
        if c.motion:
            self.text_motion = TwoLayers(2 * text_width, h, h, c.dropout, last)
            self.motion = TwoLayers(c.motion_width, h, h, c.dropout, last)
            width += h
        if c.box:
            meta_width = _PUBLIC_META_WIDTH if is_public else h
            self.meta: nn.Module = (
                OneLayer(META_NUMBERS, meta_width, c.dropout)
                if is_public
                else TwoLayers(META_NUMBERS, h, meta_width, c.dropout, last)
            )
            width += meta_width
        # The public code drops nothing between the last two layers.
        self.score = TwoLayers(width, h, 1, 0.0 if is_public else c.dropout, None)
        self.config = c

    def forward(
        self, someone: Tensor, action: Tensor, face: Tensor, motion: Tensor | None, meta: Tensor
    ) -> Tensor:
        """someone, action: (B, N, D). face: (B, M, 512), motion: (B, M, 1024), meta: (B, M, 4)."""
        c, shape = self.config, (-1, someone.shape[1], -1, -1)
        is_public = c.variant == "public"
        text = torch.cat([action, someone] if is_public else [someone, action], dim=-1)
        found = [self.text_face(text)[:, :, None] * self.face(face)[:, None]]  # (B, N, M, H)
        if c.motion:
            assert motion is not None
            moved = self.text_motion(text)[:, :, None] * self.motion(motion)[:, None]
            found.insert(0 if is_public else 1, moved)
        if c.box:
            found.insert(0, self.meta(meta)[:, None].expand(shape))
        return cast(Tensor, self.score(torch.cat(found, dim=-1))).squeeze(-1)


class Tracks(nn.Module):
    """V (B, M, M), equations (6.7) to (6.9), above 0 for one person."""

    def __init__(self, c: "CisinConfig") -> None:
        super().__init__()
        if c.variant == "thesis":
            self.face = TwoLayers(c.face_width, c.hidden, c.hidden, c.dropout, "leaky")
        self.face_scale = Scaled()
        self.part_scale = Scaled() if c.parts else None
        self.config = c

    def forward(
        self, face: Tensor, has_face: Tensor, parts: Tensor | None, visible: Tensor | None
    ) -> dict[str, Tensor]:
        """face: (B, M, 512), has_face: bool (B, M); parts: (B, M, 17, 2048), visible: bool
        (B, M, 17). Returns f, V and, with parts, q."""
        is_public = self.config.variant == "public"
        # The product of what was not seen is 0, its score the bias. The public code multiplies
        # what it is given, whatever its mask says.
        seen = face if is_public else self.face(face) * has_face[..., None]
        f = self.face_scale(seen @ seen.mT)
        found, total = {"f": f}, 2 * f if is_public else f
        if self.part_scale is not None:
            assert parts is not None
            assert visible is not None
            parts = F.normalize(parts, dim=-1) if is_public else parts
            q = found["q"] = self.part_scale(part_likeness(parts, visible))
            total = total + q
        count = 3 if self.part_scale is not None else 2
        found["V"] = torch.tanh(total / count) if is_public else total
        return found
