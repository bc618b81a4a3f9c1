"""CiSIN: which person track a sentence speaks of, and which tracks and mentions are one character.

Paper: Character Grounding and Re-Identification in Story of Videos and Text Descriptions (Yu et
al., ECCV 2020). Code: yj-yu/CiSIN (PyTorch 1.4; its licence stands in the repository).
Checkpoint layouts: state dicts of its class `CISINModel` (`variant="public"`), and state dicts with
the names of the formulas (`variant="thesis"`): `ground.*`, `video.*`, `text.*`, `gender.*`.
16,275,463 parameters (public 12,451,585); BERT-base adds 109,482,240, the body's ResNet-50
23,508,032.

Data flow (B sets of five clips, N character tokens, M person tracks, H = 1024):
word pieces (B, L) -> BERT -> at the tokens and at their verbs (B, N, 768) each; face (B, M, 512),
motion (B, M, 1024), box (B, M, 4) -> products with the text (B, N, M, H) -> `G` (B, N, M), how well
a track fits a token. Faces and body parts -> `V` (B, M, M), whether two tracks are one person.
Tokens -> `L` (B, N, N), whether two are one by their sentences. Each token's track, `P` (B, N, M),
carries V over to tokens: R = sigmoid(P V P^T), and both say `C` = (L + R) / 2.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vlpipe.models.layers.bert import WIDTHS, Bert
from vlpipe.models.layers.body_vectors import BodyVectors
from vlpipe.models.layers.character_graph import (
    Scaled,
    hard_assignment,
    linked_tokens,
    own_clip_tracks,
    part_likeness,
    soft_assignment,
)
from vlpipe.models.model import FeatureSlot, Model, ModelConfig, PublishedResult
from vlpipe.models.published_files import fill, without_parallel_prefix
from vlpipe.models.published_layouts.cisin import ENCODERS, NOT_READ, flat_key
from vlpipe.models.registry import register
from vlpipe.stores import Features

_SLOPE = 0.01
_META_NUMBERS = 4
_PUBLIC_META_WIDTH, _PUBLIC_SHARPNESS = 50, 5.0


class CisinConfig(ModelConfig):
    """Sizes, what the network reads, and the ablations of the thesis's tables.

    variant: `thesis`, or `public` for what yj-yu/CiSIN does.
    text: `embeddings`, which are given; `base` or `small`, a BERT that is trained along and reads
        word pieces, of which there are vocabulary_size. text_width: of given embeddings.
    body: pictures of the tracks go through a ResNet-50; off, vectors of key points are given.
    motion, box: parts of the grounding. parts: key points beside faces. gender: its classifier.
    text_graph, grounding_graph: which of L and R make C; one at least.
    is_joint: what C learns reaches grounding and tracks; off, they are trained apart.
    same_clip_prior: two tokens of a clip are others by default, by same_clip_value in P V.
    plus_text: V gains lambda P^T L P, with a learnt lambda (the tables' +Text).
    max_tracks: of a clip, the longest ones.
    """

    variant: Literal["thesis", "public"] = "thesis"
    text: Literal["embeddings", "base", "small"] = "embeddings"
    text_width: PositiveInt = 768
    vocabulary_size: PositiveInt = 30522
    body: bool = False
    hidden: PositiveInt = 1024
    face_width: PositiveInt = 512
    motion_width: PositiveInt = 1024
    motion: bool = True
    box: bool = True
    parts: bool = True
    gender: bool = True
    text_graph: bool = True
    grounding_graph: bool = True
    is_joint: bool = True
    same_clip_prior: bool = True
    same_clip_value: float = -0.1
    plus_text: bool = False
    max_tracks: PositiveInt = 8
    dropout: float = Field(default=0.3, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not (self.text_graph or self.grounding_graph):
            raise ValueError("text_graph and grounding_graph are both off: nothing makes C")
        return self


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

    def __init__(self, c: CisinConfig, text_width: int) -> None:
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
                OneLayer(_META_NUMBERS, meta_width, c.dropout)
                if is_public
                else TwoLayers(_META_NUMBERS, h, meta_width, c.dropout, last)
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

    def __init__(self, c: CisinConfig) -> None:
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
        seen = face if is_public else self.face(face)
        # The product of what was not seen is 0, its score the bias.
        seen = seen * has_face[..., None]
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


@register("cisin")
class Cisin(Model):
    """CiSIN; see the top of the file."""

    description: ClassVar[str] = "CiSIN (ECCV 2020): characters of clips and sentences"
    code: ClassVar[str] = "https://github.com/yj-yu/CiSIN"
    tasks: ClassVar[tuple[str, ...]] = ("reid",)
    Config: ClassVar[type[ModelConfig]] = CisinConfig
    slots: ClassVar[Mapping[str, FeatureSlot]] = MappingProxyType(
        {
            "face": FeatureSlot("track_faces", "the mean face of each track"),
            "face_count": FeatureSlot("track_faces_count", "how many faces each track shows"),
            "meta": FeatureSlot("person_track_table", "centre, area and length of each track"),
            "motion": FeatureSlot("track_motion", "I3D's map in each track", is_optional=True),
            "parts": FeatureSlot("body_parts", "vectors of 17 key points", is_optional=True),
            "visible": FeatureSlot("body_parts_visible", "which are visible", is_optional=True),
        }
    )
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 1e-5, "batch_size": 2, "epochs": 40}
    )
    published_results: ClassVar[tuple[PublishedResult, ...]] = (
        PublishedResult("reid", "mvad-names", "grounding", 68.4, "CiSIN"),
        PublishedResult("reid", "mvad-names", "video", 80.6, "CiSIN"),
        PublishedResult("reid", "mvad-names", "text", 76.7, "CiSIN"),
        PublishedResult("reid", "lsmdc2019", "accuracy", 67.3, "CiSIN"),
    )

    def __init__(self, config: ModelConfig, task: str) -> None:
        super().__init__(config, task)
        c = self.config = cast(CisinConfig, config)
        width = c.text_width if c.text == "embeddings" else WIDTHS[c.text]
        self.encoder = (
            None if c.text == "embeddings" else Bert(c.text, c.vocabulary_size, c.dropout)
        )
        self.body = BodyVectors() if c.body else None
        self.ground = Grounding(c, width)
        self.video = Tracks(c)
        if c.gender:
            hidden = width if c.variant == "public" else c.hidden
            self.gender = TwoLayers(width, hidden, 1, c.dropout, None)
        self.text = nn.ModuleDict({"pair": TwoLayers(width, c.hidden, 1, c.dropout, None)})
        self.text_weight = nn.Parameter(torch.zeros(1)) if c.plus_text else None

    @classmethod
    def settings_for(
        cls, config: ModelConfig, row_shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {"face_width": row_shapes["face"][0]}
        if "motion" in row_shapes:
            found["motion_width"] = row_shapes["motion"][0]
        else:
            found["motion"] = False
        if not {"parts", "visible"} <= set(row_shapes):
            found["parts"] = False
        return found

    @classmethod
    def prepare(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> dict[str, Tensor]:
        """The M longest tracks of one clip, at most max_tracks, by falling length: `track_row`
        int64 (M,), their rows in the store; face, meta, motion, parts, visible float32 and
        has_face bool, (M, ...). `join_clips` makes one set of five of them."""
        c = cast(CisinConfig, config)
        rows = np.arange(len(features["meta"].rows))
        if window_s is not None:
            start_s, end_s = window_s
            spans = features["meta"].spans
            rows = rows[(spans[:, 1] > start_s) & (spans[:, 0] < end_s)]
        lengths = np.asarray(features["meta"].rows, np.float64).reshape(-1, _META_NUMBERS)[rows, 3]
        rows = rows[np.argsort(-lengths, kind="stable")][: c.max_tracks]
        prepared = {
            slot: torch.from_numpy(np.asarray(values.rows[rows], np.float32))
            for slot, values in features.items()
        }
        prepared["has_face"] = prepared.pop("face_count").flatten() > 0
        prepared["track_row"] = torch.from_numpy(rows)
        return prepared

    def forward(
        self,
        *,
        face: Tensor,
        meta: Tensor,
        token_clip: Tensor,
        track_clip: Tensor,
        someone: Tensor | None = None,
        action: Tensor | None = None,
        pieces: Tensor | None = None,
        pieces_length: Tensor | None = None,
        someone_at: Tensor | None = None,
        action_at: Tensor | None = None,
        motion: Tensor | None = None,
        has_face: Tensor | None = None,
        parts: Tensor | None = None,
        visible: Tensor | None = None,
        images: Tensor | None = None,
        key_points: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Characters of B sets of clips.

        token_clip: int (B, N), track_clip: int (B, M), the clip of each; -1 is padding.
        someone, action: float (B, N, D) of the tokens and of their verbs; or, with a BERT, pieces
        int (B, L), pieces_length (B,), and the pieces someone_at, action_at int (B, N).
        face: (B, M, 512) of length 1, has_face: bool (B, M), None: where face is not 0. motion:
        (B, M, 1024). meta: (B, M, 4). parts: (B, M, 17, 2048) of length 1 and visible (B, M, 17),
        not 0 where true; or, with a body network, images (B, M, 3, 224, 224), ImageNet's mean
        and deviation, key_points (B, M, 17, 2), x and y from 0 to 1, and visible.

        Returns, 0 where padded: `G` (B, N, M); `V`, `f`, `q` (B, M, M); `L`, `R`, `C` (B, N, N),
        two tokens are one character from C = 0.5 on; `P` (B, N, M), in the thesis's form the best
        track of the token's clip (in training, and in the public form, the softmax); `gender`
        (B, N), 1 female. In evaluation also `Z_hard`, `R_hard`, `C_hard` and `Z_soft`, `R_soft`,
        `C_soft`: equation (6.11) as printed, without the prior of the same clip.
        """
        c, is_public = self.config, self.config.variant == "public"
        if self.encoder is not None:
            someone, action = self._read(pieces, pieces_length, someone_at, action_at)
        if someone is None or action is None:
            raise TypeError("give someone and action, or build the network with text=base")
        if self.body is not None and images is not None and key_points is not None:
            flat = self.body(images.flatten(0, 1), key_points.flatten(0, 1))
            parts = flat.view(*images.shape[:2], *flat.shape[1:])
        if c.motion and motion is None:
            raise TypeError("give motion, or build the network with motion=False")
        if c.parts and (parts is None or visible is None):
            raise TypeError("give parts and visible, or build the network with parts=False")
        is_token, is_track = token_clip >= 0, track_clip >= 0
        both_tokens = is_token[:, :, None] & is_token[:, None]
        both_tracks = is_track[:, :, None] & is_track[:, None]
        is_own = own_clip_tracks(token_clip, track_clip)
        if has_face is None:
            has_face = face.abs().amax(dim=-1) > 0

        outputs = self.video(face, has_face, parts, None if visible is None else visible != 0)
        outputs = {name: value.masked_fill(~both_tracks, 0) for name, value in outputs.items()}
        ground = self.ground(someone, action, face, motion, meta)
        ground = outputs["G"] = ground.masked_fill(~(is_token[..., None] & is_track[:, None]), 0)
        if c.gender:
            outputs["gender"] = self.gender(someone).squeeze(-1).sigmoid() * is_token
        alike = self.text["pair"](someone[:, :, None] * someone[:, None]).squeeze(-1).sigmoid()
        outputs["L"] = alike = alike * both_tokens

        soft = soft_assignment(ground, is_own, sharpness=_PUBLIC_SHARPNESS if is_public else 1.0)
        hard = hard_assignment(ground, is_own)
        chosen = outputs["P"] = soft if is_public or self.training else hard
        if self.text_weight is not None:
            spread = chosen.mT @ alike @ chosen
            outputs["V"] = outputs["V"] + self.text_weight * spread * both_tracks
        same_track = outputs["V"]
        if not self.training:
            for name, assignment in (("hard", hard), ("soft", soft)):
                z = linked_tokens(assignment, same_track, is_own, same_clip=None)
                r = z.sigmoid() * both_tokens
                outputs |= {f"Z_{name}": z, f"R_{name}": r, f"C_{name}": (alike + r) / 2}
        prior = c.same_clip_value if c.same_clip_prior else None
        if not c.is_joint:
            chosen, same_track = chosen.detach(), same_track.detach()
        linked = linked_tokens(chosen, same_track, is_own, same_clip=prior)
        outputs["R"] = linked.sigmoid() * both_tokens
        graphs = [outputs["L"]] * c.text_graph + [outputs["R"]] * c.grounding_graph
        outputs["C"] = torch.stack(graphs).mean(dim=0)
        return outputs

    def _read(
        self,
        pieces: Tensor | None,
        length: Tensor | None,
        someone_at: Tensor | None,
        action_at: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if pieces is None or someone_at is None or action_at is None or self.encoder is None:
            raise TypeError("give pieces, someone_at and action_at to a network with a BERT")
        mask = torch.ones_like(pieces, dtype=torch.bool)
        if length is not None:
            places = torch.arange(pieces.shape[1], device=pieces.device)
            mask = places < length[:, None]
        read = self.encoder(pieces, mask)  # (B, L, D)
        if self.config.variant == "public":
            read = F.gelu(read)
        rows = torch.arange(len(pieces), device=pieces.device)[:, None]
        return read[rows, someone_at.clamp_min(0)], read[rows, action_at.clamp_min(0)]

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Reads the names of `CISINModel`, and those of the formulas. Encoders that this
        configuration does not have (text=embeddings, body=False) are left out."""
        own = self.state_dict()
        names = {_own_to_flat(key): key for key in own}
        kept: dict[str, Tensor] = {}
        for key, value in without_parallel_prefix(state).items():
            name = flat_key(key)
            if NOT_READ.fullmatch(key) or (ENCODERS.match(name) and name not in names):
                continue
            if name.startswith("video.") and "_scale." in name:
                value = value.reshape(1)  # the code has linear layers of one number
            kept[names.get(name, name)] = value
        for key, value in own.items():
            if key.endswith("num_batches_tracked"):
                kept[key] = torch.zeros_like(value)
        fill(self, kept, what=f"CiSIN ({self.config.variant})")

    def published_state(self) -> dict[str, Tensor]:
        """The weights by the formulas' names."""
        return {_own_to_flat(key): value.detach().cpu() for key, value in self.state_dict().items()}


def join_clips(clips: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tracks of a set of clips, each as `Cisin.prepare` gives them, as the tensors of one set:
    (M, ...) for all clips, and `track_clip` int64 (M,)."""
    joined = {name: torch.cat([clip[name] for clip in clips]) for name in clips[0]}
    counts = torch.tensor([len(clip["face"]) for clip in clips])
    joined["track_clip"] = torch.arange(len(clips)).repeat_interleave(counts)
    return joined


def _own_to_flat(key: str) -> str:
    for prefix in ("encoder.bert.", "body.body."):
        if key.startswith(prefix):
            return key.split(".", 1)[1]
    return key
