"""Events as subtitles: WebVTT and SubRip, which players show over the video.

Events overlap, and players differ in what they make of cues that do. So cues here follow each
other: one for each stretch of time in which the same events are under way, with a line for each.
"""

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vlpipe.models.metrics.dense_captioning import EventCaption

_MOST_LINES = 3  # more would hide the picture
_MS = 1000

# SubRip has no way to escape what players take for markup: <...> tags and {...} commands.
_HARMLESS = str.maketrans({"<": "\u2039", ">": "\u203a", "{": "(", "}": ")"})


@dataclass(frozen=True, slots=True)
class Cue:
    """Lines that are shown from start_ms until end_ms, which is later."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def cues(events: Sequence[EventCaption]) -> list[Cue]:
    """Cues in the order of time, none of which overlaps another.

    events: the most important first; where more than three are under way, the first three are
        shown. Lines stand in the order in which their events start. Events without words or
        without length have no cue.
    """
    spoken = [
        (round(event.start_s * _MS), round(event.end_s * _MS), " ".join(event.sentence.split()))
        for event in events
    ]
    spoken = [(start, end, text) for start, end, text in spoken if text and end > start]
    edges = sorted({edge for start, end, _ in spoken for edge in (start, end)})
    found: list[Cue] = []
    for start_ms, end_ms in pairwise(edges):
        under_way = [event for event in spoken if event[0] <= start_ms and event[1] >= end_ms]
        shown = sorted(under_way[:_MOST_LINES], key=lambda event: event[0])
        lines = tuple(dict.fromkeys(text for _, _, text in shown))
        if found and found[-1].end_ms == start_ms and found[-1].lines == lines:
            found[-1] = Cue(found[-1].start_ms, end_ms, lines)
        elif lines:
            found.append(Cue(start_ms, end_ms, lines))
    return found


def webvtt(events: Sequence[EventCaption]) -> str:
    """The text of a WebVTT file (W3C)."""
    return "\n".join(["WEBVTT", "", *_blocks(events, ".", lambda t: html.escape(t, quote=False))])


def subrip(events: Sequence[EventCaption]) -> str:
    """The text of a SubRip file (.srt), in UTF-8. Signs that players take for commands are
    replaced by others that look like them."""
    return "\n".join(_blocks(events, ",", lambda text: text.translate(_HARMLESS)))


def _blocks(
    events: Sequence[EventCaption], decimal_sign: str, made_safe: Callable[[str], str]
) -> Iterator[str]:
    """Number, times and lines of each cue, and an empty line behind them."""
    for number, cue in enumerate(cues(events), start=1):
        yield str(number)
        yield f"{_clock(cue.start_ms, decimal_sign)} --> {_clock(cue.end_ms, decimal_sign)}"
        yield from (made_safe(line) for line in cue.lines)
        yield ""


def _clock(time_ms: int, decimal_sign: str) -> str:
    """hh:mm:ss.mmm; the hours take as many digits as they need."""
    seconds, ms = divmod(time_ms, _MS)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{decimal_sign}{ms:03}"
