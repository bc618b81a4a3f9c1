"""iPerceive VideoQA: dense captions, subtitles and regions, and gates that choose frames.

Papers: Dense-Caption Matching and Frame-Selection Gating for Temporal Localization in VideoQA (Kim
et al., ACL 2020, arXiv 2005.06409); iPerceive (Chadha et al., WACV 2021, arXiv 2011.07735), which
adds common sense to the regions and takes dense captions from iPerceive DVC. Code:
hyounghk/VideoQADenseCapFrameGate-ACL2020; amanchadha/iPerceive holds the same network, and neither
addition reaches it. Checkpoint layout: state dicts of its class `TVQANet`. 688,115 parameters.

Data flow (B questions, K candidates, F frames, L words or regions, H = 128):
token features of "question candidate" (B, K, L, 768), of each frame's subtitles and captions
(B, F, L, 768), regions (B, F, L, 300) -> projected and encoded (..., H) -> each context and the
candidate attend one another, word by word -> strongest words, fused (B, K, F, H) -> subtitles with
regions and subtitles with captions attend one another, frame by frame -> both along one time
(B, K, 2F, H), self-attention, summed (B, K, F, H) -> encoded twice (B, K, F, 2H) -> local gate,
global gate, maximum (B, K, 6H) -> `scores` (B, K).

Decision where paper and code leave it open: a region's common sense is laid beside it and mapped
back, LN and Linear(300 + C -> 300), before everything else. The map starts as "the region alone",
so that the network starts as the one without.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from vlpipe.models.feature_slot import FeatureSlot
from vlpipe.models.frame_regions import frame_regions
from vlpipe.models.layers.bert import WIDTHS, FrozenBert
from vlpipe.models.layers.cosine_attention import (
    CosineAttention,
    FrameAttention,
    four_fold,
    strongest,
)
from vlpipe.models.layers.frame_losses import frame_selection_losses
from vlpipe.models.layers.separable_encoder import SeparableEncoder
from vlpipe.models.layers.sequences import sinusoids
from vlpipe.models.model import Model, ModelConfig, PublishedResult
from vlpipe.models.published_files import fill, without_parallel_prefix
from vlpipe.models.published_layouts.bert import bert_entry
from vlpipe.models.published_layouts.iperceive_videoqa import POSITIONS, published_key
from vlpipe.models.registry import register
from vlpipe.models.token_features import (
    CAPTION_TOKENS,
    QUESTION_PLACE,
    QUESTION_TOKENS,
    SUBTITLE_TOKENS,
    TOKEN_SLOTS,
    token_tensors,
)
from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError

_TASK = "subtitled_qa"
_WORD_KERNEL, _FRAME_KERNEL = 7, 5
_BEYOND = ("common_sense.", "encoder.")  # entries that no published checkpoint has

_FIGURES = {
    "Kim et al. 2020": (74.09, (74.04, 73.03, 74.34, 73.44, 74.68, 74.86), 74.20),
    "iPerceive VideoQA, claimed": (75.15, (75.32, 74.22, 75.14, 74.42, 75.22, 75.77), 76.97),
}
_SHOWS = ("bbt", "friends", "met", "grey", "house", "castle")


class IperceiveVideoqaConfig(ModelConfig):
    """Sizes, what stands for a word, and what the published code does with padding.

    variant: `public` is the published code: convolutions read padding, and padded frames are
        attended, so that an answer depends on what else is in its batch. `masked`: on nothing but
        its own video and text.
    text: `tokens`, token features that are given; `words`, a table of vectors that is trained;
        `base` or `small`, BERT-base or BERT-Mini as published, which is given its weights and does
        not learn, over word pieces. vocabulary_size: of all but the first, given by the task.
    text_width: of token features and of `words`. region_width, commonsense_width: given by the
        features.
    has_commonsense: vectors of common sense beside the regions.
    scale: of cosines, before the softmax. max_frames: of a longer video equidistant ones are read.
    """

    variant: Literal["masked", "public"] = "masked"
    text: Literal["tokens", "words", "base", "small"] = "tokens"
    vocabulary_size: PositiveInt = 30522
    text_width: PositiveInt = 768
    region_width: PositiveInt = 300
    commonsense_width: PositiveInt = 1024
    has_commonsense: bool = False
    middle: PositiveInt = 300
    hidden: int = Field(default=128, ge=2, multiple_of=2)
    heads: PositiveInt = 4
    scale: PositiveFloat = 10.0
    dropout: float = Field(default=0.1, ge=0, lt=1)
    max_frames: PositiveInt = 300


@register("iperceive_videoqa")
class IperceiveVideoqa(Model):
    """iPerceive VideoQA; see the top of the file."""

    description: ClassVar[str] = "iPerceive VideoQA (WACV 2021): questions about subtitled video"
    code: ClassVar[str] = "https://github.com/amanchadha/iPerceive"
    tasks: ClassVar[tuple[str, ...]] = (_TASK,)
    Config: ClassVar[type[ModelConfig]] = IperceiveVideoqaConfig
    slots: ClassVar[Mapping[str, FeatureSlot]] = MappingProxyType(
        {
            "vid": FeatureSlot(
                "objects",
                "regions of each frame, in one row or a row each",
                row_shapes=("regions R", "R"),
            ),
            "commonsense": FeatureSlot(
                "commonsense",
                "common sense of the regions",
                is_optional=True,
                row_shapes=("regions C", "C"),
            ),
            QUESTION_TOKENS: FeatureSlot(
                QUESTION_TOKENS, "token features of the video's questions", row_shapes=("W",)
            ),
            QUESTION_PLACE: FeatureSlot(
                QUESTION_PLACE, "qid and candidate of each of those", row_shapes=("2",)
            ),
            SUBTITLE_TOKENS: FeatureSlot(
                SUBTITLE_TOKENS,
                "token features of the lines of subtitles",
                is_optional=True,
                row_shapes=("W",),
            ),
            CAPTION_TOKENS: FeatureSlot(
                CAPTION_TOKENS,
                "token features of dense captions",
                is_optional=True,
                row_shapes=("W",),
            ),
        }
    )
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 1e-3, "batch_size": 16, "epochs": 100}
    )
    published_results: ClassVar[tuple[PublishedResult, ...]] = tuple(
        PublishedResult(_TASK, "tvqa", metric, value, f"{source}, {split}")
        for source, (test, shows, val) in _FIGURES.items()
        for metric, value, split in (
            ("accuracy", val, "val"),
            ("accuracy", test, "test-public"),
            *(
                (f"accuracy/{show}", value, "test-public")
                for show, value in zip(_SHOWS, shows, strict=True)
            ),
        )
    )

    def __init__(self, config: ModelConfig, task: str) -> None:
        super().__init__(config, task)
        c = self.config = cast(IperceiveVideoqaConfig, config)
        self.is_public = c.variant == "public"
        h, dropout = c.hidden, c.dropout
        width, self.encoder = _text_encoder(c)
        self.common_sense = _CommonSense(c) if c.has_commonsense else None
        self.text_projection = _projection(width, c.middle, dropout)
        self.region_projection = _projection(c.region_width, c.middle, dropout)
        self.shared_projection = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(c.middle, h), nn.ReLU(), nn.LayerNorm(h)
        )
        self.word_encoder = SeparableEncoder(h, _WORD_KERNEL, dropout)
        self.attention = CosineAttention(c.scale, dropout)
        self.attended = nn.Sequential(
            nn.LayerNorm(3 * h), nn.Dropout(dropout), nn.Linear(3 * h, h), nn.ReLU()
        )
        self.word_fusion = _projection(4 * h, h, dropout)
        self.frame_fusion = _projection(4 * h, h, dropout)
        self.frame_attention = FrameAttention(h, c.heads, dropout, masks_keys=not self.is_public)
        self.frame_encoder = SeparableEncoder(h, _FRAME_KERNEL, dropout)
        self.local_gate, self.global_gate, self.score = (
            nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, 1))
            for width in (2 * h, 2 * h, 6 * h)
        )

    @property
    def word_embedding(self) -> nn.Embedding | None:
        return self.encoder if isinstance(self.encoder, nn.Embedding) else None

    def require_given_weights(self) -> None:
        if isinstance(self.encoder, FrozenBert):
            self.encoder.require_weights()

    @classmethod
    def slots_in_use(cls, config: ModelConfig) -> Mapping[str, FeatureSlot]:
        c = cast(IperceiveVideoqaConfig, config)
        without = set() if c.text == "tokens" else set(TOKEN_SLOTS)
        without |= set() if c.has_commonsense else {"commonsense"}
        return {name: slot for name, slot in cls.slots.items() if name not in without}

    @classmethod
    def settings_for(
        cls, config: ModelConfig, row_shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        widths = {
            "vid": "region_width",
            "commonsense": "commonsense_width",
            QUESTION_TOKENS: "text_width",
        }
        return {name: row_shapes[slot][-1] for slot, name in widths.items() if slot in row_shapes}

    @classmethod
    def prepare(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> dict[str, Tensor]:
        """Of F frames: vid float32 (F, R, C), vid_mask bool (F, R), frame_s float64 (F,), seconds
        of their middles, and commonsense (F, R, C) if it is read; zeros where there is no region.

        With text=tokens also what `token_tensors` says.
        """
        c = cast(IperceiveVideoqaConfig, config)
        prepared = frame_regions(
            features["vid"],
            features.get("commonsense"),
            max_frames=c.max_frames,
            commonsense_width=c.commonsense_width if c.has_commonsense else None,
            window_s=window_s,
        )
        return prepared | token_tensors(features)

    def forward(
        self,
        *,
        qas_bert: Tensor,
        qas_mask: Tensor,
        sub_bert: Tensor,
        sub_mask: Tensor,
        dense_bert: Tensor,
        dense_cap_mask: Tensor,
        vid: Tensor,
        vid_mask: Tensor,
        commonsense: Tensor | None = None,
        answer: Tensor | None = None,
        relevant: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Scores of K candidates to B questions.

        qas_bert: float (B, K, L, 768), of "question candidate"; sub_bert, dense_bert: float
        (B, F, L, 768), of the subtitles and the dense captions at each frame; with a text encoder
        int ids without the last axis. vid: float (B, F, R, 300). qas_mask (B, K, L), sub_mask,
        dense_cap_mask (B, F, L), vid_mask (B, F, R): not 0 at what is real, from the left.
        commonsense: float (B, F, R, C). answer: int64 (B,). relevant: bool (B, F).

        Returns `scores` and `logits`, which are the same, float32 (B, K); `predictions`, int64
        (B,); `frame_logits` and `frame_gates`, float32 (B, K, F), of the local gate, 0 at padded
        frames; `frame_mask`, bool (B, K, F). With answer `loss_ce_sum`, with relevant also
        `loss_bbce` and `loss_iofsm`, sums over the batch, and `loss`, their sum.
        """
        masks = (mask != 0 for mask in (qas_mask, sub_mask, dense_cap_mask, vid_mask))
        qas_mask, sub_mask, dense_cap_mask, vid_mask = masks
        asked = self._words(qas_bert, qas_mask)  # (B, K, L, H)
        contexts = {
            "sub": (self._words(sub_bert, sub_mask), sub_mask),
            "dense": (self._words(dense_bert, dense_cap_mask), dense_cap_mask),
            "vid": (self._regions(vid, vid_mask, commonsense), vid_mask),
        }
        seen = {name: self._look(asked, qas_mask, *given) for name, given in contexts.items()}
        sub, sub_frames = seen["sub"]  # (B, K, F, H), (B, K, F)
        joined, joined_masks = [], []
        for other, frames in (seen["vid"], seen["dense"]):
            joined.append(self._compare(sub, sub_frames, other, frames))
            joined_masks.append(sub_frames | frames)
        if self.is_public:  # frames are those with subtitles or, in the second half, captions
            joined_masks = [sub_frames, seen["dense"][1]]
            frame_mask = sub_frames
        else:
            frame_mask = joined_masks[0] | joined_masks[1]
        told = self._integrate(joined, joined_masks)
        outputs = self._choose(told, frame_mask)
        if answer is not None:
            outputs |= frame_selection_losses(outputs, answer, relevant)
        return outputs

    def _words(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, S, L, width) or ids (B, S, L) -> (B, S, L, H)."""
        around = mask.shape[:2]
        tokens, mask = tokens.flatten(0, 1), mask.flatten(0, 1)
        if isinstance(self.encoder, nn.Embedding):
            tokens = self.encoder(tokens)
        elif self.encoder is not None:
            # A text without words is read as one of padding, whose features nothing reads.
            tokens = self.encoder(tokens, mask | ~mask.any(dim=1, keepdim=True))
        rows = self._encode(self.text_projection(tokens.float()), mask)
        return rows.view(*around, *rows.shape[1:])

    def _regions(self, vid: Tensor, mask: Tensor, commonsense: Tensor | None) -> Tensor:
        """(B, F, R, C) -> (B, F, R, H)."""
        around = mask.shape[:2]
        rows = F.normalize(vid.float(), dim=-1)
        if self.common_sense is not None:
            if commonsense is None:
                raise TypeError("give commonsense, or set has_commonsense=false")
            rows = self.common_sense(rows, commonsense)
        rows = self._encode(self.region_projection(rows.flatten(0, 1)), mask.flatten(0, 1))
        return rows.view(*around, *rows.shape[1:])

    def _encode(self, rows: Tensor, mask: Tensor) -> Tensor:
        x: Tensor = self.shared_projection(rows)
        encoded: Tensor = self.word_encoder(x, None if self.is_public else mask)
        return encoded

    def _look(
        self, asked: Tensor, asked_mask: Tensor, context: Tensor, context_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What candidates (B, K, L, H) and a context (B, F, S, H) find in one another, (B, K, F, H)
        with the frames that have any of it, bool (B, K, F)."""
        x, y = asked[:, :, None], context[:, None]  # (B, K, 1, L, H), (B, 1, F, S, H)
        x_mask, y_mask = asked_mask[:, :, None], context_mask[:, None]
        pairs = x_mask[..., None] & y_mask[..., None, :]  # (B, K, F, L, S)
        in_y, in_x = self.attention.both_ways(x, y, pairs)
        found = [
            strongest(self._join(rows.expand_as(in_other), in_other), pairs.any(dim=dim))
            for rows, in_other, dim in ((x, in_y, -1), (y, in_x, -2))
        ]
        return self.word_fusion(four_fold(*found)), pairs.any(dim=-1).any(dim=-1)

    def _join(self, x: Tensor, found: Tensor) -> Tensor:
        """Rows (..., H) with what each found, mapped back; the same map everywhere."""
        joined: Tensor = self.attended(torch.cat([x, found, x * found], dim=-1))
        return joined

    def _compare(self, x: Tensor, x_mask: Tensor, y: Tensor, y_mask: Tensor) -> Tensor:
        """Two streams of frames (B, K, F, H) attend one another; both in one, (B, K, F, H)."""
        found = []
        for rows, mask, other, other_mask in ((x, x_mask, y, y_mask), (y, y_mask, x, x_mask)):
            seen = torch.ones_like(other_mask) if self.is_public else other_mask
            in_other = self.attention.one_way(rows, other, mask[..., None] & seen[..., None, :])
            found.append(self._join(rows, in_other) + rows * mask[..., None])
        compared: Tensor = self.frame_fusion(four_fold(*found))
        return compared

    def _integrate(self, halves: list[Tensor], masks: list[Tensor]) -> Tensor:
        """Two streams (B, K, F, H) one behind the other, self-attention, and their sum."""
        along = torch.cat(halves, dim=2).flatten(0, 1)  # (B K, 2F, H)
        found = self.frame_attention(along, torch.cat(masks, dim=2).flatten(0, 1))
        parts = found.view(*halves[0].shape[:2], *found.shape[1:]).chunk(2, dim=2)
        told = torch.zeros_like(halves[0])
        for rows, part, mask in zip(halves, parts, masks, strict=True):
            real = mask[..., None]
            joined = self._join(rows, part) + rows * real
            # A half without frames, such as captions that are not there, has nothing to add.
            told = told + (joined if self.is_public else joined * real)
        return told

    def _choose(self, told: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Scores of candidates by their frames (B, K, F, H); mask: bool (B, K, F)."""
        around, read = mask.shape[:2], None if self.is_public else mask.flatten(0, 1)
        once = self.frame_encoder(told.flatten(0, 1), read)
        twice = self.frame_encoder(once, read)
        frames = torch.cat([twice, once], dim=-1)
        frames = frames.view(*around, *frames.shape[1:])  # (B, K, F, 2H)
        gated = []
        for layer in (self.local_gate, self.global_gate):
            logits = layer(frames).squeeze(-1).float().masked_fill(~mask, 0.0)
            gates = logits.sigmoid() * mask
            gated.append((logits, gates, (frames * gates[..., None].to(frames)).sum(dim=2)))
        (frame_logits, frame_gates, local), (_, _, overall) = gated
        summary = torch.cat([strongest(frames, mask), overall, local], dim=-1)  # (B, K, 6H)
        scores = self.score(summary).squeeze(-1).float()
        return {
            "scores": scores,
            "logits": scores,
            "predictions": scores.argmax(dim=1),
            "frame_logits": frame_logits,
            "frame_gates": frame_gates,
            "frame_mask": mask,
        }

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """A checkpoint of `TVQANet`, also of two GPUs; its tables of positions are compared with
        ours. A join with common sense and a text encoder are beyond it, and keep their values."""
        own = self.state_dict()
        renamed = {published_key(key): key for key in own}
        kept = {key: own[key] for key in own if key.startswith(_BEYOND)}
        for key, value in without_parallel_prefix(state).items():
            if POSITIONS.fullmatch(key):
                self._require_sinusoids(key, value)
            else:
                kept[renamed.get(key, key)] = value
        fill(self, kept, what="iPerceive VideoQA")

    def _require_sinusoids(self, key: str, table: Tensor) -> None:
        shape, width = tuple(table.shape), self.config.hidden
        rows = table.float().reshape(-1, width) if table.numel() % width == 0 else None
        if rows is None or not torch.allclose(rows, sinusoids(len(rows), width), atol=1e-4):
            raise UsageError(
                f"{key}, {shape}, is not the usual table of sines and cosines of {width} channels",
                hint="this network computes its positions, and would differ from the checkpoint",
            )

    def published_state(self) -> dict[str, Tensor] | None:
        """The entries of the original class, its tables of positions among them; None with what
        is beyond it."""
        if any(key.startswith(_BEYOND) for key in self.state_dict()):
            return None
        state = {published_key(k): v.detach().cpu() for k, v in self.state_dict().items()}
        for encoder in ("input_encoder", "cls_encoder"):
            key = f"{encoder}.stacked_encoderBlocks.0.position_encoding.pe"
            state[key] = sinusoids(500, self.config.hidden)
        return state

    @classmethod
    def own_entry(cls, key: str) -> str:
        """Also of BERT alone, with or without `bert.` in front."""
        return bert_entry(key) or key


class _CommonSense(nn.Module):
    """Regions (..., C) of length 1 with common sense (..., S) beside them -> (..., C)."""

    def __init__(self, c: IperceiveVideoqaConfig) -> None:
        super().__init__()
        both = c.region_width + c.commonsense_width
        self.norm = nn.LayerNorm(both)
        self.map = nn.Linear(both, c.region_width)
        with torch.no_grad():
            self.map.weight.zero_()
            self.map.weight[:, : c.region_width] = torch.eye(c.region_width)
            self.map.bias.zero_()

    def forward(self, regions: Tensor, commonsense: Tensor) -> Tensor:
        sense = F.normalize(commonsense.float(), dim=-1)
        return cast(Tensor, self.map(self.norm(torch.cat([regions, sense], dim=-1))))


def _projection(num_in: int, num_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(num_in),
        nn.Dropout(dropout),
        nn.Linear(num_in, num_out),
        nn.ReLU(),
        nn.LayerNorm(num_out),
    )


def _text_encoder(c: IperceiveVideoqaConfig) -> tuple[int, nn.Module | None]:
    """The width of what stands for a token, and what makes it of ids."""
    if c.text == "tokens":
        return c.text_width, None
    if c.text == "words":
        return c.text_width, nn.Embedding(c.vocabulary_size, c.text_width, padding_idx=0)
    return WIDTHS[c.text], FrozenBert(c.text, c.vocabulary_size)
