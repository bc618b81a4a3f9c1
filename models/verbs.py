"""What the one who is mentioned does: the word of a sentence that stands for it."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol

from vlpipe.stores.errors import EnvironmentLacks, UsageError

VerbRule = Literal["next_word", "last_but_one"]

_LINKS = frozenset(("someone", "and", "or", "'s"))


class VerbFinder(Protocol):
    """Finds words of sentences. description: how, in a few words, for reports."""

    description: str

    def verb_of(self, words: Sequence[str], place: int) -> int:
        """The place of the word, for the mention at `place`."""
        ...


class NextWord:
    """The next word that is neither a mention nor joins two; else the nearest before."""

    description = "the next word after a mention (no parser)"

    def verb_of(self, words: Sequence[str], place: int) -> int:
        for other in chain(range(place + 1, len(words)), range(place - 1, -1, -1)):
            if words[other].isalpha() and words[other] not in _LINKS:
                return other
        return place


class LastButOne:
    """What the code of CiSIN takes where its parser found nothing."""

    description = "the last word but one of the sentence (no parser)"

    def verb_of(self, words: Sequence[str], place: int) -> int:
        del place
        return max(len(words) - 2, 0)


class Parsed:
    """The word that a mention depends on, by a pipeline of spaCy; without one as `otherwise` says.

    path: of a folder that spaCy saved (`Language.to_disk`, or an unpacked package such as
    en_core_web_sm), with a parser in it. Raises EnvironmentLacks without spaCy, UsageError for
    anything else there.
    """

    def __init__(self, path: Path, otherwise: VerbFinder) -> None:
        try:
            import spacy
        except ImportError as error:
            raise EnvironmentLacks(
                "a dependency parser needs the package spacy",
                hint='pip install "vlpipe[parser]", or leave task.parser out',
            ) from error
        try:
            self._pipeline: Any = spacy.load(path)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{path} is no pipeline of spaCy: {error}",
                hint="unpack a package such as en_core_web_sm, and name the folder of config.cfg",
            ) from error
        if "parser" not in self._pipeline.pipe_names:
            raise UsageError(
                f"the pipeline {path} has no parser; it has: "
                f"{', '.join(self._pipeline.pipe_names) or 'nothing'}"
            )
        self._path, self._otherwise = path, otherwise
        self.description = f"what a mention depends on, by the parser {path.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Workers that load examples open the pipeline themselves.
        return type(self), (self._path, self._otherwise)

    def verb_of(self, words: Sequence[str], place: int) -> int:
        from spacy.tokens import Doc

        parsed = self._pipeline(Doc(self._pipeline.vocab, words=list(words)))
        head = int(parsed[place].head.i)
        return head if head != place else self._otherwise.verb_of(words, place)


def verb_finder(rule: VerbRule, parser: Path | None = None) -> VerbFinder:
    """The finder that these settings ask for."""
    found: VerbFinder = NextWord() if rule == "next_word" else LastButOne()
    return found if parser is None else Parsed(parser, found)
