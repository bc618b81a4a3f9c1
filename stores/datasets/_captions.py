"""Sentences about videos as typed rows: ActivityNet Captions and the tables of JSFusion.

ActivityNet  {video_id: {"duration": s, "timestamps": [[s, s], ...], "sentences": [...]}}
JSFusion     retrieval: key,vid_key,video_id,sentence (commas)
             CAP, RET: key vid_key description; MC: key vid_key a1..a5 answer (0-based);
             FIB: key vid_key sentence blank_sentence answer (tabs)

A vid_key is a name of JSFusion's for a video; which one it stands for is the dataset's to say.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlpipe.stores.datasets._tables import read_strict
from vlpipe.stores.errors import AnnotationError

MAX_JSON_BYTES = 256 << 20  # the largest published file of this form has 12 MB

PAIR_COLUMNS = ("key", "vid_key", "video_id", "sentence")
CAPTION_COLUMNS = ("key", "vid_key", "description")
CHOICE_COLUMNS = ("key", "vid_key", "a1", "a2", "a3", "a4", "a5", "answer")
BLANK_COLUMNS = ("key", "vid_key", "sentence", "blank_sentence", "answer")

VideoOf = Callable[[str], str]
"""vid_key -> id of the video; an AnnotationError for a key that stands for none."""


@dataclass(frozen=True, slots=True)
class DenseCaptions:
    """The events of a video: spans[i] = (start_s, end_s) is told by sentences[i].

    Published files have a few spans that start after their end or end after the video; they are
    given as they are. speech: what is said in each event, where a file tells it.
    """

    video_id: str
    duration_s: float
    spans: tuple[tuple[float, float], ...]
    sentences: tuple[str, ...]
    speech: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SentencePair:
    """A sentence and the video that it tells about."""

    key: str
    vid_key: str
    video_id: str
    sentence: str


@dataclass(frozen=True, slots=True)
class SentenceChoice:
    """Five sentences of which the one at place `answer`, from 0, belongs to the video."""

    key: str
    vid_key: str
    video_id: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class SentenceBlank:
    """A sentence about a video, and the same with _____ in the place of the answer."""

    key: str
    vid_key: str
    video_id: str
    sentence: str
    blank_sentence: str
    answer: str


def read_dense_captions(path: Path) -> list[DenseCaptions]:
    """All videos of an ActivityNet Captions file, in its order."""
    return [_dense(path, name, entry) for name, entry in read_json_object(path).items()]


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an AnnotationError if the file holds something else."""
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise AnnotationError(f"{path} has {size:,} bytes; at most {MAX_JSON_BYTES:,} are read")
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise AnnotationError(f"{path} holds a JSON {type(value).__name__}; expected an object")
    return value


def _dense(path: Path, name: str, entry: object) -> DenseCaptions:
    expected = "expected duration, timestamps [[start, end], ...] and as many sentences"
    if not isinstance(entry, dict):
        raise AnnotationError(f"{path}, video {name!r}: {expected}")
    duration, spans, sentences = (
        entry.get(field) for field in ("duration", "timestamps", "sentences")
    )
    if (
        not isinstance(duration, int | float)
        or not isinstance(spans, list)
        or not isinstance(sentences, list)
        or len(spans) != len(sentences)
        or not all(isinstance(span, list) and len(span) == 2 for span in spans)
        or not all(isinstance(edge, int | float) for span in spans for edge in span)
        or not all(isinstance(sentence, str) for sentence in sentences)
    ):
        raise AnnotationError(f"{path}, video {name!r}: {expected}")
    pairs = tuple((float(start), float(end)) for start, end in spans)
    return DenseCaptions(name, float(duration), pairs, tuple(sentences))


def read_pairs(path: Path) -> list[SentencePair]:
    return [SentencePair(*values) for values in read_strict(path, PAIR_COLUMNS, delimiter=",")]


def read_descriptions(path: Path, video_id: VideoOf) -> list[SentencePair]:
    return [
        SentencePair(key, vid_key, video_id(vid_key), sentence)
        for key, vid_key, sentence in read_strict(path, CAPTION_COLUMNS)
    ]


def read_choices(path: Path, video_id: VideoOf) -> list[SentenceChoice]:
    rows = []
    for key, vid_key, *choices, answer in read_strict(path, CHOICE_COLUMNS):
        if answer not in tuple("01234"):
            raise AnnotationError(f"{path}, {key}: answer is {answer[:40]!r}; expected 0 to 4")
        rows.append(SentenceChoice(key, vid_key, video_id(vid_key), tuple(choices), int(answer)))
    return rows


def read_blanks(path: Path, video_id: VideoOf) -> list[SentenceBlank]:
    return [
        SentenceBlank(key, vid_key, video_id(vid_key), *texts)
        for key, vid_key, *texts in read_strict(path, BLANK_COLUMNS)
    ]
