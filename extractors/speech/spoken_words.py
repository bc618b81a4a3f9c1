"""Words with their seconds, and how they stand in the store.

Every extractor of speech makes the feature `speech_words`: a row a word, uint8 (64,), in UTF-8
filled up with zeros (`vlpipe.stores.text_rows`), with the seconds of the word as its span. Signs
stay with the word that they follow or open. Rows are in the order of their starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlpipe.extractors.extractor_spec import Output
from vlpipe.stores.text_rows import WORD_BYTES, text_rows

SPEECH_WORDS = "speech_words"


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word and when it is spoken, in seconds from the start of the file."""

    text: str
    start_s: float
    end_s: float


def words_output() -> Output:
    """The one feature of an extractor of speech."""
    return Output(SPEECH_WORDS, "words", (WORD_BYTES,), ("byte",), "uint8")


def rows_of(words: Sequence[SpokenWord]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, 64), and spans, float64 (N, 2)."""
    spans = np.array([(word.start_s, word.end_s) for word in words], np.float64).reshape(-1, 2)
    return text_rows(word.text for word in words), spans
