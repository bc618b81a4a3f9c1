"""Captions as word ids, by the rules of the published vocabularies of MDVC and BMT.

    <unk> 0, <blank> 1 (padding), <s> 2, </s> 3, then words by falling frequency, ties in
    alphabetical order; all in lower case

The authors took the words of ActivityNet Captions' training sentences as spaCy 2.0 parts them, and
published no list: another tokeniser, or another version of it, gives other ids without any error.
So the list travels with every checkpoint that is written here, and `published_words` checks one
that is given for the authors' checkpoint.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vlpipe.stores.errors import UsageError

UNKNOWN, PADDING, START, END = 0, 1, 2, 3
SPECIAL_WORDS = ("<unk>", "<blank>", "<s>", "</s>")

PUBLISHED_SHA256 = "1e5650b287abfb62b98f0f13e6a6206dd4a196b1f6677577bc4501fe58951dac"
"""Of the 10,168 words of BMT's checkpoint, without the special ones, joined by newlines."""

_CLEANING: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (("\u2019", "'"), (r"\.(?!\d)", ""), (r"\s+", " "))
)
# Words with inner apostrophes, hyphens, dots or commas stay whole; n't and 's are words.
_TOKEN = re.compile(
    r"\w+(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\d+(?:[.,]\d+)*\w*|\w+(?:-\w+)*|[^\w\s]"
)


def clean_caption(text: str) -> str:
    """The caption with plain apostrophes, without full stops, parted by single blanks (BMT)."""
    for pattern, replacement in _CLEANING:
        text = pattern.sub(replacement, text)
    return text.strip()


def tokens(text: str) -> list[str]:
    """The words and signs of a caption, in lower case."""
    return _TOKEN.findall(clean_caption(text).lower())


@dataclass(frozen=True)
class CaptionVocabulary:
    """Words by id; the first four are SPECIAL_WORDS."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[: len(SPECIAL_WORDS)] != SPECIAL_WORDS:
            raise UsageError(
                f"the vocabulary starts with {', '.join(self.words[:4]) or 'nothing'}; expected "
                f"{', '.join(SPECIAL_WORDS)}"
            )

    @classmethod
    def of(cls, texts: Iterable[str], *, least_count: int = 1) -> "CaptionVocabulary":
        """Every word that occurs that often, by the order above."""
        counts = Counter(token for text in texts for token in tokens(text))
        kept = sorted(
            (word for word, count in counts.items() if count >= least_count),
            key=lambda word: (-counts[word], word),
        )
        return cls((*SPECIAL_WORDS, *kept))

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str, max_words: int | None = None) -> list[int]:
        """The ids of a caption between its start and its end; words behind max_words are cut."""
        found = [self.ids.get(token, UNKNOWN) for token in tokens(text)[:max_words]]
        return [START, *found, END]

    def sentence(self, ids: Sequence[int]) -> str:
        """The words of those ids as a sentence: parted by blanks, its first letter large, the
        rest small, no full stop (BMT)."""
        return " ".join(self.words[number] for number in ids).capitalize()


def published_words(path: Path) -> CaptionVocabulary:
    """The vocabulary of BMT's published checkpoint from a file with a word a line, in order.

    The four special words may stand at its start. Raises UsageError if these are not the words
    that the checkpoint was trained with.
    """
    try:
        lines = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the word list {path} cannot be read: {error}") from error
    words = lines[len(SPECIAL_WORDS) :] if lines[:1] == SPECIAL_WORDS[:1] else lines
    found = hashlib.sha256("\n".join(words).encode()).hexdigest()
    if found != PUBLISHED_SHA256:
        raise UsageError(
            f"{path} holds {len(words):,} words with the SHA-256 {found}; those of the published "
            f"checkpoint are 10,168 with {PUBLISHED_SHA256}",
            hint="the words of the training sentences as spaCy 2.0.18 parts them, by falling "
            "frequency; a later version of spaCy gives other ids",
        )
    return CaptionVocabulary((*SPECIAL_WORDS, *words))
