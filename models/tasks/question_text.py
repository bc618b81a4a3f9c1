"""Questions as word ids, by the rules of the published vocabularies of TGIF-QA.

The cleaning is that of many sentence classifiers (Kim, 2014), with the quirk that question marks
and brackets become two characters, a backslash and themselves. The published vocabularies hold
those tokens, so they stay.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

PADDING, UNKNOWN = 0, 1
START_WORD, UNKNOWN_WORD, END_WORD = "#START#", "UNK", "<EOS>"

_STEPS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[^A-Za-z0-9(),!?'`_]", " "),
        (r"('s|'ve|n't|'re|'d|'ll)", r" \1"),
        (r"([,!])", r" \1 "),
        (r"([()?])", r" \\\1 "),
        (r"\s{2,}", " "),
    )
)


def clean(text: str) -> str:
    """Lower-case tokens parted by single spaces."""
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    return text.strip().lower()


@dataclass(frozen=True)
class Vocabulary:
    """Words by id: 0 is the padding `#START#`, 1 is `UNK`."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str], *, least_count: int = 1) -> "Vocabulary":
        """Every word that occurs that often, in the order of first appearance; and `<EOS>`, which
        stands behind each text, as in the published lists, and is in no question."""
        counts: dict[str, int] = {}
        for text in texts:
            for word in [*clean(text).split(), END_WORD]:
                counts[word] = counts.get(word, 0) + 1
        kept = (word for word, count in counts.items() if count >= least_count)
        return cls((START_WORD, UNKNOWN_WORD, *kept))

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(
        self, text: str, max_words: int, *, keeps_unknown: bool = True
    ) -> tuple[Tensor, Tensor]:
        """int64 (max_words,) ids, zeros behind the last, and their number (); a longer text is cut,
        one without words is the one word UNK.

        keeps_unknown: unknown words are UNK; otherwise they are left out.
        """
        tokens = clean(text).split()
        if not keeps_unknown:
            tokens = [token for token in tokens if token in self.ids]
        found = [self.ids.get(token, UNKNOWN) for token in tokens[:max_words]] or [UNKNOWN]
        padded = torch.full((max_words,), PADDING)
        padded[: len(found)] = torch.tensor(found)
        return padded, torch.tensor(len(found))


def most_frequent(answers: Sequence[str], size: int | None) -> tuple[str, ...]:
    """The answers by falling frequency, ties in the order of first appearance; at most `size`."""
    counts: dict[str, int] = {}
    for answer in answers:
        counts[answer] = counts.get(answer, 0) + 1
    return tuple(sorted(counts, key=lambda answer: -counts[answer])[:size])
