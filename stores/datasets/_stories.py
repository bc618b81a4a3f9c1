"""Stories in the forms of LSMDC 2019 and M-VAD Names, as typed rows.

sets          one set of five clip ids a line, parted by tabs
annotations   no header: CLIP_ID, four times (aligned and extracted start and end), SENTENCE,
              with SOMEONE (task 1) or [...] (task 2) in the place of every name
onlyIDs       no header: CLIP_ID and the ids of its [...] parted by commas, "_" if none
M-VAD Names   {MOVIE: {"characters": {NAME: {"DVSn": tracks}},
                       "videos": {"DVSn": {NAME: tracks}}}},
              a track is a list of [frame, x_min, y_min, x_max, y_max], frames count from 0
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlpipe.stores.datasets._captions import read_json_object
from vlpipe.stores.datasets._tables import read_strict
from vlpipe.stores.errors import AnnotationError

ANNOTATION_COLUMNS = (
    *("clip_id", "start_aligned", "end_aligned", "start_extracted", "end_extracted"),
    "sentence",
)
ID_COLUMNS = ("clip_id", "ids")
MENTION_COLUMNS = ("movie", "clip", "clip_id", "sentence")
CHARACTER_COLUMNS = ("movie", "name", "gender", "look")
NO_IDS = "_"
LSMDC_SPLITS = {"train": "training", "val": "val", "test": "test"}  # in file names

_MENTION = re.compile(r"<PERSON>(.*?)</PERSON>")

Box = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Track:
    """Where a character is, frame by frame: boxes of (frame, x0, y0, x1, y1) in pixels."""

    character: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One clip of a story.

    sentence has SOMEONE for every name, blanked has [...]; person_ids and names belong to these
    mentions in their order: "[9001_PERSON2]" and "ADA".
    """

    video_id: str
    sentence: str
    blanked: str
    person_ids: tuple[str, ...]
    names: tuple[str, ...]
    tracks: tuple[Track, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """Five consecutive clips of a movie; genders: name -> "F" or "M" for its cast."""

    movie: str
    split: str
    lines: tuple[StoryLine, ...]
    genders: dict[str, str]


def read_sets(path: Path) -> list[tuple[str, ...]]:
    """The sets of five clip ids in a file."""
    return read_strict(path, ("1", "2", "3", "4", "5"), has_header=False)


def read_stories(lsmdc: Path, mvad_names: Path, split: str) -> list[Story]:
    """The stories of a split from the two folders that tell about the same clips."""
    base = f"LSMDC16_annos_{LSMDC_SPLITS[split]}"
    told = _by_clip(lsmdc / "task1" / f"{base}_someone.csv", ANNOTATION_COLUMNS)
    blanked = _by_clip(lsmdc / "task2" / f"{base}_blank.csv", ANNOTATION_COLUMNS)
    ids = _by_clip(lsmdc / "task2" / f"{base}_onlyIDs.csv", ID_COLUMNS)
    mentions = {
        clip_id: (movie, clip, tuple(_MENTION.findall(sentence)))
        for movie, clip, clip_id, sentence in read_strict(
            mvad_names / "captions.csv", MENTION_COLUMNS
        )
    }
    tracks = read_tracks(mvad_names / "mvad-names.json")
    genders: dict[str, dict[str, str]] = {}
    for movie, name, gender, _ in read_strict(mvad_names / "characters.csv", CHARACTER_COLUMNS):
        genders.setdefault(movie, {})[name] = gender

    def line(clip_id: str) -> StoryLine:
        movie, clip, names = mentions[clip_id]
        person_ids = () if ids[clip_id] == NO_IDS else tuple(ids[clip_id].split(","))
        return StoryLine(
            clip_id, told[clip_id], blanked[clip_id], person_ids, names, tracks[movie, clip]
        )

    stories = []
    for clip_ids in read_sets(lsmdc / f"{split}Sets.csv"):
        movie = clip_ids[0].rpartition("_")[0]
        try:
            lines = tuple(line(clip_id) for clip_id in clip_ids)
            stories.append(Story(movie, split, lines, genders[movie]))
        except KeyError as error:
            raise AnnotationError(
                f"{lsmdc} and {mvad_names} do not tell about the same clips: "
                f"{error.args[0]!r} is not in all of their files"
            ) from error
    return stories


def read_tracks(path: Path) -> dict[tuple[str, str], tuple[Track, ...]]:
    """The tracks of each clip: (movie, "DVSn") -> tracks, by character."""
    found = {}
    for movie, entry in read_json_object(path).items():
        try:
            for clip, characters in entry["videos"].items():
                found[movie, clip] = tuple(
                    Track(name, tuple(_box(box) for box in boxes))
                    for name, tracks in characters.items()
                    for boxes in tracks
                )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise AnnotationError(
                f"{path}, movie {movie!r}: not in the M-VAD Names form"
            ) from error
    return found


def _box(value: Any) -> Box:  # noqa: ANN401 - JSON
    frame, x0, y0, x1, y1 = (int(number) for number in value)
    return frame, x0, y0, x1, y1


def _by_clip(path: Path, columns: Sequence[str]) -> dict[str, str]:
    """The last column by the first one, in a file without header."""
    return {values[0]: values[-1] for values in read_strict(path, columns, has_header=False)}
