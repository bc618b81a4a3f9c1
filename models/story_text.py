"""Sentences about SOMEONE as a row of pieces, with the places of each mention and of its verb.

[CLS] s1 [SEP] s2 [SEP] ..., in lower case. Pieces are words, or BERT's word pieces where there is
a vocabulary of them; a word stands for itself by its first piece.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vlpipe.models.verbs import VerbFinder
from vlpipe.models.word_pieces import (
    END,
    PADDING,
    START,
    UNKNOWN,
    read_word_pieces,
    word_piece_tokenizer,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MENTION = "SOMEONE"

_WORD = re.compile(rf"{MENTION}|'(?:s|re|ve|ll|d|m)\b|\w+|[^\w\s]")
_WORDS_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class Sentence:
    """Its words in lower case, and which of them are mentions."""

    words: tuple[str, ...]
    mentions: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> "Sentence":
        found = _WORD.findall(text)
        places = tuple(place for place, word in enumerate(found) if word == MENTION)
        return cls(tuple(word.lower() for word in found), places)


@dataclass(frozen=True, slots=True)
class EncodedStory:
    """pieces: int64 (L,). someone_at, action_at, token_clip: int64 (N,), the piece of each mention,
    that of its verb, and its sentence."""

    pieces: Tensor
    someone_at: Tensor
    action_at: Tensor
    token_clip: Tensor


@dataclass(frozen=True)
class StoryVocabulary:
    """Pieces by id, `[PAD]` the first where they are words. is_subword: they are BERT's."""

    pieces: tuple[str, ...]
    is_subword: bool = False

    @classmethod
    def of(cls, texts: Iterable[str]) -> "StoryVocabulary":
        """The words of these texts, in the order of first appearance."""
        words = dict.fromkeys(word for text in texts for word in Sentence.of(text).words)
        return cls((PADDING, UNKNOWN, START, END, *list(words)[:_WORDS_KEPT]))

    @classmethod
    def read(cls, path: Path) -> "StoryVocabulary":
        """BERT's vocab.txt, a piece a line; UsageError if it lacks one of the special four."""
        return cls(read_word_pieces(path), is_subword=True)

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {piece: number for number, piece in enumerate(self.pieces)}

    def encode(
        self, sentences: Sequence[Sentence], verbs: VerbFinder, max_pieces: int
    ) -> EncodedStory:
        """The sentences joined. Where they are longer than max_pieces, each is cut to an equal
        share, and what stands behind the cut is taken for its last piece."""
        share = (max_pieces - 1) // max(len(sentences), 1) - 1
        is_long = 1 + sum(len(self._split(s.words)[0]) + 1 for s in sentences) > max_pieces
        pieces, someone, action, clips = [self.ids[START]], list[int](), list[int](), list[int]()
        for clip, sentence in enumerate(sentences):
            own, starts = self._split(sentence.words)
            own = own[: max(share, 1)] if is_long else own
            for place in sentence.mentions:
                verb = verbs.verb_of(sentence.words, place)
                for found, word in ((someone, place), (action, verb)):
                    found.append(len(pieces) + min(starts[word], len(own) - 1))
                clips.append(clip)
            pieces += [*own, self.ids[END]]
        return EncodedStory(*(torch.tensor(x).long() for x in (pieces, someone, action, clips)))

    def _split(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """Ids of all pieces, and for each word where its first one stands."""
        if not self.is_subword:
            unknown = self.ids[UNKNOWN]
            return [self.ids.get(word, unknown) for word in words], list(range(len(words)))
        pieces, starts = list[int](), list[int]()
        for word in words:
            starts.append(len(pieces))
            pieces += self._tokenizer.encode(word, add_special_tokens=False).ids or [
                self.ids[UNKNOWN]
            ]
        return pieces, starts

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        return word_piece_tokenizer(self.ids)
