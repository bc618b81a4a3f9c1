"""Whisper: the words that are spoken, and when.

Network, decoding and alignment are those of openai-whisper (see `networks/whisper.py`). The
feature is that of every extractor of speech, `speech_words` (see `speech/spoken_words.py`).

Data flow: mono 16 kHz sound in windows of up to 30 s, cut at pauses -> log-mel spectra (B, 80 or
128, 3000) -> encoded (B, 1500, width) -> tokens, without what was said before -> words, with the
seconds that the attention to the sound gives them.

As in the library, a window is decoded again with chance where its text repeats itself or is
unlikely, each time from the same seed; and a window that is said to hold no speech, and whose text
is unlikely, has no words.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vlpipe.extractors.extractor import (
    Extractor,
    ExtractorConfig,
    ExtractorSpec,
    Inferred,
    Output,
)
from vlpipe.extractors.media import AudioRequest, MediaInfo, MediaRequest
from vlpipe.extractors.networks.whisper import WhisperNetwork, spectra, whisper_library
from vlpipe.extractors.precision import run_at
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Sample, Sampler
from vlpipe.extractors.speech.sound_windows import SAMPLE_RATE, SoundWindows
from vlpipe.extractors.speech.spoken_words import SPEECH_WORDS, SpokenWord, rows_of, words_output
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

OpenAiName = Literal[
    "tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en",
    "large-v1", "large-v2", "large-v3", "large-v3-turbo",
]  # fmt: skip

_FILES = "https://openaipublic.azureedge.net/main/whisper/models"
_PUBLISHED: tuple[tuple[OpenAiName, str], ...] = (
    ("large-v3-turbo", "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a"),
    ("large-v3", "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb"),
    ("large-v2", "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524"),
    ("medium", "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1"),
    ("medium.en", "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f"),
    ("small", "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794"),
    ("small.en", "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872"),
    ("base", "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e"),
    ("base.en", "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead"),
    ("tiny", "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9"),
    ("tiny.en", "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03"),
)
_HOP = 160  # values of the sound in a column of the spectrum


class WhisperConfig(ExtractorConfig):
    """How words are found.

    language: two letters, such as `en`; None: each window's own. task: `translate` is into English.
    beams: 1 is greedy. max_tokens: of a window.
    temperatures: for windows whose text is packed more than most_compression times (it repeats
        itself), or whose tokens have a mean logarithm of their shares below least_logprob.
    no_speech_from: share of "no speech" from which an unlikely text is dropped.
    silence_db: windows with nothing louder, relative to full scale, are not looked at.
    heads_of: OpenAI's network whose alignment heads tell the seconds; None: the heads of the second
        half of the layers. A published checkpoint brings its own.
    layers, width: of an untrained network; a checkpoint has its own.
    """

    language: str | None = Field(default=None, min_length=2)
    task: Literal["transcribe", "translate"] = "transcribe"
    beams: PositiveInt = 1
    max_tokens: int = Field(default=224, ge=1, le=224)
    temperatures: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    most_compression: float = Field(default=2.4, gt=0)
    least_logprob: float = -1.0
    no_speech_from: float = Field(default=0.6, ge=0, le=1)
    silence_db: float = Field(default=-60.0, le=0)
    heads_of: OpenAiName | None = None
    layers: PositiveInt = 4
    width: int = Field(default=384, ge=64, multiple_of=64)


@register("whisper")
class Whisper(Extractor):
    """The words spoken, (words, 64) bytes; a video without sound has none."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = WhisperConfig
    batch_size = 8
    is_compilable: ClassVar[bool] = False
    gflop_per_sample: ClassVar[float] = 150.0
    description: ClassVar[str] = "Whisper: the words spoken, each with its seconds"

    def __init__(self, spec: ExtractorSpec) -> None:
        super().__init__(spec)
        heads_of = self._settings.heads_of
        if heads_of is not None and not spec.weights.is_untrained:
            cast(WhisperNetwork, self.network).align_as(heads_of)

    @property
    def _settings(self) -> WhisperConfig:
        return cast(WhisperConfig, self.spec.config)

    @property
    def _model(self) -> Any:  # noqa: ANN401 - the library has no types
        return cast(WhisperNetwork, self.network).model

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {
            cls.name: [
                PublishedCheckpoint(
                    f"whisper_{name}".replace("-", "_").replace(".", "_"), f"{name}.pt",
                    f"{_FILES}/{sha256}/{name}.pt", "MIT", sha256, {"heads_of": name},
                )
                for name, sha256 in _PUBLISHED
            ]
        }  # fmt: skip

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        del config
        return AudioRequest(sample_rate=SAMPLE_RATE)

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        del config
        return (words_output(),)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        del config
        return 1 / 25

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        settings = cast(WhisperConfig, config)
        return WhisperNetwork(settings.layers, settings.width)

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        cast(WhisperNetwork, network).draw()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        cast(WhisperNetwork, network).load(checkpoints[cls.name])

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        return SoundWindows(self._settings.silence_db)

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        if num_rows:
            return None
        return "no_audio" if info.audio is None else "no_speech"

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        num_bands = cast(WhisperNetwork, self.network).num_bands
        return spectra(torch.from_numpy(samples).to(self.device), num_bands)

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """The words of N windows, a row each, one window after the other."""
        # On a CPU a batch saves nothing, and most videos are shorter than a few windows.
        size = self.batch_size if self.device.type == "cuda" else 1
        words: list[SpokenWord] = []
        counts = []
        for start in range(0, len(samples), size):
            part = samples[start : start + size]
            filled = [*part, *[part[-1]] * (size - len(part))]
            x = self.to_input(np.stack([sample.data for sample in filled]))
            encoded = self.run_network(x)["encoded"].float()
            with torch.inference_mode(), run_at(self.spec.precision, self.device):
                texts = self._decode(encoded)
                for sample, spectrum, one, text in zip(part, x, encoded, texts, strict=False):
                    found = self._words(sample, spectrum, self._reconsidered(one, text))
                    words += found
                    counts.append(len(found))
        rows, spans = rows_of(words)
        return Inferred({SPEECH_WORDS: rows}, spans, np.array(counts, np.int64))

    def _decode(self, encoded: Tensor, temperature: float = 0.0) -> list[Any]:
        """The library's results of windows (B, 1500, width)."""
        settings, library = self._settings, whisper_library()
        options = library.DecodingOptions(
            task=settings.task,
            language=settings.language or (None if self._model.is_multilingual else "en"),
            beam_size=settings.beams if settings.beams > 1 and not temperature else None,
            temperature=temperature,
            sample_len=settings.max_tokens,
            without_timestamps=True,
            fp16=False,
        )
        return list(library.decode(self._model, encoded, options))

    def _reconsidered(self, encoded: Tensor, text: Any) -> Any:  # noqa: ANN401 - the library's
        """The result of a window (1500, width), decoded by chance while it looks wrong."""
        for temperature in self._settings.temperatures:
            if not self._looks_wrong(text):
                break
            with torch.random.fork_rng(devices=[self.device] if encoded.is_cuda else []):
                torch.manual_seed(0)  # whatever shares the batch
                (text,) = self._decode(encoded[None], temperature)
        return text

    def _looks_wrong(self, text: Any) -> bool:  # noqa: ANN401 - the library's
        settings = self._settings
        if self._is_silent(text):
            return False
        is_packed = text.compression_ratio > settings.most_compression
        return bool(is_packed or text.avg_logprob < settings.least_logprob)

    def _is_silent(self, text: Any) -> bool:  # noqa: ANN401 - the library's
        settings = self._settings
        is_unlikely = text.avg_logprob < settings.least_logprob
        return bool(is_unlikely and text.no_speech_prob > settings.no_speech_from)

    def _words(self, sample: Sample, spectrum: Tensor, text: Any) -> list[SpokenWord]:  # noqa: ANN401
        """The words of a window with their seconds in the file."""
        if self._is_silent(text) or not text.tokens:
            return []
        from whisper.timing import add_word_timestamps
        from whisper.tokenizer import get_tokenizer

        start_s, end_s = sample.span
        segment = {"seek": 0, "start": 0.0, "end": end_s - start_s, "tokens": text.tokens}
        tokenizer = get_tokenizer(
            self._model.is_multilingual, num_languages=self._model.num_languages,
            language=text.language, task=self._settings.task,
        )  # fmt: skip
        add_word_timestamps(
            segments=[segment], model=self._model, tokenizer=tokenizer, mel=spectrum,
            num_frames=cast(int, sample.context) // _HOP, last_speech_timestamp=0.0,
        )  # fmt: skip
        found = []
        for word in cast(list[dict[str, Any]], segment["words"]):
            first_s = min(start_s + word["start"], end_s)
            last_s = min(max(start_s + word["end"], first_s), end_s)
            if word["word"].strip():
                found.append(SpokenWord(word["word"].strip(), first_s, last_s))
        return sorted(found, key=lambda w: w.start_s)
