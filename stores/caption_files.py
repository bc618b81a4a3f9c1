"""Files of dense captions: sentences with their seconds, written by whatever system.

Two forms are read: the submission of the ActivityNet challenge, of many videos,

    {"results": {VIDEO: [{"sentence": "...", "timestamp": [start_s, end_s]}, ...]}}

which `vlpipe evaluate` writes for runs that describe events, and a folder of what `vlpipe caption`
writes, a file VIDEO.json a video:

    {"id": VIDEO, "events": [{"start_s", "end_s", "sentence", "confidence"}, ...]}
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError

from vlpipe.stores.errors import AnnotationError

_MAX_BYTES = 1 << 30
_Seconds = Annotated[float, Field(allow_inf_nan=False)]
_Document = TypeVar("_Document", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class EventText:
    """A sentence about a video from start_s to end_s."""

    start_s: float
    end_s: float
    sentence: str


class _Submitted(BaseModel):
    sentence: str
    timestamp: tuple[_Seconds, _Seconds]


class _Submission(BaseModel):
    results: dict[str, list[_Submitted]]


class _Told(BaseModel):
    start_s: _Seconds
    end_s: _Seconds
    sentence: str
    confidence: _Seconds = 0.0


class _Video(BaseModel):
    id: str
    events: list[_Told]


def read_event_texts(path: Path) -> dict[str, tuple[EventText, ...]]:
    """The sentences of each video, the most confident first where the file tells, and else in its
    order. path: a submission, or a folder. AnnotationError names a file of another form."""
    if not path.is_dir():
        submission = _read(path, _Submission)
        return {
            video: tuple(EventText(*event.timestamp, event.sentence) for event in events)
            for video, events in submission.results.items()
        }
    found: dict[str, tuple[EventText, ...]] = {}
    for file in sorted(path.glob("*.json")):
        video = _read(file, _Video)
        events = sorted(video.events, key=lambda event: -event.confidence)
        found[video.id] = tuple(EventText(e.start_s, e.end_s, e.sentence) for e in events)
    if not found:
        raise AnnotationError(
            f"the folder {path} holds no VIDEO.json", hint="vlpipe caption writes them"
        )
    return found


def _read(path: Path, form: type[_Document]) -> _Document:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise AnnotationError(f"{path} has more than {_MAX_BYTES:,} bytes")
        return form.model_validate_json(path.read_bytes())
    except OSError as error:
        raise AnnotationError(f"the captions {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ", ".join(map(str, first["loc"])) or "the file"
        raise AnnotationError(
            f"{path}, {where}: {first['msg']}",
            hint='expected {"results": {VIDEO: [{"sentence", "timestamp": [start, end]}]}}, or a '
            "folder of files of vlpipe caption",
        ) from error
