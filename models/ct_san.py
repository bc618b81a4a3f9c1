"""CT-SAN: words that a detector finds in a video, attended to by every word of a sentence.

Paper: End-to-end Concept Word Detection for Video Captioning, Retrieval, and Question Answering
(Yu, Ko, Choi and Kim, CVPR 2017, arXiv 1610.02947). Code of two of the four tasks (description
and blanks): gitlab.com/fodrh1201/CT-SAN (TensorFlow 1, no licence file).
Checkpoint layouts: state dicts by the names here, and the public TensorFlow variables by their own,
as arrays (`published_layouts/ct_san.py`).
41,765,002 parameters for choices and 65,515,502 for retrieval, with 12,489 words and 2,000 that
can be found.

Data flow (V videos, T = 40 frames, D = 500, K = 10 of N = 2,000 words, d = 300):
maps (V, T, 7, 7, 2048) -> pooled and convolved (V, T, D, 4, 4) -> 16 traces of one LSTM -> which
words the video shows (V, N) -> the K likeliest, as word vectors (V, K, d). Beside it an LSTM over
the frames -> s_N. Each word of a sentence attends to the K vectors, and what it becomes goes into
an LSTM that begins at s_N; what comes out of that attends to them once more.

Frames stand at the end of their rows and words at the start; what is padded has no influence but
that of `detector="public"`, which reads the padding in front.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.models.caption_vocabulary import PADDING
from vlpipe.models.concept_words import concept_words
from vlpipe.models.ct_san_settings import CtSanConfig
from vlpipe.models.decoding import beam_captions, greedy_captions
from vlpipe.models.feature_slot import FeatureSlot
from vlpipe.models.frame_rows import equidistant_rows, spans_at_the_end
from vlpipe.models.layers.bilinear_pooling import CompactBilinearPooling
from vlpipe.models.layers.concept_detector import (
    ConceptDetector,
    concept_targets,
    pooled_cells,
)
from vlpipe.models.layers.input_projection import InputProjection
from vlpipe.models.layers.normed_lstm import Lstm, LstmState
from vlpipe.models.layers.padded_rnn import rolled, standing_positions
from vlpipe.models.layers.semantic_attention import (
    InputAttention,
    OutputAttention,
    attention_penalty,
)
from vlpipe.models.model import Model, ModelConfig, PublishedResult
from vlpipe.models.pair_scores import Encoded
from vlpipe.models.published_files import fill, without_parallel_prefix
from vlpipe.models.published_layouts.ct_san import from_tensorflow
from vlpipe.models.registry import register
from vlpipe.stores import Features

DESCRIPTION, BLANK, CHOICE, RETRIEVAL = "description", "fib", "mc", "retrieval"
_NORM_EPS = 1e-3  # public code


class _Read(NamedTuple):
    """What a video says to sentences: the vectors of its K words (V, K, d), and s_N."""

    concepts: Tensor
    state: LstmState


class Telling:
    """What the network knows of N sentences that it writes; see `decoding.Memory`."""

    def __init__(self, concepts: Tensor, state: LstmState) -> None:
        self.concepts = concepts  # (N, K, d)
        self.state = state

    def select(self, rows: Tensor) -> "Telling":
        hidden, cell = (part[:, rows] for part in self.state)
        return Telling(self.concepts[rows], LstmState(hidden, cell))


@register("ct-san")
class CtSan(Model):
    """CT-SAN for one task; see the top of the file."""

    description: ClassVar[str] = "CT-SAN (CVPR 2017): sentences by words that a video shows"
    code: ClassVar[str] = "https://gitlab.com/fodrh1201/CT-SAN"
    tasks: ClassVar[tuple[str, ...]] = (DESCRIPTION, BLANK, CHOICE, RETRIEVAL)
    Config: ClassVar[type[ModelConfig]] = CtSanConfig
    slots: ClassVar[Mapping[str, FeatureSlot]] = MappingProxyType(
        {
            "frames": FeatureSlot(
                "resnet152_res5c",
                "the last map of each frame, one frame in ten",
                row_shapes=("C h w", "C"),
            )
        }
    )
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 1e-4, "batch_size": 32, "epochs": 20}
    )
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
        {CHOICE: {"margin": 1.0, "num_random": 0}, RETRIEVAL: {"margin": 3.0}}
    )
    published_results: ClassVar[tuple[PublishedResult, ...]] = (
        *(
            PublishedResult(DESCRIPTION, "lsmdc", metric, value, source)
            for source, values in (
                ("CT-SAN", (13.5, 4.4, 1.7, 15.9, 10.0)),
                ("Base-SAN", (12.3, 3.8, 1.3, 15.0, 9.0)),
            )
            for metric, value in zip(
                ("bleu_1", "bleu_2", "bleu_3", "rouge_l", "cider"), values, strict=True
            )
        ),
        PublishedResult(BLANK, "lsmdc", "accuracy", 41.9, "CT-SAN"),
        PublishedResult(BLANK, "lsmdc", "accuracy", 34.5, "Base-SAN"),
        PublishedResult(CHOICE, "lsmdc", "accuracy", 63.8, "CT-SAN"),
        PublishedResult(CHOICE, "lsmdc", "accuracy", 60.1, "Base-SAN"),
        *(
            PublishedResult(RETRIEVAL, "lsmdc", metric, value, source)
            for source, values in (
                ("CT-SAN", (4.5, 14.1, 20.9, 67.0)),
                ("Base-SAN", (4.3, 13.0, 18.2, 83.0)),
            )
            for metric, value in zip(("R@1", "R@5", "R@10", "MedR"), values, strict=True)
        ),
    )

    concept_ids: Tensor

    def __init__(self, config: ModelConfig, task: str) -> None:
        super().__init__(config, task)
        c = cast(CtSanConfig, config)
        self.config = c
        is_public = c.variant == "public"
        known = c.known_concepts
        self.register_buffer("concept_ids", torch.tensor(known, dtype=torch.int64), False)
        self.word_embed = nn.Embedding(c.vocabulary_size, c.word_width)
        self.word_embed.weight.requires_grad_(c.train_words)
        self.input_norm = InputProjection(c.channels, None, is_normalised=c.normalise_inputs)
        num_cells = pooled_cells(c.grid[0]) * pooled_cells(c.grid[1])
        self.concept = ConceptDetector(c.channels, c.hidden, len(known), num_cells, c.detector)
        self.video_rnn = self._lstm(c.channels if is_public else c.hidden)
        self.att_in = InputAttention(
            c.word_width,
            c.hidden,
            is_attentive=bool(known) and c.input_attention,
            has_projection=not is_public,
        )
        self.dropout = nn.Dropout(c.dropout)
        if task in (DESCRIPTION, BLANK):
            has_attention = bool(known) and c.output_attention
            self.att_out = OutputAttention(c.word_width, c.hidden) if has_attention else None
            num_words = c.num_answers if task == BLANK else c.vocabulary_size
            self.word_out = nn.Linear(c.hidden, num_words)
        if task == BLANK:
            self.text_rnn = self._lstm(c.hidden, is_bidirectional=True)
            self.affine = nn.Linear(2 * c.hidden, c.hidden)
            self.out_bn = nn.BatchNorm1d(c.hidden, eps=_NORM_EPS) if is_public else None
            return
        self.caption_rnn = self._lstm(c.hidden)
        if task == DESCRIPTION:
            return
        if task == CHOICE:
            fc, width = nn.Linear(c.hidden, c.hidden), c.hidden
            self.score = nn.ModuleDict({"fc": fc})
        else:
            width = c.maxout_width
            self.cbp = CompactBilinearPooling(
                c.hidden, c.pooled_width, is_normalised=c.normalise_pooled
            )
            pieces = nn.Linear(c.pooled_width, 2 * width, bias=False)
            self.score = nn.ModuleDict({"pieces": pieces})
        self.score["out"] = nn.Linear(width, 1, bias=False)

    @property
    def num_layers(self) -> int:
        return self.config.layers or (1 if self.config.variant == "public" else 2)

    def _lstm(self, num_in: int, *, is_bidirectional: bool = False) -> Lstm:
        c = self.config
        has_norms = c.variant == "thesis" if c.layer_norm is None else c.layer_norm
        return Lstm(
            num_in,
            c.hidden,
            num_layers=self.num_layers,
            is_bidirectional=is_bidirectional,
            has_norms=has_norms,
            dropout=c.dropout,
        )

    @property
    def word_embedding(self) -> nn.Embedding:
        return self.word_embed

    @classmethod
    def settings_for(
        cls, config: ModelConfig, row_shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        channels, *cells = row_shapes["frames"]
        return {"channels": channels, "grid": tuple(cells) or (1, 1)}

    @classmethod
    def settings_from_sentences(
        cls, config: ModelConfig, words: Sequence[str], sentences: Iterable[Sequence[str]]
    ) -> dict[str, Any]:
        c = cast(CtSanConfig, config)
        if not c.concepts or c.concept_ids:
            return {}
        return {"concept_ids": concept_words(sentences, words, c.num_concept_words, c.concept_list)}

    @classmethod
    def prepare(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> dict[str, Tensor]:
        """video: (max_frames, H, W, C) of the stored dtype, at most max_frames rows at equal
        distances, at the end, zeros before them; video_len: int64 (), how many."""
        c = cast(CtSanConfig, config)
        rows = features["frames"].rows
        rows = rows[equidistant_rows(features["frames"].spans, c.max_frames, window_s)]
        maps = torch.from_numpy(rows.reshape(len(rows), c.channels, *c.grid))
        video = maps.new_zeros(c.max_frames, *c.grid, c.channels)
        video[c.max_frames - len(maps) :] = maps.permute(0, 2, 3, 1)
        return {"video": video, "video_len": torch.tensor(len(maps))}

    @classmethod
    def row_spans(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Of the max_frames rows of `video`; (0, 0) for padded ones."""
        c = cast(CtSanConfig, config)
        return spans_at_the_end(features["frames"].spans, c.max_frames, window_s)

    def forward(
        self,
        *,
        video: Tensor | None = None,
        words: Tensor | None = None,
        video_len: Tensor | None = None,
        word_len: Tensor | None = None,
        question: Tensor | None = None,
        question_length: Tensor | None = None,
        caption: Tensor | None = None,
        res5c: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Scores of pairs, or of words: for a blank, or for each next place of a caption.

        video: float (V, T, H, W, C); video_len: int (V,), valid frames, at the END. res5c is
        another name of it. words: int (S, M) ids; word_len: int (S,), valid ones, at the START.
        Without their lengths all are valid. Every video is paired with every sentence; words
        (V, K, M) with word_len (V, K) pair each video with its own K. For a blank video i and
        sentence i belong together, and question, question_length are other names of words,
        word_len.

        Returns `score` float32 (V, S), or (V, K); for `mc` also `logits`, the same, and
        `predictions` int64 (V,); for a blank `logits` (V, answers) and `predictions` in place of
        `score`. For `description` caption is int (V, L), from its start to its end, with the
        padding of `CaptionVocabulary`, and `logits` (V, L - 1, vocabulary) are of the words behind
        each place. With a detector `concept_logits` (V, N), `p`, their sigmoid, `concepts` int64
        (V, K), places of the likeliest among `concept_ids`, and `maps` (V, T, L, h, w), where the
        traces look; in training `penalty` (), the mean of (4.15) over sentences.
        """
        video = res5c if video is None else video
        words = question if words is None else words
        word_len = question_length if word_len is None else word_len
        told = caption if self.task == DESCRIPTION else words
        if video is None or told is None:
            raise TypeError("give video and words; question for a blank, caption for a description")
        read, outputs = self._read_video(video, video_len)
        if self.task == DESCRIPTION:
            return outputs | self._tell(read, told)
        assert words is not None
        sentences = self.encode_words(
            words.flatten(0, -2), None if word_len is None else word_len.flatten()
        )
        num_videos = len(video)
        if self.task == BLANK:
            outputs |= self._fill_blank(read, sentences, words == self.config.blank_id)
            outputs["predictions"] = outputs["logits"].argmax(dim=1)
            return outputs
        every = torch.arange(num_videos * len(sentences.length), device=video.device)
        if words.ndim == 3:
            second = torch.arange(len(sentences.length), device=video.device)
            first, shape = second // words.shape[1], (num_videos, words.shape[1])
        else:
            first, second = every // len(words), every % len(words)
            shape = (num_videos, len(words))
        scores, shares = self._score(self._encoded(read).at(first), sentences.at(second))
        outputs["score"] = scores.view(shape)
        outputs |= self._penalty((shares, sentences.length[second]))
        if self.task == CHOICE:
            outputs["logits"] = outputs["score"]
            outputs["predictions"] = outputs["logits"].argmax(dim=1)
        return outputs

    def encode_video(self, video: Tensor, video_len: Tensor | None = None) -> Encoded:
        """Videos as in `forward` -> rows (V, K, d), vectors of words; state (V, .), of the LSTM."""
        return self._encoded(self._read_video(video, video_len)[0])

    def encode_words(self, words: Tensor, word_len: Tensor | None = None) -> Encoded:
        """Sentences (S, M), word_len (S,), as in `forward` -> rows (S, M, d)."""
        if word_len is None:
            word_len = torch.full((len(words),), words.shape[1], device=words.device)
        length = word_len.to(words.device).clamp(1, words.shape[1])
        rows = self.word_embed(words)
        return Encoded(rows, length, rows.new_zeros(len(rows), 0))

    def score_pairs(self, videos: Encoded, sentences: Encoded) -> Tensor:
        """(P,) scores of the pairs (videos[i], sentences[i]), for retrieval and multiple choice."""
        if self.task in (DESCRIPTION, BLANK):
            raise TypeError(f"the task {self.task!r} has words, no scores of pairs")
        most = int(sentences.length.max())
        cut = Encoded(sentences.rows[:, :most], sentences.length, sentences.state)
        return self._score(videos, cut)[0]

    @torch.no_grad()
    def write_captions(
        self, *, video: Tensor, video_len: Tensor | None = None, max_words: int, beams: int = 1
    ) -> Tensor:
        """int64 (V, L) ids of sentences about videos as in `forward`, L <= max_words + 1."""
        memory = Telling(*self._read_video(video, video_len)[0])
        if beams == 1:
            return greedy_captions(
                self, memory, len(video), max_words=max_words, device=video.device
            )
        ids, _ = beam_captions(
            self, memory, len(video), beams=beams, max_words=max_words, device=video.device,
            length_power=0.0,
        )  # fmt: skip
        return ids

    def next_words(self, words: Tensor, memory: "Telling") -> Tensor:
        """See `decoding.WordByWord`."""
        x, _ = self.att_in(self.word_embed(words)[:, None], memory.concepts)
        seen, memory.state = self.caption_rnn.run(x, torch.ones_like(words), memory.state)
        logits, _ = self._words_at(seen, memory.concepts)
        return logits[:, 0].log_softmax(dim=-1)

    def auxiliary_loss(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> Tensor | None:
        """(4.6), the detector's, against the words of the right sentence, and (4.15)."""
        if "concept_logits" not in outputs:
            return None
        c, logits = self.config, outputs["concept_logits"].float()
        wanted = concept_targets(targets["sentence"], self.concept_ids)
        loss = c.concept_weight * F.binary_cross_entropy_with_logits(logits, wanted)
        if "penalty" in outputs:
            loss = loss + c.penalty * outputs["penalty"]
        return loss

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Reads the names here, and the public code's TensorFlow variables; see
        `published_layouts/ct_san.py`. A state without `att_in.proj` leaves words as they are.
        The numbers of words, of concepts and of answers follow the checkpoint."""
        found = from_tensorflow(without_parallel_prefix(state))
        c = self.config
        words, concepts = found.get("word_embed.weight"), found.get("concept.out.weight")
        if words is not None and words.ndim == 2 and len(words) != self.word_embed.num_embeddings:
            self.word_embed = nn.Embedding(len(words), c.word_width)
            self.word_embed.weight.requires_grad_(c.train_words)
        if self.concept_ids.numel() and concepts is not None and concepts.ndim == 2:
            self._follow_concepts(len(concepts))
        answers = found.get("word_out.weight")
        has_words = self.task in (DESCRIPTION, BLANK)
        if has_words and answers is not None and answers.ndim == 2:
            self.word_out = nn.Linear(c.hidden, len(answers))
        if "att_in.proj.weight" not in found and c.word_width == c.hidden:
            self.att_in.proj = None
        own = self.state_dict()
        counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
        fill(
            self,
            counters | found,
            what=f"CT-SAN ({c.variant}, detector {c.detector}) for the task {self.task!r}",
        )

    def published_state(self) -> dict[str, Tensor]:
        """The weights by the names here."""
        return {key: value.detach().cpu() for key, value in self.state_dict().items()}

    # below

    def _follow_concepts(self, count: int) -> None:
        out = self.concept.out
        if count == out.out_features:
            return
        self.concept.out = nn.Linear(out.in_features, count, bias=out.bias is not None)
        last = min(2 + count, self.word_embed.num_embeddings)
        self.concept_ids = torch.arange(last - count, last, device=self.concept_ids.device)

    def _read_video(
        self, video: Tensor, video_len: Tensor | None
    ) -> tuple[_Read, dict[str, Tensor]]:
        c = self.config
        num_videos, width = video.shape[:2]
        if video_len is None:
            video_len = torch.full((num_videos,), width, device=video.device)
        length = video_len.to(video.device).clamp(1, width)
        is_real = standing_positions(length, width, "end")  # (V, T)
        video = video.float()  # stores hold float16
        cells_of = video.flatten(1, 3)  # (V, T H W, C)
        num_cells = video.shape[2] * video.shape[3]
        video = self.input_norm(cells_of, is_real.repeat_interleave(num_cells, dim=1)).view(
            video.shape
        )
        video = video * is_real[..., None, None, None]
        cells = None
        if c.variant == "thesis" or self.concept_ids.numel():
            cells = self.concept.reduced(video)  # (V, T, D, h, w)
        if c.variant == "public":
            frames = video.mean(dim=(2, 3))
        else:
            assert cells is not None
            frames = cells.mean(dim=(-2, -1))
        frames = rolled(frames, length - width)  # from the end to the start, where it is run
        _, state = self.video_rnn.run(self.dropout(frames), length)
        if not self.concept_ids.numel():
            return _Read(frames.new_zeros(num_videos, 0, c.word_width), state), {}
        assert cells is not None
        found = self.concept(cells, is_real)
        most = min(c.concepts, found.logits.shape[1])
        best = found.logits.topk(most, dim=1).indices  # (V, K); no gradient passes the choice
        vectors = self.word_embed(self.concept_ids[best])
        outputs = {
            "concept_logits": found.logits.float(),
            "p": found.logits.float().sigmoid(),
            "concepts": best,
            "maps": found.maps,
        }
        return _Read(vectors, state), outputs

    def _encoded(self, read: _Read) -> Encoded:
        count = max(read.concepts.shape[1], 1)
        length = torch.full((len(read.concepts),), count, device=read.concepts.device)
        return Encoded(read.concepts, length, read.state.flat())

    def _score(self, videos: Encoded, sentences: Encoded) -> tuple[Tensor, Tensor]:
        """(P,) scores of P pairs, and gamma (P, M, K)."""
        start = LstmState.of_flat(videos.state, self.num_layers)
        x, shares = self.att_in(sentences.rows, videos.rows)
        begin = start if self.task == CHOICE else None
        _, end = self.caption_rnn.run(self.dropout(x), sentences.length, begin)
        told = self.dropout(end.last)
        if self.task == CHOICE:
            hidden = F.relu(self.score["fc"](told))
        else:
            pieces = self.score["pieces"](self.cbp(start.last, told)).unflatten(1, (2, -1))
            hidden = pieces.amax(dim=1)  # (P, maxout_width)
        return cast(Tensor, self.score["out"](hidden)).squeeze(1).float(), shares

    def _fill_blank(self, read: _Read, sentences: Encoded, is_blank: Tensor) -> dict[str, Tensor]:
        x, shares = self.att_in(sentences.rows, read.concepts)
        seen, _ = self.text_rnn.run(self.dropout(x), sentences.length, read.state)
        is_blank = is_blank & standing_positions(sentences.length, is_blank.shape[1], "start")
        is_first = is_blank & (is_blank.cumsum(dim=1) == 1)
        at_blank = (seen * is_first[..., None]).sum(dim=1)  # (V, 2 D)
        told = torch.tanh(self.affine(at_blank))[:, None]  # (V, 1, D)
        logits, chosen = self._words_at(told, read.concepts)
        once = torch.ones_like(sentences.length)
        return self._penalty((shares, sentences.length), (chosen, once)) | {"logits": logits[:, 0]}

    def _tell(self, read: _Read, caption: Tensor) -> dict[str, Tensor]:
        words = caption[:, :-1]
        length = (words != PADDING).sum(dim=1)
        x, shares = self.att_in(self.word_embed(words), read.concepts)
        seen, _ = self.caption_rnn.run(self.dropout(x), length, read.state)
        logits, chosen = self._words_at(seen, read.concepts)
        return self._penalty((shares, length), (chosen, length)) | {"logits": logits}

    def _words_at(self, state: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """(V, M, words) logits of what states (V, M, D) say, and beta (V, M, K or 0)."""
        shares = state.new_zeros(*state.shape[:2], 0)
        if self.att_out is not None:
            state, shares = self.att_out(state, concepts)
        if self.task == BLANK and self.out_bn is not None:
            state = cast(Tensor, self.out_bn(state.flatten(0, 1))).view(state.shape)
        return cast(Tensor, self.word_out(self.dropout(state))).float(), shares

    def _penalty(self, *attended: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The sum of the penalties of (V, M, K) shares of sentences (V,) long."""
        if not self.training or not self.config.penalty:
            return {}
        found = [
            attention_penalty(shares, standing_positions(length, shares.shape[1], "start")).mean()
            for shares, length in attended
            if shares.shape[-1]
        ]
        return {"penalty": torch.stack(found).sum()} if found else {}
