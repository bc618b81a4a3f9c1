"""BMT: dense video captioning by a bi-modal transformer.

Paper: A Better Use of Audio-Visual Cues: Dense Video Captioning with Bi-modal Transformer (Iashin
and Rahtu, BMVC 2020, arXiv 2005.08271). Code: v-iashin/BMT (MIT).
Checkpoint layouts: `model_state_dict` of its captioner (187 entries, prefix `module.`; 53,546,452
parameters) and of its proposal generator (224 entries; 248,150,432). Neither holds the words: see
`caption_vocabulary.py`.

Data flow (B videos of Sv rows of picture and Sa of sound, N events, L words):
rgb + flow (B, Sv, 1024) and audio (B, Sa, 128), positions added -> bi-modal encoder, same shapes
  captions   of an event's rows -> decoder over its words (N, L, 300) -> `logp` (N, L, words)
  proposals  of all rows, padded to 300 and 800 -> ten convolutional heads a stream -> `predictions`
             (B, 20 heads' rows x anchors, 3): centre and length in seconds, confidence

Tasks: `captioning` is the first stage of the published training, `proposals` the second, which
starts from the first (`--set init_from=RUN --set model.train_captioner=false`).
`dense_captioning` holds both parts on one encoder; trained at once, or, with
`model.train_captioner=false`, its heads alone.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from vlpipe.models.caption_vocabulary import PADDING
from vlpipe.models.decoding import beam_captions, greedy_captions
from vlpipe.models.feature_slot import FeatureSlot
from vlpipe.models.layers.bimodal_transformer import (
    BiModalDecoder,
    BiModalEncoder,
    DecoderMemory,
    Widths,
)
from vlpipe.models.layers.caption_loss import smoothed_caption_loss
from vlpipe.models.layers.event_anchors import anchors_of
from vlpipe.models.layers.event_detection import EventDetector, EventTargets
from vlpipe.models.layers.input_projection import InputProjection
from vlpipe.models.layers.multihead_attention import positions
from vlpipe.models.layers.streams import (
    Streams,
    padded,
    real_rows,
    row_stride_s,
    rows_of_events,
    rows_or_zero,
    stream_widths,
    windows_of,
)
from vlpipe.models.model import Model, ModelConfig, PublishedResult
from vlpipe.models.published_files import fill, without_parallel_prefix
from vlpipe.models.published_layouts.bmt import published_key
from vlpipe.models.published_layouts.bmt_anchors import AUDIO_ANCHORS_S, VIDEO_ANCHORS_S
from vlpipe.models.registry import register
from vlpipe.stores import Features

_MOST_OF_WINDOW = 1000  # predictions of a part of a long video that are kept
CAPTIONING, PROPOSALS, DENSE_CAPTIONING = "captioning", "proposals", "dense_captioning"


class BmtConfig(ModelConfig):
    """Sizes as published.

    vocabulary_size, event_lengths_s: given by the task. audio_width, video_width: given by the
        features.
    project_audio, project_video: width that a linear map gives the rows first; None: as they are.
    normalise_inputs: rows are centred and scaled by the statistics of the training rows, as
        untrained extractors need it (published: False).
    train_words: the word vectors learn (published: GloVe 840B, frozen).
    smoothing: share of the loss that other words than the right one have.
    head_width: channels of a head's two hidden layers. audio_kernels, video_kernels: rows that
        each head's convolution sees, odd.
    audio_rows, video_rows: what the heads see is padded to so many rows.
    audio_stride_s, video_stride_s: seconds from row to row, where the features do not say so.
    event_weight, other_weight: of the cross entropies of cells with and without an event.
    audio_anchors_s, video_anchors_s: lengths that proposals start from; as many are taken from
        event_lengths_s, those of the training events, where that is given.
    train_captioner: False freezes everything but the heads, whose loss is then the loss.
    """

    vocabulary_size: PositiveInt = 10_172
    audio_width: PositiveInt = 128
    video_width: PositiveInt = 1024
    project_audio: PositiveInt | None = None
    project_video: PositiveInt | None = None
    normalise_inputs: bool = False
    word_width: PositiveInt = 300
    inner: PositiveInt = 1024
    heads: PositiveInt = 4
    layers: PositiveInt = 2
    dropout: float = Field(default=0.1, ge=0, lt=1)
    train_words: bool = False
    smoothing: float = Field(default=0.7, ge=0, lt=1)
    head_width: PositiveInt = 512
    audio_kernels: tuple[PositiveInt, ...] = (5, 13, 23, 35, 51, 69, 91, 121, 161, 211)
    video_kernels: tuple[PositiveInt, ...] = (1, 5, 9, 13, 19, 25, 35, 45, 61, 79)
    audio_anchors_s: tuple[PositiveFloat, ...] = AUDIO_ANCHORS_S
    video_anchors_s: tuple[PositiveFloat, ...] = VIDEO_ANCHORS_S
    event_lengths_s: tuple[PositiveFloat, ...] = ()
    audio_rows: int = Field(default=800, ge=0)
    video_rows: int = Field(default=300, ge=0)
    audio_stride_s: PositiveFloat = 0.96
    video_stride_s: PositiveFloat = 2.56
    event_weight: float = Field(default=1.0, ge=0)
    other_weight: float = Field(default=100.0, ge=0)
    train_captioner: bool = True

    def anchors_s(self, published: tuple[float, ...]) -> tuple[float, ...]:
        """These, or as many that fit the training events."""
        lengths = self.event_lengths_s
        return anchors_of(lengths, len(published)) if lengths else published

    @property
    def widths(self) -> Widths:
        return Widths(
            audio=self.project_audio or self.audio_width,
            video=self.project_video or self.video_width,
            words=self.word_width,
            inner=self.inner,
            heads=self.heads,
            dropout=self.dropout,
        )


_SLOTS = {
    "rgb": FeatureSlot("i3d_rgb", "a row for each 2.56 s of picture"),
    "flow": FeatureSlot("i3d_flow", "a row for each 2.56 s of motion", is_optional=True),
    "audio": FeatureSlot("vggish", "a row for each 0.96 s of sound", is_optional=True),
}
_PAPER = "BMT, ActivityNet Captions, videos still obtainable"


@register("bmt")
class Bmt(Model):
    """BMT for one task; see the top of the file."""

    description: ClassVar[str] = "BMT (BMVC 2020): events of a video and a sentence for each"
    code: ClassVar[str] = "https://github.com/v-iashin/BMT"
    tasks: ClassVar[tuple[str, ...]] = (CAPTIONING, PROPOSALS, DENSE_CAPTIONING)
    Config: ClassVar[type[ModelConfig]] = BmtConfig
    slots: ClassVar[Mapping[str, FeatureSlot]] = MappingProxyType(_SLOTS)
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 5e-5, "batch_size": 16, "epochs": 100}
    )
    published_results: ClassVar[tuple[PublishedResult, ...]] = (
        PublishedResult(CAPTIONING, "activitynet", "bleu_3", 4.63, _PAPER),
        PublishedResult(CAPTIONING, "activitynet", "bleu_4", 1.99, _PAPER),
        PublishedResult(CAPTIONING, "activitynet", "meteor", 10.90, _PAPER),
        PublishedResult(DENSE_CAPTIONING, "activitynet", "bleu_3", 3.84, _PAPER),
        PublishedResult(DENSE_CAPTIONING, "activitynet", "bleu_4", 1.88, _PAPER),
        PublishedResult(DENSE_CAPTIONING, "activitynet", "meteor", 8.44, _PAPER),
        PublishedResult(DENSE_CAPTIONING, "activitynet", "f1", 60.27, _PAPER),
    )

    def __init__(self, config: ModelConfig, task: str) -> None:
        super().__init__(config, task)
        settings = cast(BmtConfig, config)
        self.config = settings
        self.has_captioner, self.has_heads = task != PROPOSALS, task != CAPTIONING
        widths = settings.widths
        self.input_audio = InputProjection(
            settings.audio_width, settings.project_audio, is_normalised=settings.normalise_inputs
        )
        self.input_video = InputProjection(
            settings.video_width, settings.project_video, is_normalised=settings.normalise_inputs
        )
        self.encoder = BiModalEncoder(widths, settings.layers)
        self.dropout = nn.Dropout(settings.dropout)
        if self.has_captioner:
            self.words = nn.Embedding(settings.vocabulary_size, settings.word_width)
            self.decoder = BiModalDecoder(widths, settings.layers)
            self.generator = nn.Linear(settings.word_width, settings.vocabulary_size)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            parameter.requires_grad_(settings.train_captioner)
        if self.has_captioner:
            learns = settings.train_words and settings.train_captioner
            self.words.weight.requires_grad_(learns)
        if self.has_heads:
            hidden, anchors_s = (settings.head_width, settings.head_width), settings.anchors_s
            self.events_audio = EventDetector(
                widths.audio, hidden, anchors_s(settings.audio_anchors_s), settings.audio_kernels,
                settings.dropout,
            )  # fmt: skip
            self.events_video = EventDetector(
                widths.video, hidden, anchors_s(settings.video_anchors_s), settings.video_kernels,
                settings.dropout,
            )  # fmt: skip

    @property
    def word_embedding(self) -> nn.Embedding | None:
        return self.words if self.has_captioner else None

    @classmethod
    def settings_for(
        cls, config: ModelConfig, row_shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        return stream_widths(row_shapes)

    @classmethod
    def prepare(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> dict[str, Tensor]:
        """rgb, flow (Tv, 1024), audio (Ta, 128), a row of zeros for a stream without rows;
        rgb_length, audio_length (); video_step_s, audio_step_s (), seconds from row to row."""
        settings = cast(BmtConfig, config)
        rgb = rows_or_zero(features.get("rgb"), settings.video_width, window_s)
        flow = rows_or_zero(features.get("flow"), settings.video_width, window_s)
        audio = rows_or_zero(features.get("audio"), settings.audio_width, window_s)
        if len(flow) == 1 and not flow.any():
            flow = torch.zeros_like(rgb)
        count = min(len(rgb), len(flow))
        steps = {
            name: (row_stride_s(features[slot]) if slot in features else None) or fallback
            for name, slot, fallback in (
                ("video_step_s", "rgb", settings.video_stride_s),
                ("audio_step_s", "audio", settings.audio_stride_s),
            )
        }
        return {
            "rgb": rgb[:count],
            "flow": flow[:count],
            "audio": audio,
            "rgb_length": torch.tensor(count),
            "audio_length": torch.tensor(len(audio)),
            **{name: torch.tensor(step) for name, step in steps.items()},
        }

    def forward(
        self,
        *,
        rgb: Tensor,
        flow: Tensor,
        audio: Tensor,
        caption: Tensor | None = None,
        events: Tensor | None = None,
        duration_s: Tensor | None = None,
        rgb_length: Tensor | None = None,
        audio_length: Tensor | None = None,
        flow_length: Tensor | None = None,
        video_step_s: Tensor | None = None,
        audio_step_s: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What the network says of B videos, or of N = B segments.

        rgb, flow: float (B, Sv, 1024). audio: float (B, Sa, 128). rgb_length, audio_length: int
        (B,), rows that are real; without them a row whose first channel is exactly 1 is padding,
        and nothing is padded further; with them, a video longer than video_rows is looked at in
        windows, and has no `raw_...`. caption: int (N, L + 1) ids with start and end, padded.
        events: float64 (N, 3), item, start and end in seconds, and duration_s (B,): the captions
        are of these parts; without them of the whole rows. video_step_s, audio_step_s: (B,).

        Returns, if caption is given: `logp`, float32 (N, L, V), logarithms of the shares of the
        words that follow each; `Av` and `Va`, the encoded streams; `loss`, and `n_tokens`, the
        words in it. With heads, and events or no caption: `raw_audio_I`, `raw_video_I`, float32
        (B, S, 3 anchors) of head I; `predictions`, float32 (B, P, 3); if events are given
        `losses_audio`, `losses_video` (4,) (see EventDetector.losses), `loss_total` of both, and
        `loss` of all that learns. A captioner alone in evaluation without caption writes its own:
        `ids`, int64 (N, L).
        """
        del flow_length  # of rgb: both streams are cut to the same rows
        streams = self._inputs(rgb, flow, audio, rgb_length, audio_length)
        outputs: dict[str, Tensor] = {}
        if caption is not None and self.has_captioner:
            outputs |= self._read(self._cropped(streams, events, duration_s), caption)
        elif not self.has_heads:
            if self.training:
                raise TypeError("give captions to learn from")
            outputs["ids"] = self._write(self._cropped(streams, events, duration_s), 30, 1)[0]
        if self.has_heads and (caption is None or events is not None):
            steps = self._steps(len(rgb), video_step_s, audio_step_s)
            if rgb_length is not None and audio_length is not None:
                is_long = 0 < self.config.video_rows < rgb.shape[1]
                if is_long and events is None and not self.training:
                    return outputs | {"predictions": self._detect_in_windows(streams, *steps)}
                streams = self._filled(streams)
            found = self._detect(streams, events, *steps)
            if "loss_total" in found:
                learns = self.config.train_captioner and "loss" in outputs
                found["loss"] = found["loss_total"] + (outputs["loss"] if learns else 0.0)
            outputs |= found
        return outputs

    def write_captions(
        self,
        *,
        max_words: int = 30,
        beams: int = 1,
        length_power: float = 1.0,
        events: Tensor | None = None,
        duration_s: Tensor | None = None,
        **video: Tensor,
    ) -> Tensor:
        """int64 (N, L) ids, start first, of the segments or events that `forward` describes.

        Greedy with one beam. Streams are encoded once, and keys and values of words are kept.
        """
        streams = self._inputs(
            video["rgb"], video["flow"], video["audio"],
            video.get("rgb_length"), video.get("audio_length"),
        )  # fmt: skip
        return self._write(
            self._cropped(streams, events, duration_s), max_words, beams, length_power
        )[0]

    def encode(self, streams: Streams) -> Streams:
        """The same streams with positions, after the encoder."""
        rows = [
            self.dropout(x + positions(x.shape[1], x.shape[2], like=x))
            for x in (streams.audio, streams.video)
        ]
        audio, video = self.encoder(*rows, streams.audio_mask, streams.video_mask)
        return streams._replace(audio=audio, video=video)

    def next_words(self, words: Tensor, memory: DecoderMemory) -> Tensor:
        """Logarithms of the shares (N, V) of what follows the newest words (N,)."""
        x = self._embedded(words[:, None], first=memory.num_words)  # (N, 1, word_width)
        x = self.decoder.step(x, words[:, None] != PADDING, memory)
        return cast(Tensor, self.generator(x[:, 0])).float().log_softmax(dim=-1)

    def _inputs(
        self,
        rgb: Tensor,
        flow: Tensor,
        audio: Tensor,
        rgb_length: Tensor | None,
        audio_length: Tensor | None,
    ) -> Streams:
        video_mask, audio_mask = real_rows(rgb, rgb_length), real_rows(audio, audio_length)
        return Streams(audio.float(), rgb.float() + flow.float(), audio_mask, video_mask)

    def _cropped(
        self, streams: Streams, events: Tensor | None, duration_s: Tensor | None
    ) -> Streams:
        if events is None:
            return streams
        if duration_s is None:
            raise TypeError("give duration_s with events")
        audio, audio_mask = rows_of_events(streams.audio, streams.audio_mask, events, duration_s)
        video, video_mask = rows_of_events(streams.video, streams.video_mask, events, duration_s)
        return Streams(audio, video, audio_mask, video_mask)

    def _filled(self, streams: Streams) -> Streams:
        audio, audio_mask = padded(streams.audio, streams.audio_mask, self.config.audio_rows)
        video, video_mask = padded(streams.video, streams.video_mask, self.config.video_rows)
        return Streams(audio, video, audio_mask, video_mask)

    def _projected(self, streams: Streams) -> Streams:
        return streams._replace(
            audio=self.input_audio(streams.audio, streams.audio_mask),
            video=self.input_video(streams.video, streams.video_mask),
        )

    def _embedded(self, words: Tensor, *, first: int = 0) -> Tensor:
        """words: (N, L) ids; (N, L, word_width)"""
        x = self.words(words) * self.config.word_width**0.5
        return cast(Tensor, self.dropout(x + positions(*x.shape[1:], first=first, like=x)))

    def _remember(self, encoded: Streams) -> DecoderMemory:
        return self.decoder.remember(*encoded)

    def _read(self, streams: Streams, caption: Tensor) -> dict[str, Tensor]:
        encoded = self.encode(self._projected(streams))
        prefix, following = caption[:, :-1], caption[:, 1:]
        x = self.decoder(self._embedded(prefix), prefix != PADDING, self._remember(encoded))
        logp = self.generator(x).float().log_softmax(dim=-1)  # (N, L, V)
        loss, count = smoothed_caption_loss(logp, following, self.config.smoothing)
        return {
            "logp": logp, "Av": encoded.audio, "Va": encoded.video, "loss": loss, "n_tokens": count
        }  # fmt: skip

    @torch.no_grad()
    def _write(
        self, streams: Streams, max_words: int, beams: int, length_power: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        memory = self._remember(self.encode(self._projected(streams)))
        count, device = len(streams.video), streams.video.device
        if beams == 1:
            ids = greedy_captions(self, memory, count, max_words=max_words, device=device)
            return ids, None
        return beam_captions(
            self, memory, count, beams=beams, max_words=max_words, device=device,
            length_power=length_power,
        )  # fmt: skip

    def _steps(
        self, num_videos: int, video_step_s: Tensor | None, audio_step_s: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Seconds from row to row of picture and of sound, float32 (B,)."""
        device, usual = self.events_audio.anchors.device, self.config
        video, audio = (
            torch.full((num_videos,), usual_s, device=device) if step_s is None else step_s.float()
            for step_s, usual_s in (
                (video_step_s, usual.video_stride_s),
                (audio_step_s, usual.audio_stride_s),
            )
        )
        return video, audio

    def _detect_in_windows(
        self, streams: Streams, video_step_s: Tensor, audio_step_s: Tensor
    ) -> Tensor:
        """Predictions (B, P, 3) of videos with more rows than the heads were trained on: the best
        of windows of video_rows rows, each half a window after the one before."""
        ends_s = streams.video_mask.sum(dim=1) * video_step_s  # (B,)
        window_s = self.config.video_rows * float(video_step_s.max())
        best = []
        for start_s, part in windows_of(streams, video_step_s, audio_step_s, window_s):
            found = self._detect(self._filled(part), None, video_step_s, audio_step_s)
            centre, length, confidence = found["predictions"].unbind(dim=-1)
            confidence = confidence * (start_s < ends_s)[:, None]
            rows = torch.stack([centre + start_s, length, confidence], dim=-1)  # (B, P, 3)
            kept = confidence.topk(min(_MOST_OF_WINDOW, rows.shape[1]), dim=1).indices
            best.append(rows.gather(1, kept[..., None].expand(-1, -1, 3)))
        return torch.cat(best, dim=1)

    def _detect(
        self,
        streams: Streams,
        events: Tensor | None,
        video_step_s: Tensor,
        audio_step_s: Tensor,
    ) -> dict[str, Tensor]:
        encoded = self.encode(self._projected(streams))
        outputs: dict[str, Tensor] = {}
        predictions, losses = [], []
        for name, detector, rows, step_s in (
            ("audio", self.events_audio, encoded.audio, audio_step_s),
            ("video", self.events_video, encoded.video, video_step_s),
        ):
            raw = detector(rows)
            outputs |= {f"raw_{name}_{head}": said for head, said in enumerate(raw)}
            predictions.append(detector.predictions(raw, step_s))
            if events is not None:
                parts = detector.losses(raw, EventTargets.of(events), step_s)
                outputs[f"losses_{name}"] = parts
                weights = [1.0, 1.0, self.config.event_weight, self.config.other_weight]
                losses.append((parts * parts.new_tensor(weights)).sum())
        outputs["predictions"] = torch.cat(predictions, dim=1)
        if losses:
            outputs["loss_total"] = torch.stack(losses).sum()
        return outputs

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Also a part of the network: of `dense_captioning` the captioner with its encoder, or the
        proposal generator with its (the published two have equal encoders)."""
        found = without_parallel_prefix(state)
        is_captioner = any(key.startswith("decoder.") for key in found)
        if is_captioner and self.has_captioner and "emb_C.embedder.weight" in found:
            self._set_vocabulary(len(found["emb_C.embedder.weight"]))
        part = _CAPTIONER if is_captioner or not self.has_heads else _PROPOSAL_GENERATOR
        own = self.state_dict()
        kept = {key: value for key, value in own.items() if not _is_of(key, part)}
        renamed = {self._published_key(key): key for key in own if _is_of(key, part)}
        kept |= {renamed.get(key, key): value for key, value in found.items()}
        fill(self, kept, what=f"BMT for the task {self.task!r}")

    def published_state(self) -> dict[str, Tensor] | None:
        if self.task == DENSE_CAPTIONING or self.config.normalise_inputs:
            return None
        part, prefix = (_CAPTIONER, "module.") if self.has_captioner else (_PROPOSAL_GENERATOR, "")
        return {
            prefix + self._published_key(key): value.detach().cpu()
            for key, value in self.state_dict().items()
            if _is_of(key, part)
        }

    @classmethod
    def published_file_name(cls, task: str, value: float) -> str | None:
        del value
        return {CAPTIONING: "best_cap_model.pt", PROPOSALS: "best_prop_model.pt"}.get(task)

    def _published_key(self, key: str) -> str:
        return published_key(key, has_dropout=self.config.dropout > 0)

    def _set_vocabulary(self, size: int) -> None:
        if size != self.words.num_embeddings:
            learns = self.words.weight.requires_grad
            self.words = nn.Embedding(size, self.config.word_width)
            self.words.weight.requires_grad_(learns)
            self.generator = nn.Linear(self.config.word_width, size)


_CAPTIONER = ("words.", "input_", "encoder.", "decoder.", "generator.")
_PROPOSAL_GENERATOR = ("input_", "encoder.", "events_")


def _is_of(key: str, part: tuple[str, ...]) -> bool:
    # Anchors lie beside the weights there, and statistics of inputs are ours alone.
    own = key.endswith(".anchors") or key.startswith(("input_audio.norm.", "input_video.norm."))
    return key.startswith(part) and not own
