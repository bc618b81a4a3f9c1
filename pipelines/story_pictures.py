"""A story to look at: frames of its clips with everybody labelled, and its sentences with names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlpipe.models.character_ids import track_characters
from vlpipe.models.story_text import MENTION
from vlpipe.models.tasks import Record
from vlpipe.pipelines.pictures import data_address
from vlpipe.pipelines.track_pictures import VideoTracks, track_colour, tracks_on_frames
from vlpipe.pipelines.training.data import PreparedVideos
from vlpipe.pipelines.training.material import Material
from vlpipe.stores import Features
from vlpipe.stores.errors import VlpipeError

_FRAMES_SHOWN = 3
_BOX_SLOTS = ("boxes", "box_track", "box_frame")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a sentence: text, or a character in the place of a SOMEONE."""

    text: str
    character: int | None = None
    colour: str = ""


@dataclass(frozen=True, slots=True)
class ShownClip:
    """picture: frames with a box a person, as a data address; None without the media."""

    video_id: str
    picture: str | None
    parts: tuple[Part, ...]
    people: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShownCharacter:
    """id: as in boxes and sentences. mentions: how often it is mentioned. clips: where it is."""

    id: int
    colour: str
    mentions: int
    clips: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShownStory:
    """A story with ids for all its people, from 0 in the order of their first mention."""

    clips: tuple[ShownClip, ...]
    characters: tuple[ShownCharacter, ...]


def show_story(
    record: Record,
    videos: PreparedVideos,
    paths: Mapping[str, Path | None],
    *,
    fps: float | None,
) -> ShownStory:
    """The story of a record of the task `reid`.

    paths: the media file of each video. fps: at which its boxes count frames, None for every one.
    """
    whose = track_characters(record["prediction"], record["mention_tracks"], record["same_tracks"])
    of_clip: list[dict[int, int]] = [{} for _ in record["clips"]]
    for track, number in zip(record["tracks"], whose, strict=True):
        of_clip[track["clip"]][track["row"]] = number
    ids = iter(record["prediction"])
    clips = []
    for clip, rows in zip(record["clips"], of_clip, strict=True):
        own = [next(ids) for _ in range(clip["mentions"])]
        path = paths.get(clip["video_id"])
        picture = None
        if path is not None:
            picture = _picture(path, videos.features(clip["video_id"]), rows, fps)
        people = tuple(sorted(set(rows.values())))
        clips.append(ShownClip(clip["video_id"], picture, _parts(clip["sentence"], own), people))
    numbers = sorted({*record["prediction"], *whose})
    characters = tuple(
        ShownCharacter(
            number,
            colour_of(number),
            record["prediction"].count(number),
            tuple(place for place, clip in enumerate(clips) if number in clip.people),
        )
        for number in numbers
    )
    return ShownStory(tuple(clips), characters)


def frame_rate(material: Material) -> float | None:
    """At which the boxes of the run's features count frames; None for every frame."""
    feature = material.slots.get("boxes")
    if feature is None:
        return None
    config = material.store[feature].info.provenance.get("config", {})
    rate: float | None = config.get("fps")
    return rate


def colour_of(character: int) -> str:
    """The colour of a character in frames and sentences, for CSS."""
    return "#{:02x}{:02x}{:02x}".format(*track_colour(character))


def _parts(sentence: str, ids: list[int]) -> tuple[Part, ...]:
    texts = sentence.split(MENTION)
    parts = [Part(texts[0])]
    for number, text in zip(ids, texts[1:], strict=True):
        parts += [Part(f"person {number}", number, colour_of(number)), Part(text)]
    return tuple(part for part in parts if part.text)


def _picture(
    path: Path, features: Mapping[str, Features], rows: Mapping[int, int], fps: float | None
) -> str | None:
    """Frames with the boxes of the tracks with these rows, each labelled with its character."""
    if not set(_BOX_SLOTS) <= set(features):
        return None
    boxes, ids, frames = (np.asarray(features[slot].rows) for slot in _BOX_SLOTS)
    _, table_rows = np.unique(ids.reshape(-1), return_inverse=True)
    numbers = np.array([rows.get(int(row), -1) for row in table_rows], np.int32)
    kept = numbers >= 0
    no_points = np.zeros((int(kept.sum()), 17, 3), np.float32)
    tracks = VideoTracks(
        boxes[kept].astype(np.float32), numbers[kept],
        frames.reshape(-1)[kept].astype(np.int32), no_points, fps,
    )  # fmt: skip
    try:
        picture = tracks_on_frames(path, tracks, most=_FRAMES_SHOWN)
    except VlpipeError:
        return None  # the media is gone or damaged since; its features are not
    return None if picture is None else data_address(picture, jpeg=True)
