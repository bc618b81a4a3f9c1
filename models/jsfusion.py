"""JSFusion: every frame of a video against every word of a sentence, read by gated convolutions.

Paper: A Joint Sequence Fusion Model for Video Question Answering and Retrieval (Yu, Kim and Kim,
ECCV 2018, arXiv 1808.02559). Code: yj-yu/lsmdc (TensorFlow 1, no licence file).
Checkpoint layouts: state dicts with the flat names of `published_layouts/jsfusion.py`, and the
public TensorFlow variables by their own names, as arrays.
25,045,668 parameters for retrieval with 16,824 words, 90,635,611 for blanks with as many answers.

Data flow (V videos, S sentences, P = V S pairs, F = 40 frames, M = 40 words, D = 512):
video (V, F, 2176) and words (S, M) -> bidirectional LSTMs, joined with their inputs -> dense
(V, F, D), (S, M, D) -> products of all frames with all words (P, F, M, D) -> attention times a
dense map, the joint tensor -> three gated convolutions (P, 38, 38, 256), (P, 36, 36, 256),
(P, 17, 17, 256) -> mean over what is valid (P, 256) -> dense layers -> `score`.

Frames stand at the end of their rows and words at the start; what is padded has no influence. The
public code differs in many places, and by task: `variant="public"`.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vlpipe.models.feature_slot import FeatureSlot
from vlpipe.models.frame_rows import frames_with_sound, spans_at_the_end
from vlpipe.models.layers.frame_convolutions import FrameConvolutions, halved_sinusoids
from vlpipe.models.layers.input_projection import InputProjection
from vlpipe.models.layers.joint_fusion import (
    LEAST_STEPS,
    STRIDES,
    Dense,
    Fused,
    GatedStage,
    JointFusion,
    JointTensor,
    cropped,
    valid_dense,
)
from vlpipe.models.layers.jsfusion_forms import BLANK, CHOICE, FORMS, RETRIEVAL
from vlpipe.models.layers.padded_rnn import run_over_sequences, standing_positions
from vlpipe.models.model import Model, ModelConfig, PublishedResult
from vlpipe.models.pair_scores import Encoded
from vlpipe.models.published_files import fill, without_parallel_prefix
from vlpipe.models.published_layouts.jsfusion import flat_key, from_tensorflow, with_defaults
from vlpipe.models.registry import register
from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError


class JsFusionConfig(ModelConfig):
    """Sizes, and the ablations of the thesis's tables.

    vocabulary_size, num_answers, blank_id: given by the task; num_answers for blanks alone.
    frame_width, sound_width, audio: given by the features; without audio the rows are frames alone.
    variant: `thesis`, or `public` for what yj-yu/lsmdc does for the task.
    encoder: `blstm`; `lstm`, one direction; `dense`, no recurrent layer (noBLSTM).
    decoder: `conv`; `max` or `mean`, pooling in the place of the convolutions (JSTmax, JSTmean);
        `last_states`, dense layers on the product of the last states (LSTM-fusion).
    gates: of the convolutions; off is the tables' noattention. attention: alpha of the tensor.
    widths: of D1, of D2 to D4, of the convolutions, of D5, D6 and D7; None: those of the task.
    dropout: None: 0.5, or 0.2 for blanks in the thesis's form.
    norm_momentum: share of a batch in the statistics that evaluation uses. With the published
        0.001 they follow after thousands of steps; short trainings need 0.1.
    changes: beside each frame the network reads its difference from the median frame, in which the
        place where something moves is not seen.
    normalise_inputs: frames are centred and scaled by the statistics of the training frames, as
        features of untrained networks need.
    pairs_at_once: evaluation fuses that many pairs at a time.
    """

    vocabulary_size: PositiveInt = 16824
    num_answers: PositiveInt = 16824
    blank_id: int = Field(default=1, ge=0)
    frame_width: PositiveInt = 2048
    sound_width: PositiveInt = 128
    audio: bool = True
    max_frames: int = Field(default=40, ge=LEAST_STEPS)
    max_words: int = Field(default=40, ge=LEAST_STEPS)
    word_width: PositiveInt = 300
    hidden: PositiveInt = 512
    widths: (
        tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] | None
    ) = None
    variant: Literal["thesis", "public"] = "thesis"
    encoder: Literal["blstm", "lstm", "dense"] = "blstm"
    decoder: Literal["conv", "max", "mean", "last_states"] = "conv"
    gates: bool = True
    attention: bool = True
    dropout: float | None = Field(default=None, ge=0, lt=1)
    norm_momentum: float = Field(default=0.001, gt=0, le=1)
    changes: bool = False
    normalise_inputs: bool = False
    pairs_at_once: PositiveInt = 32

    @model_validator(mode="after")
    def _fits(self) -> Self:
        switches = (self.encoder, self.decoder, self.gates, self.attention)
        if self.variant == "public" and switches != ("blstm", "conv", True, True):
            raise ValueError("variant public has no ablations: leave encoder, decoder, gates alone")
        if self.encoder == "dense" and self.decoder == "last_states":
            raise ValueError("decoder last_states needs an encoder with states: blstm or lstm")
        return self

    @property
    def video_width(self) -> int:
        frames = self.frame_width * (2 if self.changes else 1)
        return frames + (self.sound_width if self.audio else 0)


@register("jsfusion")
class JsFusion(Model):
    """JSFusion for one task; see the top of the file."""

    description: ClassVar[str] = "JSFusion (ECCV 2018): videos for sentences, choices, blanks"
    code: ClassVar[str] = "https://github.com/yj-yu/lsmdc"
    tasks: ClassVar[tuple[str, ...]] = (RETRIEVAL, CHOICE, BLANK)
    Config: ClassVar[type[ModelConfig]] = JsFusionConfig
    slots: ClassVar[Mapping[str, FeatureSlot]] = MappingProxyType(
        {
            "frames": FeatureSlot("resnet152", "a row for each frame, five a second"),
            "sound": FeatureSlot("vggish", "128 numbers a row, after PCA", is_optional=True),
        }
    )
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 1e-4, "batch_size": 10}
    )
    published_results: ClassVar[tuple[PublishedResult, ...]] = (
        *(
            PublishedResult("retrieval", dataset, metric, value, "JSFusion")
            for dataset, values in (
                # The thesis prints 11.2 for R@5 of LSMDC; listings of the paper say 21.2.
                ("lsmdc", (9.1, 21.2, 34.1, 36.0)),
                ("msrvtt-retrieval", (10.2, 31.2, 43.2, 13.0)),
            )
            for metric, value in zip(("R@1", "R@5", "R@10", "MedR"), values, strict=True)
        ),
        PublishedResult("mc", "lsmdc", "accuracy", 73.5, "JSFusion"),
        PublishedResult("mc", "msrvtt-retrieval", "accuracy", 83.4, "JSFusion"),
        PublishedResult("fib", "lsmdc", "accuracy", 45.52, "JSFusion"),
    )

    def __init__(self, config: ModelConfig, task: str) -> None:
        super().__init__(config, task)
        c = cast(JsFusionConfig, config)
        self.config = c
        self.form = FORMS[c.variant, task]
        d1, joint, conv, d5, d6, d7 = c.widths or self.form.widths
        if self.task == BLANK and d7 != d1:
            raise UsageError(
                f"model 'jsfusion': D1 is {d1} wide and D7 {d7}, whose sum answers a blank",
                hint="give both the same number in widths",
            )
        dropout = self.form.dropout if c.dropout is None else c.dropout
        self.dropout = nn.Dropout(dropout)
        self.input_norm = InputProjection(c.video_width, None, is_normalised=c.normalise_inputs)
        self.word_embed = nn.Embedding(c.vocabulary_size, c.word_width)
        directions = {"blstm": 2, "lstm": 1, "dense": 0}[c.encoder]
        if c.variant == "public":
            self.video_convs: FrameConvolutions | None = FrameConvolutions(
                c.video_width, 4 * c.hidden, has_norm=self.form.has_video_norm
            )
        else:
            self.video_convs = None
        if directions:
            make = partial(nn.LSTM, batch_first=True, bidirectional=directions == 2)
            self.text_rnn: nn.LSTM | None = make(c.word_width, c.hidden)
            self.video_rnn = make(c.video_width, c.hidden) if c.variant == "thesis" else None
        else:
            self.text_rnn = self.video_rnn = None
        states = directions * c.hidden
        joins_video, joins_words = self.form.joins
        if c.decoder != "last_states":
            self.d1v = Dense(states + c.video_width * joins_video, d1)
        if c.decoder != "last_states" or self.task == BLANK:
            self.d1w = Dense(states + c.word_width * joins_words, d1)
        fused = states
        if c.decoder != "last_states":
            self.fusion = self._fusion(d1, joint, conv, dropout)
            fused = self.fusion.stage3.num_out
        score_activation = self.form.score_activation
        self.d5 = Dense(fused, d5, score_activation)
        self.d6 = Dense(d5, d6, score_activation)
        self.d7 = Dense(d6, d7, score_activation)
        num_out = c.num_answers if self.task == BLANK else 1
        self.d8 = Dense(d7, num_out, None, has_norm=self.form.has_score_norm)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.momentum = c.norm_momentum

    def _fusion(self, width: int, joint: int, conv: int, dropout: float) -> JointFusion:
        c, form = self.config, self.form
        tensor = JointTensor(
            width, joint, dropout, attention=c.attention, attention_norm=form.has_attention_norm
        )
        stages: list[GatedStage] = []
        for stride in STRIDES:
            stages.append(
                GatedStage(
                    stages[-1].num_out if stages else joint,
                    conv,
                    stride,
                    kind=cast(Literal["conv", "max", "mean"], c.decoder),
                    has_gate=c.gates,
                    activation=form.conv_activation,
                    gate_activation=form.gate_activation,
                    axes=1 if form.is_of_frames else 2,
                )
            )
        return JointFusion(tensor, stages, "sum" if form.is_of_frames else "mean")

    @property
    def word_embedding(self) -> nn.Embedding:
        return self.word_embed

    @classmethod
    def settings_for(
        cls, config: ModelConfig, row_shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {"audio": "sound" in row_shapes}
        for slot, setting in (("frames", "frame_width"), ("sound", "sound_width")):
            if slot not in row_shapes:
                continue
            found[setting] = int(torch.Size(row_shapes[slot]).numel())
        return found

    @classmethod
    def prepare(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> dict[str, Tensor]:
        """video: float32 (max_frames, C), at most max_frames rows at equal distances, at the end,
        zeros before them; video_len: int64 (), how many. Beside each frame stands the sound whose
        row is nearest in time; without sound there are zeros."""
        c = cast(JsFusionConfig, config)
        wanted = features if c.audio else {"frames": features["frames"]}
        video, num_frames = frames_with_sound(
            wanted,
            max_frames=c.max_frames,
            sound_width=c.sound_width if c.audio else 0,
            changes=c.changes,
            window_s=window_s,
        )
        return {"video": video, "video_len": torch.tensor(num_frames)}

    @classmethod
    def row_spans(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Of the max_frames rows of `video` and of `alpha`; (0, 0) for padded ones."""
        c = cast(JsFusionConfig, config)
        return spans_at_the_end(features["frames"].spans, c.max_frames, window_s)

    def forward(
        self,
        *,
        video: Tensor,
        words: Tensor | None = None,
        video_len: Tensor | None = None,
        word_len: Tensor | None = None,
        question: Tensor | None = None,
        question_length: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Scores of pairs, or of words for a blank.

        video: float (V, T, C), T <= max_frames; video_len: int (V,), valid rows, at the END.
        words: int (S, M) ids, M <= max_words; word_len: int (S,), valid ones, at the START.
        Without their lengths all are valid.
        Every video is paired with every sentence; words (V, K, M) with word_len (V, K) pair each
        video with its own K sentences. For a blank video i and sentence i belong together, and
        question, question_length are other names of words, word_len.

        Returns, for X = (V, S) or (V, K) pairs, or (V,) for a blank: `score` float32 X; for `mc`
        also `logits`, the same, and `predictions` int64 (V,); for a blank `logits` (V, answers)
        and `predictions` in place of `score`. `d1v` (V, F, D), `d1w` (S, M, D) or (V, K, M, D).
        In evaluation also `pooled` (*X, C), `alpha` (*X, F, M) and `gate1` ... `gate3` of the
        convolutions, 0 where padded; without an axis of words in the public form for a blank.
        """
        words = question if words is None else words
        word_len = question_length if word_len is None else word_len
        if words is None:
            raise TypeError("give words, or question for a blank")
        videos = self.encode_video(video, video_len)
        flat_len = None if word_len is None else word_len.flatten()
        sentences = self.encode_words(words.flatten(0, -2), flat_len)
        device = videos.rows.device
        num_videos = len(videos.length)
        if self.task == BLANK:
            shape: tuple[int, ...] = (num_videos,)
            first = second = torch.arange(num_videos, device=device)
        elif words.ndim == 3:
            shape = (num_videos, words.shape[1])
            second = torch.arange(len(sentences.length), device=device)
            first = second // words.shape[1]
        else:
            shape = (num_videos, len(words))
            both = torch.arange(num_videos * len(words), device=device)
            first, second = both // len(words), both % len(words)
        outputs = self._of_pairs(videos, sentences, first, second, words.flatten(0, -2))
        outputs = {k: value.view(*shape, *value.shape[1:]) for k, value in outputs.items()}
        if self.task == CHOICE:
            outputs["logits"] = outputs["score"]
        if "logits" in outputs:
            outputs["predictions"] = outputs["logits"].argmax(dim=1)
        if self.config.decoder != "last_states":
            outputs["d1v"] = videos.rows
            outputs["d1w"] = sentences.rows.view(*words.shape[:-1], *sentences.rows.shape[1:])
        return outputs

    def _of_pairs(
        self, videos: Encoded, sentences: Encoded, first: Tensor, second: Tensor, ids: Tensor
    ) -> dict[str, Tensor]:
        """Outputs of the pairs (first[i], second[i]), all at once in training, where the norms
        take their statistics over all of them."""
        step = len(first) if self.training else self.config.pairs_at_once
        parts: list[dict[str, Tensor]] = []
        for start in range(0, len(first), step):
            left = videos.at(first[start : start + step])
            right = sentences.at(second[start : start + step])
            blank = self._blank_words(right, ids[second[start : start + step]])
            fused, found = self._fused(left, right, blank, crop=self.training)
            output = self._output(fused, blank)
            part = {"logits" if self.task == BLANK else "score": output}
            parts.append(part if self.training else part | found)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _blank_words(self, sentences: Encoded, ids: Tensor) -> Tensor | None:
        """(P, D) D1 at the first blank of each sentence, 0 where there is none."""
        if self.task != BLANK:
            return None
        width = sentences.rows.shape[1]
        is_blank = F.pad(ids == self.config.blank_id, (0, width - ids.shape[1]))
        is_blank &= standing_positions(sentences.length, width, "start")
        is_first = is_blank & (is_blank.cumsum(dim=1) == 1)
        return (sentences.rows * is_first[..., None]).sum(dim=1)

    def _fused(
        self, videos: Encoded, sentences: Encoded, blank: Tensor | None, *, crop: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(P, C) vectors of P pairs, and what to look at."""
        if self.config.decoder == "last_states":
            pooled = videos.state * sentences.state
            return pooled, {"pooled": pooled}
        if self.form.is_of_frames:
            assert blank is not None
            fused: Fused = self.fusion(videos.rows, videos.length, blank, None)
        else:
            frames, words = videos.rows, sentences.rows
            if crop:
                frames, words = cropped(frames, videos.length, words, sentences.length)
            fused = self.fusion(frames, videos.length, words, sentences.length)
        maps = {f"gate{n}": gate for n, gate in enumerate(fused.gates, start=1)}
        return fused.pooled, {"pooled": fused.pooled, "alpha": fused.alpha} | maps

    def _output(self, pooled: Tensor, blank: Tensor | None) -> Tensor:
        """(P, C) -> (P,) scores, or (P, answers)."""
        x = self.d7(self.d6(self.d5(pooled)))
        if blank is None:
            return self.form.sign * cast(Tensor, self.d8(x)).squeeze(-1).float()
        x = (x + blank) / 2 if self.config.variant == "public" else x + blank
        return cast(Tensor, self.d8(x)).float()

    def encode_video(self, video: Tensor, video_len: Tensor | None = None) -> Encoded:
        """Videos (V, T, C), video_len (V,), as in `forward` -> rows (V, max_frames, D)."""
        c, width = self.config, self.config.max_frames
        length = _length(video, video_len, width, what="frames")
        x = F.pad(video.float(), (0, 0, width - video.shape[1], 0))  # stores hold float16
        mask = standing_positions(length, width, "end")
        x = self.input_norm(x, mask)
        if self.form.has_signal:
            x = x + halved_sinusoids(width, x.shape[-1]).to(x)
        x = x * mask[..., None]
        state = x.new_zeros(len(x), 0)
        if self.video_convs is not None:
            if self.form.has_signal:  # the two public networks with a signal drop inputs
                x = self.dropout(x)
            read = self.video_convs(x)
        elif self.video_rnn is not None:
            read, state = run_over_sequences(self.video_rnn, x, length, "end")
        else:
            read = x[..., :0]
        if c.decoder == "last_states":
            return Encoded(x[..., :0], length, state)
        x = torch.cat([read, x], dim=-1) if self.form.joins[0] else read
        return Encoded(self.dropout(valid_dense(self.d1v, x, mask)), length, state)

    def encode_words(self, words: Tensor, word_len: Tensor | None = None) -> Encoded:
        """Sentences (S, M), word_len (S,), as in `forward` -> rows (S, max_words, D)."""
        c, width = self.config, self.config.max_words
        length = _length(words, word_len, width, what="words")
        words = F.pad(words, (0, width - words.shape[1]))
        mask = standing_positions(length, width, "start")
        x = self.word_embed(words) * mask[..., None]
        state = x.new_zeros(len(x), 0)
        if c.variant == "public":
            if self.task == BLANK:
                x = x * (words != c.blank_id)[..., None]
            # The public code's backward direction starts behind the padding.
            length_read = torch.full_like(length, width)
            x = self.dropout(x)
        else:
            length_read = length
        if self.text_rnn is not None:
            read, state = run_over_sequences(self.text_rnn, x, length_read, "start")
        else:
            read = x[..., :0]
        if c.decoder == "last_states" and self.task != BLANK:
            return Encoded(x[..., :0], length, state)
        x = torch.cat([read, x], dim=-1) if self.form.joins[1] else read
        return Encoded(self.dropout(valid_dense(self.d1w, x, mask)), length, state)

    def score_pairs(self, videos: Encoded, sentences: Encoded) -> Tensor:
        """(P,) scores of the pairs (videos[i], sentences[i]); what none of them has is not read.

        For retrieval and multiple choice. `pair_scores.score_all_pairs` calls it in blocks.
        """
        if self.task == BLANK:
            raise TypeError("a blank has answers, no scores of pairs")
        pooled, _ = self._fused(videos, sentences, None, crop=True)
        return self._output(pooled, None)

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Reads flat names, and the public code's TensorFlow variables; see `published_layouts`.
        What is not in them is 1 for scales of norms and 0 for biases. The numbers of words and of
        answers follow the checkpoint."""
        found = from_tensorflow(without_parallel_prefix(state))
        words = found.get("word_embed.weight")
        if words is not None and words.ndim == 2 and len(words) != self.word_embed.num_embeddings:
            self.word_embed = nn.Embedding(len(words), self.config.word_width)
        answers = found.get("d8.weight")
        if self.task == BLANK and answers is not None and answers.ndim == 2:
            self.d8.linear = nn.Linear(self.d8.linear.in_features, len(answers))
        own = self.state_dict()
        flat = {flat_key(key): key for key in own}
        completed = with_defaults(found, {name: own[key] for name, key in flat.items()})
        fill(
            self,
            {flat.get(name, name): value for name, value in completed.items()},
            what=f"JSFusion ({self.config.variant}) for the task {self.task!r}",
        )

    def published_state(self) -> dict[str, Tensor]:
        """The weights by flat names."""
        return {flat_key(key): value.detach().cpu() for key, value in self.state_dict().items()}


def _length(rows: Tensor, length: Tensor | None, most: int, *, what: str) -> Tensor:
    """int64 (N,), at least 1, of (N, T, ...); ValueError if T is more than the network takes."""
    if rows.shape[1] > most:
        raise ValueError(f"{rows.shape[1]} {what} in a row, the network takes at most {most}")
    if length is None:
        return torch.full((len(rows),), rows.shape[1], device=rows.device)
    return length.to(rows.device).clamp(1, rows.shape[1])
