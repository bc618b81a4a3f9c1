"""Words that are known already: from files of subtitles, in place of a recogniser of speech.

For a video NAME.mp4 the words are those of NAME.vtt, NAME.en.vtt, NAME.srt, ... beside it, or in a
folder of subtitles; `extractors/speech/subtitle_words.py` says how they are cleaned. The feature
is that of every extractor of speech, `speech_words` (see `extractors/speech/spoken_words.py`). A
video without a file has no rows, and the note `no_subtitles`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Inferred, Names, Output
from vlpipe.extractors.media import AudioBlock, AudioRequest, MediaInfo, MediaRequest
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler
from vlpipe.extractors.speech.spoken_words import SPEECH_WORDS, SpokenWord, rows_of, words_output
from vlpipe.extractors.speech.subtitle_files import (
    find_subtitles,
    read_cues,
    sha256_of_subtitles,
)
from vlpipe.extractors.speech.subtitle_words import words_of
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

_SAMPLE_RATE = 16_000  # as other extractors of sound, which then share the stream


class GivenSubtitlesConfig(ExtractorConfig):
    """Where the subtitles are, and what is taken out of them.

    folder: of the subtitles; None: beside each video. folder_sha256 follows from its names and
        contents, so that changed subtitles make a new feature; files beside videos are not looked
        at again once the video has its words.
    language: of several files of a video, by the letters in the name: `en` of NAME.en.vtt.
    encoding: of files that do not begin with a mark of theirs.
    sounds: in brackets, these are no words.
    """

    folder: Path | None = Field(default=None, exclude=True)
    folder_sha256: str = ""
    language: str | None = Field(default=None, min_length=1)
    encoding: str = "utf-8"
    sounds: Names[str] = Field(default=("Music", "Applause", "Laughter"), min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _hash_folder(cls, given: Any) -> Any:  # noqa: ANN401 - whatever the caller passes
        if isinstance(given, Mapping) and given.get("folder"):
            return {**given, "folder_sha256": sha256_of_subtitles(Path(given["folder"]))}
        return given


class NoNetwork(nn.Module):
    """There is nothing to compute."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """No outputs: rows come from files."""
        del x
        return {}


class GivenWordSampler:
    """One sample a word, which its context holds, in step with the sound."""

    def __init__(self, words: Sequence[SpokenWord]) -> None:
        self._left = list(reversed(words))

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, AudioBlock):
            raise TypeError(f"expected sound, got {type(block).__name__}")
        return self._until(block.start_s + len(block.samples) / _SAMPLE_RATE)

    def finish(self) -> Sequence[Sample]:
        return self._until(np.inf)

    def _until(self, end_s: float) -> list[Sample]:
        made = []
        while self._left and self._left[-1].start_s < end_s:
            word = self._left.pop()
            made.append(Sample(np.zeros(1, np.uint8), (word.start_s, word.end_s), word))
        return made


@register("given_subtitles")
class GivenSubtitles(Extractor):
    """Words from files of subtitles: see the file's top."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = GivenSubtitlesConfig
    gflop_per_sample: ClassVar[float] = 1e-6
    description: ClassVar[str] = "words from files of subtitles, in place of a recogniser of speech"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        del config
        return AudioRequest(sample_rate=_SAMPLE_RATE)

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        del config
        return (words_output(),)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        del config
        return 3.0

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        del config
        return NoNetwork()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        del network, checkpoints

    def sampler(self, info: MediaInfo) -> Sampler:
        settings = cast(GivenSubtitlesConfig, self.spec.config)
        path = self._file(info)
        cues = [] if path is None else read_cues(path, settings.encoding)
        return GivenWordSampler(words_of(cues, settings.sounds, info.duration_s))

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        if num_rows:
            return None
        return "no_subtitles" if self._file(info) is None else "no_speech"

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(samples)

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """A row for each word."""
        rows, spans = rows_of([cast(SpokenWord, sample.context) for sample in samples])
        return Inferred({SPEECH_WORDS: rows}, spans, np.ones(len(samples), np.int64))

    def _file(self, info: MediaInfo) -> Path | None:
        settings = cast(GivenSubtitlesConfig, self.spec.config)
        folder = settings.folder or Path(info.path).parent
        return find_subtitles(folder, info.path, settings.language)
