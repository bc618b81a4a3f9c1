"""Questions, subtitles and captions as ids of words, by the rules of TVQA's code, or of pieces.

Words keep letters, digits and ( ) , ! ? : . ' `; contractions are split off, punctuation stands by
itself, brackets go. A line that does not say who speaks begins with `unkname :`.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vlpipe.models import word_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING_WORD, UNKNOWN_WORD, END_WORD = "<pad>", "<unk>", "<eos>"
_NO_SPEAKER = "(<UNKNAME>:)"

_STEPS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[^A-Za-z0-9(),!?:.'`]", " "),
        (r"('s|'ve|n't|'re|'d|'ll|'m)\b", r" \1"),
        (r"\.\.\.", "."),
        (r"([:,!.?])", r" \1 "),
        (r"[()]", " "),
        (r"\s+", " "),
    )
)


def clean(text: str) -> str:
    """Words and punctuation in lower case, parted by single spaces."""
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    return text.strip().lower()


def spoken(line: str) -> str:
    """A line of subtitles that says who speaks, as far as anybody knows."""
    return line if line.startswith("(") else f"{_NO_SPEAKER}{line}"


@dataclass(frozen=True)
class SubtitledVocabulary:
    """Words by id, `<pad>` 0, `<unk>` 1, `<eos>` 2; or, where is_subword, BERT's pieces."""

    words: tuple[str, ...]
    is_subword: bool = False

    @classmethod
    def of(cls, texts: Iterable[str], *, least_count: int) -> "SubtitledVocabulary":
        """The words that occur that often, in the order of first appearance."""
        special = (PADDING_WORD, UNKNOWN_WORD, END_WORD)
        counts = Counter(word for text in texts for word in clean(text).split())
        kept = (word for word, n in counts.items() if n >= least_count and word not in special)
        return cls((*special, *kept))

    @classmethod
    def read(cls, path: Path) -> "SubtitledVocabulary":
        """BERT's vocab.txt; UsageError if it is none."""
        return cls(word_pieces.read_word_pieces(path), is_subword=True)

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, text: str, most: int) -> list[int]:
        """The ids of a text, at most so many, pieces with `[CLS]` and `[SEP]` around; of a text
        without words none."""
        if not self.is_subword:
            unknown = self.ids[UNKNOWN_WORD]
            return [self.ids.get(word, unknown) for word in clean(text).split()[:most]]
        pieces = self._tokenizer.encode(text, add_special_tokens=False).ids[: max(most - 2, 0)]
        if not pieces:
            return []
        return [self.ids[word_pieces.START], *pieces, self.ids[word_pieces.END]]

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        return word_pieces.word_piece_tokenizer(self.ids)
