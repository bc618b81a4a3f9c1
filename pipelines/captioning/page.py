"""The page of a captioned video: it plays beside its events, and stands alone in one file."""

import base64
import mimetypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from PIL import Image

from vlpipe.models.metrics.dense_captioning import EventCaption
from vlpipe.pipelines.captioning.events import CaptionedVideo, ConfidentEvent
from vlpipe.pipelines.captioning.subtitles import webvtt
from vlpipe.pipelines.html_pages import render
from vlpipe.pipelines.media_frames import frames_at
from vlpipe.pipelines.pictures import data_address
from vlpipe.stores.errors import VlpipeError

if TYPE_CHECKING:
    from vlpipe.extractors.media import DecodePool

FRAMES_PER_EVENT = 4
EMBED_BYTES = 24_000_000

_FRAME_HEIGHT = 120
_LARGEST_SHIFT_S = 0.001  # two events that touch do not overlap


@dataclass(frozen=True, slots=True)
class Player:
    """How the page shows the media. kind: a picture that moves by itself, or a video."""

    kind: Literal["video", "picture"]
    address: str
    is_embedded: bool
    name: str


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """A frame of an event as a data address."""

    time_s: float
    picture: str


@dataclass(frozen=True, slots=True)
class ShownEvent:
    """An event on the page. number: its place in time, from 1. lane: the row of the timeline in
    which nothing else is at that time. left, width: on the timeline, in percent."""

    number: int
    event: ConfidentEvent
    lane: int
    left: float
    width: float
    frames: tuple[ShownFrame, ...]


def write_page(
    path: Path,
    video: CaptionedVideo,
    *,
    run: str,
    is_untrained: bool = False,
    frames_per_event: int = FRAMES_PER_EVENT,
    embed_bytes: int = EMBED_BYTES,
    pool: "DecodePool | None" = None,
) -> Path:
    """Writes the page of a captioned video and returns its path.

    A media file of up to embed_bytes goes into the page; a larger one is linked by its place
    relative to the page. Where the file cannot be read (any more), the page has no frames.
    run: what captioned it. is_untrained: whether any feature came from random numbers.
    pool: decodes the frames; None: one of this call alone.
    """
    events = video.in_time()
    pictures = _pictures(video, events, frames_per_event, pool)
    lanes = lanes_of(events)
    shown = [
        ShownEvent(
            number,
            event,
            lane,
            100 * event.start_s / max(video.duration_s, event.end_s),
            100 * (event.end_s - event.start_s) / max(video.duration_s, event.end_s),
            frames,
        )
        for number, (event, lane, frames) in enumerate(
            zip(events, lanes, pictures, strict=True), start=1
        )
    ]
    subtitles = base64.b64encode(webvtt(video.events).encode()).decode()
    return render(
        "caption.html.j2",
        path,
        video=video,
        run=run,
        is_untrained=is_untrained,
        player=player_of(video.path, path, embed_bytes),
        events=shown,
        num_lanes=max(lanes, default=-1) + 1,
        subtitles=f"data:text/vtt;base64,{subtitles}",
        clock=clock,
    )


def equally_spaced(event: EventCaption, count: int) -> list[float]:
    """The middles of `count` equal parts of the event, in seconds."""
    length_s = event.end_s - event.start_s
    return [event.start_s + (place + 0.5) * length_s / count for place in range(count)]


def lanes_of(events: Sequence[EventCaption]) -> list[int]:
    """The row for each event, in the order of their starts: the first one that is free by then."""
    free_from: list[float] = []
    lanes = []
    for event in events:
        free = (n for n, end in enumerate(free_from) if end <= event.start_s + _LARGEST_SHIFT_S)
        lane = next(free, len(free_from))
        free_from[lane : lane + 1] = [event.end_s]
        lanes.append(lane)
    return lanes


def player_of(media: Path | None, page: Path, embed_bytes: int) -> Player | None:
    """None without a media file."""
    if media is None or not media.is_file():
        return None
    kind = mimetypes.guess_type(media.name)[0] or "video/mp4"
    is_embedded = media.stat().st_size <= embed_bytes
    if is_embedded:
        address = f"data:{kind};base64,{base64.b64encode(media.read_bytes()).decode()}"
    else:
        address = quote(os.path.relpath(media.absolute(), page.absolute().parent))
    return Player(
        "picture" if kind.startswith("image/") else "video", address, is_embedded, media.name
    )


def clock(seconds: float) -> str:
    """`1:02.5`, with hours `1:00:02.5`."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def _pictures(
    video: CaptionedVideo,
    events: Sequence[EventCaption],
    count: int,
    pool: "DecodePool | None",
) -> list[tuple[ShownFrame, ...]]:
    times = [equally_spaced(event, count) for event in events]
    if video.path is None or not events:
        return [() for _ in events]
    try:
        wanted = [time_s for of in times for time_s in of]
        frames = frames_at(video.path, wanted, height=_FRAME_HEIGHT, pool=pool)
    except VlpipeError:
        return [() for _ in events]  # the file is gone or damaged since its features were made
    found = iter(frames)
    return [
        tuple(ShownFrame(t, data_address(Image.fromarray(next(found)), jpeg=True)) for t in of)
        for of in times
    ]
