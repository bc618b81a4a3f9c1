"""What is said in a video, as the tasks about events give it to a network.

The words come from a store (`speech_words`: each with its seconds) or, as published, from a column
of the annotations (a text for each event). Either way their vocabulary is of its own, fitted on
the training videos by the rules of `caption_vocabulary.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlpipe.models.caption_vocabulary import PADDING, UNKNOWN, CaptionVocabulary, tokens
from vlpipe.models.layers.spoken_words import SPEECH, SPEECH_SPANS
from vlpipe.stores import Features
from vlpipe.stores.datasets import DenseCaptions
from vlpipe.stores.errors import UsageError
from vlpipe.stores.text_rows import texts_of_rows


@dataclass(frozen=True)
class EventSpeech:
    """Words spoken, by id."""

    vocabulary: CaptionVocabulary

    @classmethod
    def of_features(cls, videos: Iterable[Features], *, least_count: int) -> "EventSpeech":
        """The vocabulary of the rows of `speech_words`."""
        texts = (text for features in videos for text in texts_of_rows(features.rows))
        return cls(CaptionVocabulary.of(texts, least_count=least_count))

    @classmethod
    def of_annotations(
        cls, annotations: Sequence[DenseCaptions], *, least_count: int
    ) -> "EventSpeech":
        """The vocabulary of what the annotations hold; UsageError if they hold none."""
        if not any(annotation.speech for annotation in annotations):
            raise UsageError(
                "the annotations do not tell what is said",
                hint="docs/dense_captioning.md says which file holds it; words of a store are read "
                "with --set task.speech_from=store",
            )
        texts = (text for annotation in annotations for text in annotation.speech)
        return cls(CaptionVocabulary.of(texts, least_count=least_count))

    def of_videos(self, videos: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """speech, int64 (B, W), padded, and speech_spans, float64 (B, W, 2), of what models
        prepared: uint8 (words, 64) and float64 (words, 2)."""
        ids, spans = [], []
        for video in videos:
            found = [
                (self.vocabulary.ids.get(token, UNKNOWN), place)
                for place, text in enumerate(texts_of_rows(video[SPEECH].numpy()))
                for token in tokens(text)
            ]
            ids.append(torch.tensor([number for number, _ in found], dtype=torch.int64))
            places = torch.tensor([place for _, place in found], dtype=torch.int64)
            spans.append(video[SPEECH_SPANS].double()[places])
        return {
            SPEECH: pad_sequence(ids, batch_first=True, padding_value=PADDING),
            SPEECH_SPANS: pad_sequence(spans, batch_first=True),
        }

    def of_events(self, annotations: Sequence[DenseCaptions]) -> Tensor:
        """int64 (N, W): what is said in the events of the annotations, one after the other,
        between start and end, padded."""
        texts = (
            text
            for annotation in annotations
            for text in annotation.speech or ("",) * len(annotation.spans)
        )
        ids = [torch.tensor(self.vocabulary.encode(text)) for text in texts]
        return pad_sequence(ids, batch_first=True, padding_value=PADDING)
