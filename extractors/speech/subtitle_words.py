"""Subtitles to words: what the authors of MDVC clean, and the lines that YouTube rolls.

    tags                    <...> are removed; times among them, as in YouTube's captions, say when
                            the words behind them begin
    sounds                  [Music], [Applause] and the like are removed
    segments that overlap   end where the next one begins
    rolling lines           YouTube's automatic captions show each line again while the next one
                            is spoken: a line counts where it is new

Words without times of their own share their segment, each by its number of letters.
Source: v-iashin/MDVC, utils/parse_subs.py.
"""

import html
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vlpipe.extractors.speech.spoken_words import SpokenWord

_TIME = re.compile(r"<(?:(\d+):)?(\d{1,2}):(\d{2}\.\d{3})>")
_TAG = re.compile(r"<[^>]*>")
_ROLLING_FROM = 0.25  # share of the cues that begin with the line before
_SAME_MOMENT_S = 0.5


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown from start to end, in seconds, with its tags."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


def words_of(cues: Sequence[Cue], sounds: Iterable[str], end_s: float) -> list[SpokenWord]:
    """The words in the order of their starts.

    cues: in the order of theirs. sounds: names without brackets. end_s: segments that begin later
    are dropped.
    """
    marks = re.compile(rf"\[\s*(?:{'|'.join(map(re.escape, sounds))})\s*\]", re.IGNORECASE)
    words: list[SpokenWord] = []
    for segment in _cut_overlaps(_without_rolled(cues)):
        if segment.start_s < end_s:
            words += _spread(segment, marks)
    return sorted(words, key=lambda word: word.start_s)


def _without_rolled(cues: Sequence[Cue]) -> list[Cue]:
    """The cues with their new lines alone, if the file rolls; those without new ones are gone."""
    told = [Cue(c.start_s, c.end_s, tuple(x for x in c.lines if x.strip())) for c in cues]
    shared = [_shared(before, cue) for before, cue in itertools.pairwise([Cue(0, 0, ()), *told])]
    if sum(count > 0 for count in shared) < _ROLLING_FROM * len(told):
        return told
    rolled = [Cue(c.start_s, c.end_s, c.lines[n:]) for c, n in zip(told, shared, strict=True)]
    return [cue for cue in rolled if cue.lines]


def _shared(before: Cue, cue: Cue) -> int:
    """How many lines at the front of a cue are those at the end of the one before, shown until
    then."""
    if cue.start_s - before.end_s > _SAME_MOMENT_S:
        return 0
    old, new = [*map(_plain, before.lines)], [*map(_plain, cue.lines)]
    sizes = range(min(len(old), len(new)), 0, -1)
    return next((n for n in sizes if old[-n:] == new[:n]), 0)


def _cut_overlaps(cues: Sequence[Cue]) -> Iterator[Cue]:
    for cue, following in itertools.zip_longest(cues, cues[1:]):
        end_s = cue.end_s if following is None else min(cue.end_s, following.start_s)
        yield Cue(cue.start_s, max(cue.start_s, end_s), cue.lines)


def _spread(segment: Cue, marks: re.Pattern[str]) -> list[SpokenWord]:
    """The words of a segment over its time."""
    spoken = marks.sub(" ", " ".join(segment.lines))
    parts: list[tuple[float, list[str]]] = []
    start_s, place = segment.start_s, 0
    for found in (*_TIME.finditer(spoken), None):
        words = _plain(spoken[place : found.start() if found else len(spoken)]).split()
        if words:
            parts.append((start_s, words))
        if found is not None:
            hours, minutes, seconds = found.groups()
            told_s = int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
            start_s, place = min(max(told_s, start_s), segment.end_s), found.end()
    ends = [start for start, _ in parts[1:]] + [segment.end_s] * bool(parts)
    return [
        word
        for (start, words), end in zip(parts, ends, strict=True)
        for word in _shares(words, start, end)
    ]


def _shares(words: Sequence[str], start_s: float, end_s: float) -> Iterator[SpokenWord]:
    letters = [0, *itertools.accumulate(len(word) + 1 for word in words)]
    edges = [start_s + (end_s - start_s) * count / letters[-1] for count in letters]
    for word, start, end in zip(words, edges, edges[1:], strict=False):
        yield SpokenWord(word, start, end)


def _plain(text: str) -> str:
    """Without tags, parted by single blanks."""
    return " ".join(html.unescape(_TAG.sub(" ", text)).split())
