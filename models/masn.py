"""MASN: motion-appearance synergistic networks for video question answering.

Paper: Attend What You Need: Motion-Appearance Synergistic Networks for Video Question Answering
(Seo et al., ACL 2021, arXiv 2106.10446). Code: ahjeongseo/MASN-pytorch (MIT).
Checkpoint layout: state dicts of its class `model.masn.MASN`, old-style weight norm
(`weight_g`, `weight_v`); published as whole module objects named TASK_FIGURE.pth.
28,068,700 parameters with 2,423 words and one output; the original holds 786,432 more that nothing
uses. Of ours 726,900 (word vectors) and 4,194,304 (input projections) are frozen, as published.

Data flow (B videos, K candidates, T clips, N objects, M = T N nodes, L words, D = 512):
objects (B, T, N, 2048) and clips (B, T, 2048), of appearance and of motion alike -> projected, with
box and time codes -> nodes (B, M, D) -> graph over the nodes of a video (B, M, D) -> bilinear
attention with the words of the question (B, K, L, D) -> both joined (B, K, 2L, D), fused by three
attentions weighted by the question -> pooled (B, K, D) -> `logits` (B,), (B, K) or (B, answers).

The settings' defaults give the published numbers, including what its authors call defects:
`mask_last_position`, `mask_padded_words`, `train_projections`.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vlpipe.models.clips import ChangingSlot, ClipChoice, aligned_clips, clip_spans
from vlpipe.models.feature_slot import FeatureSlot
from vlpipe.models.layers.answers import (
    ANSWER_SET,
    COUNT,
    MULTIPLE_CHOICE,
    answer_loss,
    answer_predictions,
)
from vlpipe.models.layers.bilinear_attention import BilinearAttention, NodeSide
from vlpipe.models.layers.object_graph import ObjectGraph
from vlpipe.models.layers.row_norm import RowNorm, normalise_real
from vlpipe.models.layers.sequences import real_positions, sinusoids
from vlpipe.models.layers.weight_norm import WeightNormLinear
from vlpipe.models.layers.word_fusion import AttentionPool, WordFusion
from vlpipe.models.model import Model, ModelConfig, PublishedResult
from vlpipe.models.published_files import fill, without_parallel_prefix
from vlpipe.models.published_layouts.masn import NOT_READ, published_key
from vlpipe.models.registry import register
from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError

_BOX_NUMBERS = 6  # x0/w, y0/h, x1/w, y1/h, width/w, height/h
_CODE_WIDTH = 64
_GRAPH_DROPOUT = _FUSION_DROPOUT = 0.1


class MasnConfig(ModelConfig):
    """Sizes, and where this network departs from the published one.

    vocabulary_size, num_answers: given by the task. appearance_width, motion_width, num_objects:
        given by the features.
    max_clips: clips of a video that are kept (TGIF-QA 20; MSVD-QA and MSRVTT-QA 30).
    dropout: of words and questions. projection_dropout: of input weights; None: the same.
        dropout_scale: factor of the paper's other shares, 0.1 in graphs and fusion, 0.2 and 0.5 in
        the attention (published: 1).
    clip_choice: of a longer video `first` keeps the first clips (published), `spread` takes clips
        at equal distances, `mean` the means of equal parts.
    grid: a feature map in the place of objects is averaged to grid x grid cells.
    changes: slots that hold what changes, where no clip network is at hand: motion the absolute
        difference from the row before, appearance the signed one from the video's median row.
    normalise_inputs: features are centred and scaled by the statistics of the training clips, as
        untrained extractors need it, whose rows hardly differ (published: False).
    initialisation: `default` is torch's, as published; `he` keeps the variance through ReLUs (He et
        al., 2015), without which what the video says starts as a hundredth of what the words say.
    train_words: the word vectors learn (published: frozen).
    train_projections: the input projections learn; published: False, by a slip of the code that
        leaves four random projections.
    mask_last_position: a sequence that fills its width loses its last clip or word (published).
    mask_padded_words: padding behind a question takes no part in the fusion's weights; published:
        False, where a score depends on the longest question of its batch.
    share_video: everything that depends on the video alone is computed once for all candidates;
        off, once for each, as published. Evaluation gives the same scores either way; in training
        candidates then share their dropout too.
    """

    vocabulary_size: PositiveInt = 2423
    num_answers: PositiveInt = 1
    appearance_width: PositiveInt = 2048
    motion_width: PositiveInt = 2048
    num_objects: PositiveInt = 10
    max_clips: PositiveInt = 20
    max_words: PositiveInt = 20
    word_width: PositiveInt = 300
    hidden: int = Field(default=512, ge=2, multiple_of=2)
    glimpses: PositiveInt = 4
    graph_layers: PositiveInt = 3
    dropout: float = Field(default=0.3, ge=0, lt=1)
    projection_dropout: float | None = Field(default=None, ge=0, lt=1)
    dropout_scale: float = Field(default=1.0, ge=0, lt=2)
    clip_choice: ClipChoice = "first"
    grid: PositiveInt = 4
    changes: tuple[ChangingSlot, ...] = ()
    normalise_inputs: bool = False
    initialisation: Literal["default", "he"] = "default"
    train_words: bool = False
    train_projections: bool = False
    mask_last_position: bool = True
    mask_padded_words: bool = False
    share_video: bool = True


class Question(NamedTuple):
    """K encoded questions about each of B videos.

    words: (B, K, L, D). summary: (B, K, D). mask: (B, K, L), the words that are there. counted:
    (B, K, L), the positions that take part in the fusion's weights.
    """

    words: Tensor
    summary: Tensor
    mask: Tensor
    counted: Tensor


class InputProjection(nn.Module):
    """(..., in) -> (..., out) without bias, by a weight of which training drops a share."""

    def __init__(self, num_in: int, num_out: int, dropout: float, *, is_trained: bool) -> None:
        super().__init__()
        weight = nn.Linear(num_in, num_out, bias=False).weight.detach()
        self.weight = nn.Parameter(weight, requires_grad=is_trained)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.dropout(self.weight, self.dropout, self.training))


class InputNorm(nn.Module):
    """(B, T, ..., C) with mean 0 and variance 1 a channel over the clips in mask, (B, T) bool;
    0 elsewhere. Evaluation uses the statistics that training saw."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = RowNorm(width, affine=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return normalise_real(self.norm, x, mask)


class QuestionEncoder(nn.Module):
    """Embedded words (Q, L, E), lengths (Q,) -> outputs (Q, L, D), 0 past the end, and (Q, D)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * width, width, bias=False)
        self.hidden = nn.Linear(2 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(x, length.cpu(), batch_first=True, enforce_sorted=False)
        outputs, (last, _) = self.lstm(packed)
        rows, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
        words = self.dropout(F.relu(self.output(rows)))  # (Q, L, D)
        summary = self.dropout(F.relu(self.hidden(torch.cat([last[0], last[1]], dim=-1))))
        return words, summary


class Stream(nn.Module):
    """Appearance or motion: from features of objects and clips to what a question finds in them."""

    def __init__(self, config: MasnConfig, width: int) -> None:
        super().__init__()
        d, is_trained = config.hidden, config.train_projections
        dropped = config.projection_dropout
        dropped = config.dropout if dropped is None else dropped
        self.norm_local = InputNorm(width) if config.normalise_inputs else None
        self.norm_global = InputNorm(width) if config.normalise_inputs else None
        self.project_local = InputProjection(width, d, dropped, is_trained=is_trained)
        self.project_global = InputProjection(width, d, dropped, is_trained=is_trained)
        self.local = nn.Linear(d + 2 * _CODE_WIDTH, d)
        self.node = nn.Linear(2 * d, d)
        scale = config.dropout_scale
        self.graph = ObjectGraph(d, config.graph_layers, scale * _GRAPH_DROPOUT)
        self.attention = BilinearAttention(d, config.glimpses, dropout_scale=scale)

    def encode(self, local: Tensor, clips: Tensor, codes: Tensor, mask: Tensor) -> NodeSide:
        """local: (B, T, N, C), clips: (B, T, C), codes: (B, T, N, 128), mask: (B, T) bool."""
        num_clips, num_objects = local.shape[1:3]
        if self.norm_local is not None and self.norm_global is not None:
            local, clips = self.norm_local(local, mask), self.norm_global(clips, mask)
        objects = self.local(torch.cat([self.project_local(local), codes], dim=-1))
        frames = self.project_global(clips)  # (B, T, D)
        frames = frames + sinusoids(num_clips, frames.shape[-1]).to(frames)
        around = frames[:, :, None].expand_as(objects)
        nodes = self.node(torch.cat([objects, around], dim=-1)).flatten(1, 2)  # (B, M, D)
        node_mask = mask.repeat_interleave(num_objects, dim=1)  # (B, M), frame-major
        return self.attention.node_side(self.graph(nodes, node_mask), node_mask)


def _global_rows(channels: str) -> tuple[str, ...]:
    return (channels, f"{channels} height width", f"{channels} time height width")


def _local_rows(channels: str) -> tuple[str, ...]:
    return (f"objects {channels}", *_global_rows(channels)[1:])


@register("masn")
class Masn(Model):
    """MASN for one task; see the top of the file."""

    description: ClassVar[str] = "MASN (ACL 2021): questions about videos, by objects and motion"
    code: ClassVar[str] = "https://github.com/ahjeongseo/MASN-pytorch"
    KINDS: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "count": COUNT,
            "action": MULTIPLE_CHOICE,
            "transition": MULTIPLE_CHOICE,
            "frameqa": ANSWER_SET,
            "open_ended": ANSWER_SET,
            "fib": ANSWER_SET,
        }
    )
    tasks: ClassVar[tuple[str, ...]] = tuple(KINDS)
    Config: ClassVar[type[ModelConfig]] = MasnConfig
    slots: ClassVar[Mapping[str, FeatureSlot]] = MappingProxyType(
        {
            "appearance_global": FeatureSlot(
                "resnet152", "a row or a map of each clip's frame", row_shapes=_global_rows("A")
            ),
            "appearance_local": FeatureSlot(
                "objects", "objects in each row, or a feature map", row_shapes=_local_rows("A")
            ),
            "motion_global": FeatureSlot(
                "i3d_resnet50", "a row or a map of each clip", row_shapes=_global_rows("M")
            ),
            "motion_local": FeatureSlot(
                "objects_motion", "motion of those objects, or a map", row_shapes=_local_rows("M")
            ),
            "boxes": FeatureSlot(
                "objects_spatial",
                "six numbers of each object's box",
                is_optional=True,
                row_shapes=(f"objects {_BOX_NUMBERS}",),
            ),
        }
    )
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 1e-4, "batch_size": 32, "epochs": 100}
    )
    published_results: ClassVar[tuple[PublishedResult, ...]] = (
        PublishedResult("count", "tgif", "mse", 3.75, "MASN"),
        PublishedResult("action", "tgif", "accuracy", 84.4, "MASN"),
        PublishedResult("transition", "tgif", "accuracy", 87.4, "MASN"),
        PublishedResult("frameqa", "tgif", "accuracy", 59.5, "MASN"),
        PublishedResult("open_ended", "msvd-qa", "accuracy", 38.0, "MASN"),
        PublishedResult("open_ended", "msrvtt-qa", "accuracy", 35.2, "MASN"),
    )

    def __init__(self, config: ModelConfig, task: str) -> None:
        super().__init__(config, task)
        settings = cast(MasnConfig, config)
        self.config = settings
        self.kind = self.KINDS[task]
        d = settings.hidden
        self.words = nn.Embedding(settings.vocabulary_size, settings.word_width)
        self.words.weight.requires_grad_(settings.train_words)
        self.word_projection = nn.Linear(settings.word_width, d, bias=False)
        self.word_dropout = nn.Dropout(settings.dropout)
        self.question_encoder = QuestionEncoder(d, settings.dropout)
        self.box_code = nn.Linear(_BOX_NUMBERS, _CODE_WIDTH)
        self.appearance = Stream(settings, settings.appearance_width)
        self.motion = Stream(settings, settings.motion_width)
        fusion_dropout = settings.dropout_scale * _FUSION_DROPOUT
        self.fusion = WordFusion(d, fusion_dropout)
        self.pool = AttentionPool(d, fusion_dropout)
        self.output = nn.Linear(d, settings.num_answers if self.kind == ANSWER_SET else 1)
        if settings.initialisation == "he":
            _initialise_he(self)

    @property
    def word_embedding(self) -> nn.Embedding:
        return self.words

    @classmethod
    def settings_for(
        cls, config: ModelConfig, row_shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        grid = cast(MasnConfig, config).grid
        found = {
            "appearance_width": row_shapes["appearance_global"][0],
            "motion_width": row_shapes["motion_global"][0],
        }
        objects = {
            slot: shape[0] if len(shape) == 2 else grid * grid  # the cells of a map
            for slot, shape in row_shapes.items()
            if slot in ("appearance_local", "motion_local", "boxes")
        }
        if len(set(objects.values())) > 1:
            named = ", ".join(f"{slot} {count}" for slot, count in objects.items())
            raise UsageError(
                f"model 'masn' reads the same objects from all its slots, found: {named}",
                hint="objects: extract them with one boxes_per_frame; maps have grid x grid of "
                "them, and their own boxes with --set features.boxes=none",
            )
        return found | {"num_objects": objects["appearance_local"]}

    @classmethod
    def prepare(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> dict[str, Tensor]:
        """T = max_clips clips, zeros behind the last: appearance_global, motion_global (T, C),
        appearance_local, motion_local (T, N, C), boxes (T, N, 6), video_length ()."""
        settings = cast(MasnConfig, config)
        return aligned_clips(
            features,
            max_clips=settings.max_clips,
            choice=settings.clip_choice,
            grid=settings.grid,
            changes=settings.changes,
            window_s=window_s,
        )

    @classmethod
    def row_spans(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> npt.NDArray[np.float64]:
        settings = cast(MasnConfig, config)
        return clip_spans(
            features,
            max_clips=settings.max_clips,
            choice=settings.clip_choice,
            window_s=window_s,
        )

    def forward(
        self,
        *,
        appearance_global: Tensor,
        motion_global: Tensor,
        appearance_local: Tensor,
        motion_local: Tensor,
        boxes: Tensor,
        video_length: Tensor,
        question: Tensor | None = None,
        question_length: Tensor | None = None,
        candidates: Tensor | None = None,
        candidates_length: Tensor | None = None,
        answer: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Scores of B questions.

        appearance_global, motion_global: float (B, T, C). appearance_local, motion_local: float
        (B, T, N, C). boxes: float (B, T, N, 6), shares of the frame. video_length: int (B,).
        question: int (B, L) ids, 0 behind question_length (B,); or, in multiple choice, candidates
        (B, K, L) and candidates_length (B, K), each "question candidate". answer: (B,).

        Returns `logits`, float32 (B,), (B, K) or (B, answers); `predictions`, int64 (B,); `loss`
        if answer is given; in evaluation `appearance_attention`, `motion_attention` (B, K, T, N)
        and `word_attention` (B, K, L), each with the sum 1 for a question; K = 1 without
        candidates.
        """
        asked, length = (question, question_length) if candidates is None else (
            candidates, candidates_length
        )  # fmt: skip
        if asked is None or length is None:
            raise TypeError("give question and question_length, or candidates and their length")
        if asked.ndim == 2:
            asked, length = asked[:, None], length[:, None]  # K = 1
        num_questions = asked.shape[1]
        told = self._encode_questions(asked, length)
        told_by = (appearance_global, motion_global, appearance_local, motion_local, boxes)
        video = [x.float() for x in told_by]  # stores hold float16
        if num_questions > 1 and not self.config.share_video:
            video = [x.repeat_interleave(num_questions, dim=0) for x in video]
            video_length = video_length.repeat_interleave(num_questions, dim=0)
            told = Question(*(x.flatten(0, 1)[:, None] for x in told))
        joined, attention = self._look(video, video_length, told)
        mask = torch.cat([told.mask, told.mask], dim=-1)
        scores = self.output(self.pool(joined, mask)).float()  # (B, K, answers or 1)
        scores = scores.view(-1, num_questions, scores.shape[-1])
        logits = scores[:, 0] if self.kind == ANSWER_SET else scores.squeeze(-1)
        logits = logits.squeeze(-1) if self.kind == COUNT else logits
        outputs = {"logits": logits, "predictions": answer_predictions(self.kind, logits)}
        if answer is not None:
            outputs["loss"] = answer_loss(self.kind, logits, answer)
        if not self.training:
            for name, weights in attention.items():
                outputs[name] = weights.reshape(-1, num_questions, *weights.shape[2:])
        return outputs

    def _encode_questions(self, ids: Tensor, length: Tensor) -> Question:
        """ids: (B, K, L), length: (B, K); L is cut to the longest."""
        width, longest = ids.shape[-1], length.amax(dim=0).clamp(1, ids.shape[-1])  # (K,)
        drop_last = self.config.mask_last_position
        mask = real_positions(length, width, drop_last=drop_last)
        cut = int(longest.max())
        ids, mask = ids[..., :cut], mask[..., :cut]
        x = F.relu(self.word_projection(self.word_dropout(self.words(ids.flatten(0, 1)))))
        words, summary = self.question_encoder(x, length.flatten().clamp(1, width))
        if self.config.mask_padded_words:
            counted = mask
        else:
            # The published code runs once for each candidate, padded to the longest of its place.
            counted = real_positions(longest, cut).expand_as(mask)
        shape = ids.shape[:2]
        return Question(words.unflatten(0, shape), summary.unflatten(0, shape), mask, counted)

    def _look(
        self, video: Sequence[Tensor], video_length: Tensor, question: Question
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The words joined with what they found (B, K, 2L, D), and where they found it."""
        appearance_global, motion_global, appearance_local, motion_local, boxes = video
        num_clips, num_objects = appearance_local.shape[1:3]
        mask = real_positions(
            video_length, num_clips, drop_last=self.config.mask_last_position
        )  # (B, T)
        times = sinusoids(num_clips, _CODE_WIDTH).to(boxes) * mask[..., None]  # (B, T, 64)
        codes = torch.cat(
            [self.box_code(boxes), times[:, :, None].expand(-1, -1, num_objects, -1)], dim=-1
        )
        seen, attention = {}, {}
        for name, stream, local, clips in (
            ("appearance", self.appearance, appearance_local, appearance_global),
            ("motion", self.motion, motion_local, motion_global),
        ):
            side = stream.encode(local, clips, codes, mask)
            seen[name], pairs = stream.attention(side, question.words, question.mask)
            over_nodes = pairs.mean(dim=2)  # (B, K, L, M), of all glimpses
            attention[f"{name}_attention"] = over_nodes.sum(dim=2).unflatten(
                -1, (num_clips, num_objects)
            )
            attention[f"{name}_words"] = over_nodes.sum(dim=-1)
        word_attention = (attention.pop("appearance_words") + attention.pop("motion_words")) / 2
        both = torch.cat([seen["appearance"], seen["motion"]], dim=2)
        joined, _ = self.fusion(both, question.summary, question.mask, question.counted)
        return joined, attention | {"word_attention": word_attention}

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        found = without_parallel_prefix(state)
        for size, layer in (("glove.weight", self.words), ("fc.weight", self.output)):
            if size in found and found[size].ndim == 2:
                _set_rows(layer, len(found[size]))
        renamed = {published_key(key): key for key in self.state_dict()}
        kept = {
            renamed.get(key, key): value
            for key, value in found.items()
            if not NOT_READ.fullmatch(key)
        }
        fill(self, kept, what=f"MASN for the task {self.task!r}")

    def published_state(self) -> dict[str, Tensor] | None:
        """The entries of the original class, with its unused maps (zeros), copies and tables."""
        if self.config.normalise_inputs:
            return None
        d, config = self.config.hidden, self.config
        state = {published_key(k): v.detach().cpu() for k, v in self.state_dict().items()}
        for key in [key for key in state if key.endswith(".weight_raw")]:
            state[key.removesuffix("_raw")] = state[key].clone()
        state["sentence_encoder.compress_hn_layers.weight"] = torch.zeros(d, d)
        state["sentence_encoder.compress_hn_layers_bi.weight"] = torch.zeros(d, 2 * d)
        state["pos_location_encoding.pe"] = sinusoids(config.max_clips, _CODE_WIDTH)
        state["pos_enc.pe"] = sinusoids(config.max_clips, d)
        return state

    @classmethod
    def published_file_name(cls, task: str, value: float) -> str | None:
        names = {
            "count": "Count", "action": "Action", "transition": "Trans", "frameqa": "FrameQA",
            "open_ended": "MS-QA",
        }  # fmt: skip
        return f"{names[task]}_{value:.2f}.pth" if task in names else None


def _initialise_he(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Linear | InputProjection):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, WeightNormLinear):
            layer.initialise_he()


def _set_rows(layer: nn.Module, num_rows: int) -> None:
    """Gives an embedding or a linear map that many rows; their values are still to be filled."""
    for name, old in list(layer.named_parameters()):
        new = old.new_zeros(num_rows, *old.shape[1:])
        setattr(layer, name, nn.Parameter(new, requires_grad=old.requires_grad))
    if isinstance(layer, nn.Embedding):
        layer.num_embeddings = num_rows
    elif isinstance(layer, nn.Linear):
        layer.out_features = num_rows
