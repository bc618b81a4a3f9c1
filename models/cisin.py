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

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vlpipe.models.feature_slot import FeatureSlot
from vlpipe.models.layers.bert import WIDTHS, Bert
from vlpipe.models.layers.body_vectors import BodyVectors
from vlpipe.models.layers.character_graph import (
    hard_assignment,
    linked_tokens,
    own_clip_tracks,
    soft_assignment,
)
from vlpipe.models.layers.character_scores import META_NUMBERS, Grounding, Tracks, TwoLayers
from vlpipe.models.layers.input_projection import InputProjection
from vlpipe.models.layers.sequences import real_positions
from vlpipe.models.layers.word_context import WordContext
from vlpipe.models.model import Model, ModelConfig, PublishedResult
from vlpipe.models.published_files import fill, without_parallel_prefix
from vlpipe.models.published_layouts.bert import bert_entry
from vlpipe.models.published_layouts.cisin import ENCODERS, NOT_READ, flat_key
from vlpipe.models.registry import register
from vlpipe.stores import Features

_PUBLIC_SHARPNESS = 5.0
_BOX_SLOTS = ("boxes", "box_track", "box_frame")


class CisinConfig(ModelConfig):
    """Sizes, what the network reads, and the ablations of the thesis's tables.

    variant: `thesis`, or `public` for what yj-yu/CiSIN does.
    text: `embeddings`, which are given; `base` or `small`, a BERT that is trained along and reads
        word pieces, of which there are vocabulary_size; `words`, a table of words and a two-way
        LSTM over them, for little text. text_width: of given embeddings, and of `words`.
    body: pictures of the tracks go through a ResNet-50; off, vectors of key points are given.
    motion, box: parts of the grounding. parts: key points beside faces. gender: its classifier.
    text_graph, grounding_graph: which of L and R make C; one at least.
    is_joint: what C learns reaches grounding and tracks; off, they are trained apart.
    same_clip_prior: two tokens of a clip are others by default, by same_clip_value in P V.
    plus_text: V gains lambda P^T L P, with a learnt lambda (the tables' +Text).
    normalise_inputs: faces, motion and boxes are centred and scaled by the statistics of the
        training tracks, as an extractor without weights needs it; faces have length 1 again.
    """

    variant: Literal["thesis", "public"] = "thesis"
    text: Literal["embeddings", "words", "base", "small"] = "embeddings"
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
    normalise_inputs: bool = False
    dropout: float = Field(default=0.3, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not (self.text_graph or self.grounding_graph):
            raise ValueError("text_graph and grounding_graph are both off: nothing makes C")
        return self


def _optional(feature: str, description: str, row_shape: str) -> FeatureSlot:
    return FeatureSlot(feature, description, is_optional=True, row_shapes=(row_shape,))


@register("cisin")
class Cisin(Model):
    """CiSIN; see the top of the file."""

    description: ClassVar[str] = "CiSIN (ECCV 2020): characters of clips and sentences"
    code: ClassVar[str] = "https://github.com/yj-yu/CiSIN"
    tasks: ClassVar[tuple[str, ...]] = ("reid",)
    Config: ClassVar[type[ModelConfig]] = CisinConfig
    rows_may_be_none: ClassVar[bool] = True  # a clip without persons
    slots: ClassVar[Mapping[str, FeatureSlot]] = MappingProxyType(
        {
            "face": FeatureSlot("track_faces", "the mean face of each track", row_shapes=("F",)),
            "face_count": FeatureSlot(
                "track_faces_count", "how many faces each track shows", row_shapes=("",)
            ),
            "meta": FeatureSlot(
                "person_track_table",
                "centre, area and length of each track",
                row_shapes=(f"{META_NUMBERS}",),
            ),
            "motion": _optional("track_motion", "I3D's map in each track", "channels"),
            "parts": _optional("body_parts", "vectors of 17 key points", "17 channels"),
            "visible": _optional("body_parts_visible", "which are visible", "17"),
            "boxes": _optional("person_tracks", "all boxes of the tracks", "4"),
            "box_track": _optional("person_tracks_id", "the track of each box", ""),
            "box_frame": _optional("person_tracks_frame", "the frame of each box", ""),
        }
    )
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 1e-5, "batch_size": 2, "epochs": 40}
    )
    published_results: ClassVar[tuple[PublishedResult, ...]] = (
        PublishedResult("reid", "mvad-names", "grounding", 68.4, "CiSIN"),
        PublishedResult("reid", "mvad-names", "video", 80.6, "CiSIN"),
        PublishedResult("reid", "mvad-names", "text", 76.7, "CiSIN"),
        PublishedResult("reid", "lsmdc-2019", "accuracy", 67.3, "CiSIN"),
    )

    def __init__(self, config: ModelConfig, task: str) -> None:
        super().__init__(config, task)
        c = self.config = cast(CisinConfig, config)
        width, self.encoder = _text_encoder(c)
        widths = {"face": c.face_width, "motion": c.motion_width, "meta": META_NUMBERS}
        self.norms = nn.ModuleDict(
            {name: InputProjection(w, None, is_normalised=True) for name, w in widths.items()}
            if c.normalise_inputs
            else {}
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
        """The M tracks of one clip by falling length: `track_row` int64 (M,), their rows in the
        store; face, meta, motion, parts, visible float32 and has_face bool, (M, ...).

        Where the slots of boxes are filled, R boxes of these tracks: `boxes` float32 (R, 4),
        `box_track` int64 (R,), which of the M, `box_frame` int64 (R,), `box_s` float64 (R, 2),
        seconds. `models/tasks/reid.py` makes a set of five clips.
        """
        del config
        meta = features["meta"]
        numbers = np.asarray(meta.rows, np.float64).reshape(-1, META_NUMBERS)
        rows = np.arange(len(numbers))
        if window_s is not None:
            start_s, end_s = window_s
            rows = rows[(meta.spans[:, 1] > start_s) & (meta.spans[:, 0] < end_s)]
        rows = rows[np.argsort(-numbers[rows, 3], kind="stable")]
        prepared = {
            slot: torch.from_numpy(np.asarray(values.rows[rows], np.float32))
            for slot, values in features.items()
            if slot not in _BOX_SLOTS
        }
        prepared["has_face"] = prepared.pop("face_count").flatten() > 0
        prepared["track_row"] = torch.from_numpy(rows)
        if set(_BOX_SLOTS) <= set(features):
            prepared |= _boxes_of(features, rows)
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
        someone, action: float (B, N, D) of the tokens and of their verbs; or, with a text encoder,
        pieces int (B, L), pieces_length (B,), and the pieces someone_at, action_at int (B, N).
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
        if self.norms:
            face = F.normalize(self.norms["face"](face, has_face & is_track), dim=-1)
            meta = self.norms["meta"](meta, is_track)
            motion = self.norms["motion"](motion, is_track) if c.motion else None

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
            raise TypeError("give pieces, someone_at and action_at to a network that reads text")
        if length is None:
            length = torch.full((len(pieces),), pieces.shape[1], device=pieces.device)
        read = self.encoder(pieces, real_positions(length, pieces.shape[1]))  # (B, L, D)
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

    @classmethod
    def own_entry(cls, key: str) -> str:
        """Also of BERT alone, with or without `bert.` in front, and its LayerNorm's old names."""
        key = flat_key(key)
        of_bert = bert_entry(key)
        if of_bert is not None:
            return of_bert
        return f"body.{key}" if key.startswith("body.") and "body.body." not in key else key


def _text_encoder(c: CisinConfig) -> tuple[int, nn.Module | None]:
    """The width of what stands for a token, and what makes it of pieces."""
    if c.text == "embeddings":
        return c.text_width, None
    if c.text == "words":
        return c.text_width, WordContext(c.vocabulary_size, c.text_width, c.dropout)
    return WIDTHS[c.text], Bert(c.text, c.vocabulary_size, c.dropout)


def _boxes_of(features: Mapping[str, Features], rows: npt.NDArray[np.int64]) -> dict[str, Tensor]:
    """The boxes of the tracks with these rows; tracks have their rows in the order of their ids."""
    ids = np.asarray(features["box_track"].rows).reshape(-1)
    _, table_rows = np.unique(ids, return_inverse=True)
    places = np.full(len(features["meta"].rows), -1)
    places[rows] = np.arange(len(rows))
    of_box = places[table_rows]
    kept = of_box >= 0
    return {
        "boxes": torch.from_numpy(np.asarray(features["boxes"].rows, np.float32)[kept]),
        "box_track": torch.from_numpy(of_box[kept]),
        "box_frame": torch.from_numpy(
            np.asarray(features["box_frame"].rows, np.int64).reshape(-1)[kept]
        ),
        "box_s": torch.from_numpy(np.asarray(features["boxes"].spans, np.float64)[kept]),
    }


def _own_to_flat(key: str) -> str:
    for prefix in ("encoder.bert.", "body.body."):
        if key.startswith(prefix):
            return key.split(".", 1)[1]
    return key
