"""Lines of subtitles with their seconds: SubRip files, and the preprocessed file of TVQA.

SubRip   number, "00:00:01,234 --> 00:00:02,345", the line's text in one or more lines, a blank line
TVQA     a JSON object a line: {"vid_name": ..., "sub": [{"text", "start", "end"}, ...]}

TVQA's SubRip files are in Latin 1 (iso-8859-1); UTF-8 is recognised by its byte order mark.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from vlpipe.stores.errors import AnnotationError

_MAX_BYTES = 16 << 20  # a film has some 200 kB
_BOM = b"\xef\xbb\xbf"
_TIME = r"(\d{1,3}):(\d{1,2}):(\d{1,2})(?:[,.](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}.*")
_EXPECTED = "vid_name and sub, a list of text, start and end in seconds"

_Seconds = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class SubtitleLine:
    """What is said from start_s to end_s, as it is written: mostly `(Speaker:)Words`."""

    start_s: float
    end_s: float
    text: str


class _JsonLine(BaseModel):
    text: str
    start: _Seconds
    end: _Seconds


class _JsonClip(BaseModel):
    vid_name: str
    sub: list[_JsonLine]


def read_subrip(path: Path) -> tuple[SubtitleLine, ...]:
    """The lines of a SubRip file in the order of their starts, those without text left out.

    Raises AnnotationError for a file that cannot be read or has text and not one time.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise AnnotationError(f"{path} has more than {_MAX_BYTES:,} bytes; is it subtitles?")
        data = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read: {error.strerror}") from error
    has_mark = data.startswith(_BOM)
    try:
        text = data.decode("utf-8-sig" if has_mark else "iso-8859-1")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} is marked as UTF-8 and is not: {error}") from error
    lines, times, spoken = list[SubtitleLine](), None, list[str]()
    rows = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for place, row in enumerate(rows):
        found = _TIMES.fullmatch(row)
        if found is not None:
            lines += _line(times, spoken)
            times, spoken = found, []
        elif times is not None and not _is_number_of_next(rows, place):
            spoken.append(row.strip())
    lines += _line(times, spoken)
    if times is None and text.strip():
        raise AnnotationError(
            f"{path} holds no line of times such as 00:00:01,234 --> 00:00:02,345",
            hint="expected a SubRip file (.srt)",
        )
    return tuple(sorted(lines, key=lambda line: line.start_s))


def parse_json_clip(text: str) -> tuple[str, tuple[SubtitleLine, ...]]:
    """vid_name and the lines of a row of TVQA's file. ValueError says what is wrong with it."""
    try:
        clip = _JsonClip.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the row"
        raise ValueError(f"{where}: {first['msg']}; expected {_EXPECTED}") from error
    lines = (SubtitleLine(line.start, line.end, " ".join(line.text.split())) for line in clip.sub)
    found = (line for line in lines if line.text)
    return clip.vid_name, tuple(sorted(found, key=lambda line: line.start_s))


def _is_number_of_next(rows: list[str], place: int) -> bool:
    """Whether a row is the number that stands above the next line's times."""
    behind = rows[place + 1] if place + 1 < len(rows) else ""
    return rows[place].strip().isdecimal() and _TIMES.fullmatch(behind) is not None


def _line(times: re.Match[str] | None, spoken: list[str]) -> Iterator[SubtitleLine]:
    text = " ".join(" ".join(spoken).split())
    if times is not None and text:
        groups = times.groups()
        yield SubtitleLine(_seconds(groups[:4]), _seconds(groups[4:]), text)


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    return int(hours) * 3600 + int(minutes) * 60 + float(f"{seconds}.{fraction}")
