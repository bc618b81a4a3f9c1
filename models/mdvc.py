"""MDVC: dense video captioning from speech, sound and picture.

Paper: Multi-modal Dense Video Captioning (Iashin and Rahtu, CVPR Workshops 2020, arXiv 2003.07758).
Code: v-iashin/MDVC (MIT). Checkpoint layout: state dicts of its class `SubsAudioVideoTransformer`,
prefix `module.`; 149.18 M parameters without speech, with it 167 M and 512 a word of the speech.

Data flow (N segments of S rows, of which picture and sound have equally many, W words of speech):
subs (N, W) -> embedded (N, W, 512); audio (N, S, 128); rgb + flow (N, S, 1024), positions added
-> a transformer of its own width each, that reads the caption in its own embedding (N, L, width)
-> joined (N, L, 1664) -> words -> ReLU -> words: `logp` (N, L, words).

The paper takes its proposals from elsewhere (Bi-SST), so the task is `captioning` alone.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vlpipe.models.caption_vocabulary import PADDING
from vlpipe.models.decoding import beam_captions, greedy_captions
from vlpipe.models.feature_slot import FeatureSlot
from vlpipe.models.layers.caption_loss import smoothed_caption_loss
from vlpipe.models.layers.caption_transformer import CaptionMemory, Decoder, Encoder
from vlpipe.models.layers.multihead_attention import positions
from vlpipe.models.layers.spoken_words import spoken_words, words_of_events
from vlpipe.models.layers.streams import real_rows, rows_of_events, rows_or_zero, stream_widths
from vlpipe.models.model import Model, ModelConfig, PublishedResult
from vlpipe.models.published_files import fill, without_parallel_prefix
from vlpipe.models.published_layouts.mdvc import published_key
from vlpipe.models.registry import register
from vlpipe.stores import Features

CAPTIONING = "captioning"
SPEECH, AUDIO, VIDEO = "subs", "audio", "video"
_MOST_WORDS = 50  # of a written caption, as published


class MdvcConfig(ModelConfig):
    """Sizes as published.

    vocabulary_size, speech_vocabulary_size: given by the task. audio_width, video_width: given by
        the features; they are the widths of their transformers too.
    has_speech: False leaves the third stream out. longest_speech: words of an event that it reads.
    """

    vocabulary_size: PositiveInt = 10_172
    speech_vocabulary_size: PositiveInt = 10_000
    has_speech: bool = True
    longest_speech: PositiveInt = 1000
    speech_width: PositiveInt = 512
    audio_width: PositiveInt = 128
    video_width: PositiveInt = 1024
    inner: PositiveInt = 2048
    heads: PositiveInt = 4
    layers: PositiveInt = 1
    dropout: float = Field(default=0.1, ge=0, lt=1)
    smoothing: float = Field(default=0.7, ge=0, lt=1)


@register("mdvc")
class Mdvc(Model):
    """MDVC; see the top of the file."""

    description: ClassVar[str] = "MDVC (CVPR-W 2020): sentences for events, from speech too"
    code: ClassVar[str] = "https://github.com/v-iashin/MDVC"
    tasks: ClassVar[tuple[str, ...]] = (CAPTIONING,)
    Config: ClassVar[type[ModelConfig]] = MdvcConfig
    slots: ClassVar[Mapping[str, FeatureSlot]] = MappingProxyType(
        {
            "rgb": FeatureSlot("i3d_rgb", "a row for each 0.96 s of picture"),
            "flow": FeatureSlot("i3d_flow", "a row for each 0.96 s of motion", is_optional=True),
            "audio": FeatureSlot("vggish", "a row for each 0.96 s of sound", is_optional=True),
            "speech": FeatureSlot(
                "speech_words", "the words spoken", is_optional=True, row_shapes=("letters",)
            ),
        }
    )
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 1e-5, "batch_size": 8, "epochs": 45}
    )
    published_results: ClassVar[tuple[PublishedResult, ...]] = tuple(
        PublishedResult(CAPTIONING, "activitynet", metric, value, "MDVC, videos still obtainable")
        for metric, value in (("bleu_3", 4.52), ("bleu_4", 1.98), ("meteor", 11.07))
    )

    def __init__(self, config: ModelConfig, task: str) -> None:
        super().__init__(config, task)
        settings = cast(MdvcConfig, config)
        self.config = settings
        self.widths = self._stream_widths(settings)
        sizes = (settings.heads, settings.inner, settings.dropout, settings.layers)
        if settings.has_speech:
            self.speech_words = nn.Embedding(settings.speech_vocabulary_size, settings.speech_width)
        self.words = nn.ModuleDict(
            {name: nn.Embedding(settings.vocabulary_size, w) for name, w in self.widths.items()}
        )
        self.encoders = nn.ModuleDict({n: Encoder(w, *sizes) for n, w in self.widths.items()})
        self.decoders = nn.ModuleDict({n: Decoder(w, *sizes) for n, w in self.widths.items()})
        self.fusion = nn.Linear(sum(self.widths.values()), settings.vocabulary_size)
        self.generator = nn.Linear(settings.vocabulary_size, settings.vocabulary_size)
        self.dropout = nn.Dropout(settings.dropout)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    @classmethod
    def slots_in_use(cls, config: ModelConfig) -> Mapping[str, FeatureSlot]:
        without = set() if cast(MdvcConfig, config).has_speech else {"speech"}
        return {name: slot for name, slot in cls.slots.items() if name not in without}

    @staticmethod
    def _stream_widths(settings: MdvcConfig) -> dict[str, int]:
        speech = {SPEECH: settings.speech_width} if settings.has_speech else {}
        return speech | {AUDIO: settings.audio_width, VIDEO: settings.video_width}

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
        """rgb, flow (T, 1024), audio (T, 128), cut to the shortest; a stream that is missing is
        all zeros (the published code drew random rows); rgb_length (). With speech also the
        words: speech, uint8 (W, 64), and speech_spans, float64 (W, 2); the task makes ids of them.
        """
        settings = cast(MdvcConfig, config)
        widths = {
            "rgb": settings.video_width, "flow": settings.video_width,
            "audio": settings.audio_width,
        }  # fmt: skip
        found = {
            slot: rows_or_zero(features.get(slot), width, window_s)
            for slot, width in widths.items()
        }
        is_there = {slot: slot in features and len(features[slot].rows) > 0 for slot in widths}
        count = min((len(found[slot]) for slot in widths if is_there[slot]), default=1)
        rows = {
            slot: found[slot][:count] if is_there[slot] else torch.zeros(count, width)
            for slot, width in widths.items()
        }
        words = spoken_words(features.get("speech"), window_s) if settings.has_speech else {}
        return rows | {"rgb_length": torch.tensor(count)} | words

    def forward(
        self,
        *,
        rgb: Tensor,
        flow: Tensor,
        audio: Tensor,
        subs: Tensor | None = None,
        caption: Tensor | None = None,
        events: Tensor | None = None,
        duration_s: Tensor | None = None,
        rgb_length: Tensor | None = None,
        flow_length: Tensor | None = None,
        audio_length: Tensor | None = None,
        speech: Tensor | None = None,
        speech_spans: Tensor | None = None,
        **others: Tensor,
    ) -> dict[str, Tensor]:
        """What the network says of N segments, or of N events of B videos.

        rgb, flow: float (B, S, 1024). audio: float (B, S, 128). rgb_length: int (B,), rows of all
        three that are real; without it a row counts as padding where the first channel of rgb +
        flow is exactly 1. subs: int (N, W) ids of the words spoken, with start and end, padded; or
        those of the whole videos without them: speech, int (B, W), and speech_spans, float
        (B, W, 2), in seconds. One of the two is needed if the network has speech. caption: int
        (N, L + 1) ids with start and end, padded. events: float64 (N, 3), item, start and end in
        seconds, with duration_s (B,): the captions are of these parts.

        Returns, if caption is given: `logp`, float32 (N, L, V), logarithms of the shares of the
        words that follow each; `loss`, and `n_tokens`, the words in it. In evaluation without
        caption: `ids`, int64 (N, L), what it writes itself.
        """
        del flow_length, audio_length  # all streams are cut to the same rows
        subs = self._spoken(subs, speech, speech_spans, events)
        streams = self._streams(rgb, flow, audio, subs, rgb_length, events, duration_s, **others)
        if caption is None:
            if self.training:
                raise TypeError("give captions to learn from")
            return {"ids": self._write(streams, _MOST_WORDS, 1)}
        return self._read(streams, caption)

    def write_captions(
        self, *, max_words: int = _MOST_WORDS, beams: int = 1, length_power: float = 1.0,
        **video: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """int64 (N, L) ids, start first, of the segments or events that `forward` describes.

        Greedy with one beam. Streams are encoded once, and keys and values of words are kept.
        """
        events = video.get("events")
        subs, speech, spans = (video.pop(name, None) for name in ("subs", "speech", "speech_spans"))
        video["subs"] = self._spoken(subs, speech, spans, events)
        needed = ("rgb", "flow", "audio", "subs", "rgb_length", "events", "duration_s")
        others = {
            k: v for k, v in video.items() if k not in (*needed, "flow_length", "audio_length")
        }
        given: Any = [video.get(name) for name in needed]
        streams = self._streams(*given, **cast(dict[str, Tensor], others))
        return self._write(streams, max_words, beams, length_power)

    def next_words(self, words: Tensor, memory: CaptionMemory) -> Tensor:
        """Logarithms of the shares (N, V) of what follows the newest words (N,)."""
        first = memory.num_words
        memory.take_in(words != PADDING)
        outputs = []
        for name in self.widths:
            x = self._placed(self._embedded(self.words[name], words[:, None]), first=first)
            decoder = cast(Decoder, self.decoders[name])
            outputs.append(decoder.step(x, memory.word_mask, memory.streams[name]))
        return self._shares(outputs)[:, 0]

    def _streams(
        self,
        rgb: Tensor,
        flow: Tensor,
        audio: Tensor,
        subs: Tensor | None,
        rgb_length: Tensor | None,
        events: Tensor | None,
        duration_s: Tensor | None,
        **others: Tensor,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Rows and mask by stream, of the segments or events."""
        if others:
            raise TypeError(f"{type(self).__name__} takes no {', '.join(others)}")
        video = rgb.float() + flow.float()
        mask = real_rows(video, rgb_length)
        found = {AUDIO: (audio.float(), mask), VIDEO: (video, mask)}
        return self._of_events(found, subs, events, duration_s)

    def _of_events(
        self,
        streams: dict[str, tuple[Tensor, Tensor]],
        subs: Tensor | None,
        events: Tensor | None,
        duration_s: Tensor | None,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The same, cut to the events, with the speech."""
        if events is not None:
            if duration_s is None:
                raise TypeError("give duration_s with events")
            streams = {
                name: rows_of_events(rows, mask, events, duration_s)
                for name, (rows, mask) in streams.items()
            }
        if not self.config.has_speech:
            return streams
        if subs is None:
            raise TypeError("give subs, the ids of the words spoken: an empty text is <s> </s>")
        return streams | {SPEECH: (self._embedded(self.speech_words, subs), subs != PADDING)}

    def _spoken(
        self,
        subs: Tensor | None,
        speech: Tensor | None,
        speech_spans: Tensor | None,
        events: Tensor | None,
    ) -> Tensor | None:
        """int (N, W), the words spoken in each segment or event, whichever way they are given."""
        if subs is not None or speech is None or not self.config.has_speech:
            return subs
        if speech_spans is None:
            raise TypeError("give speech_spans with speech, or subs, the ids of each segment")
        return words_of_events(speech, speech_spans, events, most=self.config.longest_speech)

    def _embedded(self, words: nn.Module, ids: Tensor) -> Tensor:
        """(N, L, width) of ids (N, L), times the root of the width."""
        embedded: Tensor = words(ids)
        return embedded * float(embedded.shape[-1] ** 0.5)

    def _placed(self, x: Tensor, *, first: int = 0) -> Tensor:
        placed: Tensor = self.dropout(x + positions(*x.shape[1:], first=first, like=x))
        return placed

    def _remember(self, streams: Mapping[str, tuple[Tensor, Tensor]]) -> CaptionMemory:
        memories = {}
        for name in self.widths:
            rows, mask = streams[name]
            encoded = self.encoders[name](self._placed(rows), mask)
            memories[name] = cast(Decoder, self.decoders[name]).remember(encoded, mask)
        mask = streams[VIDEO][1]
        return CaptionMemory(memories, mask.new_empty(len(mask), 1, 0))

    def _read(
        self, streams: Mapping[str, tuple[Tensor, Tensor]], caption: Tensor
    ) -> dict[str, Tensor]:
        memory, prefix = self._remember(streams), caption[:, :-1]
        outputs = []
        for name in self.widths:
            x = self._placed(self._embedded(self.words[name], prefix))
            outputs.append(self.decoders[name](x, prefix != PADDING, memory.streams[name]))
        logp = self._shares(outputs)
        loss, count = smoothed_caption_loss(logp, caption[:, 1:], self.config.smoothing)
        return {"logp": logp, "loss": loss, "n_tokens": count}

    def _shares(self, outputs: list[Tensor]) -> Tensor:
        """(N, L, V) logarithms of shares."""
        joined = self.dropout(F.relu(self.fusion(torch.cat(outputs, dim=-1))))
        return cast(Tensor, self.generator(joined)).float().log_softmax(dim=-1)

    @torch.no_grad()
    def _write(
        self,
        streams: Mapping[str, tuple[Tensor, Tensor]],
        max_words: int,
        beams: int,
        length_power: float = 1.0,
    ) -> Tensor:
        memory, video = self._remember(streams), streams[VIDEO][0]
        if beams == 1:
            return greedy_captions(
                self, memory, len(video), max_words=max_words, device=video.device
            )
        return beam_captions(
            self, memory, len(video), beams=beams, max_words=max_words, device=video.device,
            length_power=length_power,
        )[0]  # fmt: skip

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        found = without_parallel_prefix(state)
        size = len(found.get("trg_emb_video.embedder.weight", ()))
        spoken = len(found.get("src_emb_subs.embedder.weight", ()))
        self._set_vocabularies(size, spoken)
        renamed = {published_key(key): key for key in self.state_dict()}
        kept = {renamed.get(key, key): value for key, value in found.items()}
        fill(self, kept, what=type(self).__name__)

    def published_state(self) -> dict[str, Tensor] | None:
        return {
            f"module.{published_key(key)}": value.detach().cpu()
            for key, value in self.state_dict().items()
        }

    @classmethod
    def published_file_name(cls, task: str, value: float) -> str | None:
        del task, value
        return "best_model.pt"

    def _set_vocabularies(self, size: int, spoken: int) -> None:
        """Gives the layers of words that many; 0 leaves them. Values are still to be filled."""
        if size and size != self.generator.out_features:
            for name, width in self.widths.items():
                self.words[name] = nn.Embedding(size, width)
            self.fusion = nn.Linear(self.fusion.in_features, size)
            self.generator = nn.Linear(size, size)
        if spoken and self.config.has_speech:
            self.speech_words = nn.Embedding(spoken, self.config.speech_width)
