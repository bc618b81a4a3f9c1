"""METEOR 1.5 without its dictionaries: exact words, or exact words and stems. No Java.

METEOR proper also matches synonyms (WordNet) and paraphrases (a table of 62 MB), so these figures
are others than METEOR's, about 1.5 points lower, and have names of their own. Within them they
follow the program to the digit: its normaliser, its search for the best alignment, its weights.
Paper: Meteor Universal (Denkowski and Lavie, WMT 2014); facts from its program, option -m.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import snowballstemmer

EXACT, EXACT_STEM = "meteor_exact", "meteor_exact_stem"

_ALPHA, _BETA, _GAMMA, _CONTENT = 0.85, 0.2, 0.6, 0.75
_STEM_WEIGHT = 0.6
_BEAM = 40
_FUNCTION_WORDS = frozenset(
    re.split(
        r"\s+",
        """the , . to of a and in that for " is on 's it with was as said at he by be from have has
        are his but an this not i will \u2019 they ) -rrb- ( -lrb- who their had we which were been
        more or s its would about new one after you : also up when there than $ all out her people
        she year two - can if last first \u201c over other \u201d into some what so -- no time
        years could ? 't \u2014 '""",
    )
)

_NORMALISED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([^\w\s.'`,\-\u2018\u2019]|_)", r" \1 "),
        (r"\.(\.+)", r" .\1 "),
        (r"(\D),(\D)", r"\1 , \2"),
        (r"(\d),(\D)", r"\1 , \2"),
        (r"(\D),(\d)", r"\1 , \2"),
        (r"[`\u2018\u2019]", "'"),
        (r"\u201c|\u201d|''", ' " '),
        (r"\u2013|--", "-"),
        (r"([\w.])-(\w)", r"\1 \2"),
        (r"([^A-Za-z])'([^A-Za-z])", r"\1 ' \2"),
        (r"([^A-Za-z\d])'([A-Za-z])", r"\1 ' \2"),
        (r"([A-Za-z])'([^A-Za-z])", r"\1 ' \2"),
        (r"([A-Za-z])'([A-Za-z])", r"\1 '\2"),
        (r"(\d)'(s)", r"\1 '\2"),
    )
)
_NEVER_ENDS = frozenset(("v", "vs", "i.e", "rev", "e.g"))


@dataclass(frozen=True, slots=True)
class MeteorStatistics:
    """Counts of a hypothesis and its best reference, which add up over a set.

    lengths, function_words, exact_content, exact_function, stem_content, stem_function: of
    hypothesis and reference. is_whole: every word of both is matched, in one piece.
    """

    lengths: tuple[int, int] = (0, 0)
    function_words: tuple[int, int] = (0, 0)
    exact_content: tuple[int, int] = (0, 0)
    exact_function: tuple[int, int] = (0, 0)
    stem_content: tuple[int, int] = (0, 0)
    stem_function: tuple[int, int] = (0, 0)
    chunks: int = 0

    @property
    def matches(self) -> tuple[int, int]:
        parts = (
            self.exact_content, self.exact_function, self.stem_content, self.stem_function
        )  # fmt: skip
        return sum(p[0] for p in parts), sum(p[1] for p in parts)

    @property
    def is_whole(self) -> bool:
        return self.matches == self.lengths and self.chunks == 1

    def __add__(self, other: "MeteorStatistics") -> "MeteorStatistics":
        def both(name: str) -> tuple[int, int]:
            (a, b), (c, d) = getattr(self, name), getattr(other, name)
            return a + c, b + d

        return MeteorStatistics(
            both("lengths"), both("function_words"), both("exact_content"),
            both("exact_function"), both("stem_content"), both("stem_function"),
            self.chunks + (0 if other.is_whole else other.chunks),
        )  # fmt: skip

    @property
    def score(self) -> float:
        """0 to 1."""
        precision, recall = (self._share(side) for side in (0, 1))
        if not precision or not recall:
            return 0.0
        mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        pieces = 0.0 if self.is_whole else self.chunks / (sum(self.matches) / 2)
        return max(0.0, mean * (1 - _GAMMA * float(pieces**_BETA)))

    def _share(self, side: int) -> float:
        content = self.exact_content[side] + _STEM_WEIGHT * self.stem_content[side]
        function = self.exact_function[side] + _STEM_WEIGHT * self.stem_function[side]
        function_words = self.function_words[side]
        length = self.lengths[side] - function_words
        weighted = _CONTENT * length + (1 - _CONTENT) * function_words
        return (_CONTENT * content + (1 - _CONTENT) * function) / weighted if weighted else 0.0


class ReducedMeteor:
    """METEOR with exact matches, or with those of stems too; name says which."""

    def __init__(self, name: str = EXACT_STEM) -> None:
        if name not in (EXACT, EXACT_STEM):
            raise ValueError(f"there is no {name!r}; there are {EXACT} and {EXACT_STEM}")
        self.name = name
        self._known: dict[tuple[str, tuple[str, ...]], MeteorStatistics] = {}

    def statistics(self, hypothesis: str, references: Sequence[str]) -> MeteorStatistics:
        """Of a hypothesis and the best of its references, both tokens joined by blanks."""
        key = (hypothesis, tuple(references))
        if key not in self._known:
            words, with_stems = _normalised(hypothesis), self.name == EXACT_STEM
            compared = [_compared(words, _normalised(r), with_stems) for r in references]
            self._known[key] = max(compared, key=lambda found: found.score)
        return self._known[key]

    def score(self, statistics: Sequence[MeteorStatistics]) -> tuple[float, list[float]]:
        """The figure 0 to 1 of a set, from the sums of its statistics, and of each pair in it."""
        *_, total = accumulate(statistics, initial=MeteorStatistics())
        return total.score, [pair.score for pair in statistics]


@lru_cache(maxsize=65_536)
def _normalised(text: str) -> tuple[str, ...]:
    """The words as METEOR's own tokeniser parts tokens once more: n 't, ' s, well known."""
    text = f" {text} "
    for pattern, replacement in _NORMALISED:
        text = pattern.sub(replacement, text)
    words = text.lower().split()
    parted: list[str] = []
    for place, word in enumerate(words):
        stem, following = word[:-1], words[place + 1] if place + 1 < len(words) else ""
        if len(word) < 2 or not word.endswith(".") or not stem.strip("."):
            parted.append(word)
        elif "." in stem and any(letter.isalpha() for letter in stem):
            parted.append(word.replace(".", ""))
        elif stem in _NEVER_ENDS or following[:1].islower():
            parted.append(word)
        else:
            parted += [stem, "."]
    return tuple(parted)


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    return str(snowballstemmer.stemmer("english").stemWord(word))


def _compared(
    words: tuple[str, ...], wanted: tuple[str, ...], with_stems: bool
) -> MeteorStatistics:
    chosen, chunks = _aligned(words, wanted, with_stems and words != wanted)
    counts = {"exact_content": [0, 0], "exact_function": [0, 0], "stem_content": [0, 0],
              "stem_function": [0, 0]}  # fmt: skip
    for place, other in enumerate(chosen):
        if other is None:
            continue
        kind = "exact" if words[other] == wanted[place] else "stem"
        for side, word in ((0, words[other]), (1, wanted[place])):
            part = "function" if word in _FUNCTION_WORDS else "content"
            counts[f"{kind}_{part}"][side] += 1
    sides = (words, wanted)
    function_words = [sum(word in _FUNCTION_WORDS for word in side) for side in sides]
    return MeteorStatistics(
        (len(words), len(wanted)),
        (function_words[0], function_words[1]),
        **{name: (pair[0], pair[1]) for name, pair in counts.items()},
        chunks=chunks,
    )


@dataclass(frozen=True, slots=True)
class _Path:
    """A partial alignment, up to a word of the reference. chosen: for each word so far the place
    in the hypothesis. last: the place behind the last match, if it was at the last word."""

    chosen: tuple[int | None, ...] = ()
    used: frozenset[int] = frozenset()
    exact: int = 0
    chunks: int = 0
    last: int | None = None
    distance: int = 0

    def matched(self, place: int, *, is_exact: bool, distance: int) -> "_Path":
        goes_on = self.last is None or place == self.last
        return _Path(
            (*self.chosen, place), self.used | {place}, self.exact + is_exact,
            self.chunks + (not goes_on), place + 1, distance,
        )  # fmt: skip

    def skipped(self, distance: int) -> "_Path":
        chunks = self.chunks + (self.last is not None)
        return _Path((*self.chosen, None), self.used, self.exact, chunks, None, distance)


def _aligned(
    words: tuple[str, ...], wanted: tuple[str, ...], with_stems: bool
) -> tuple[tuple[int | None, ...], int]:
    """For each wanted word the place of its match, and in how many pieces the matches lie.

    Most exact matches win, then fewest pieces, then the least distance, among the paths that a
    beam of 40 keeps. Matches of stems count nothing here, and a path's distance holds that of
    alternatives tried before it: the program rounds a half down, and adds up on the wrong object.
    """
    options = [_options(words, word, with_stems) for word in wanted]
    claims = [sum(place in of_word for of_word in options) for place in range(len(words))]
    fixed = [len(o) == 1 and claims[o[0]] == 1 for o in options]
    # Words of fixed matches are taken from the start.
    taken = frozenset(o[0] for o, is_fixed in zip(options, fixed, strict=True) if is_fixed)
    paths = [_Path(used=taken)]
    for place, of_word in enumerate(options):
        following: list[_Path] = []
        for path in sorted(paths, key=_rank)[:_BEAM]:
            distance = path.distance
            for other in of_word:
                if other in path.used and not fixed[place]:
                    continue
                step = abs(place - other)
                is_exact = words[other] == wanted[place]
                total = distance + step if fixed[place] else distance
                following.append(path.matched(other, is_exact=is_exact, distance=total))
                distance += step
            if not fixed[place]:
                following.append(path.skipped(distance))
        paths = following
    ended = [path.skipped(path.distance) for path in sorted(paths, key=_rank)[:_BEAM]]
    best = min(ended, key=_rank)
    return best.chosen[:-1], best.chunks


def _options(words: tuple[str, ...], wanted: str, with_stems: bool) -> list[int]:
    """The places of the same word, then those of other words with the same stem."""
    exact = [place for place, word in enumerate(words) if word == wanted]
    if not with_stems:
        return exact
    stem = _stem(wanted)
    return exact + [p for p, word in enumerate(words) if word != wanted and _stem(word) == stem]


def _rank(path: _Path) -> tuple[int, int, int]:
    return -path.exact, path.chunks, path.distance
