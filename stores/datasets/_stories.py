"""Stories in the forms of LSMDC 2019 and M-VAD Names, as typed rows.

sets          one set of five clip ids a line, parted by tabs
annotations   no header: CLIP_ID, four times (aligned and extracted start and end), SENTENCE,
              with SOMEONE (task 1) or [...] (task 2) in the place of every name
onlyIDs       no header: CLIP_ID and the ids of its [...] parted by commas, "_" if none
M-VAD Names   {MOVIE: {"characters": {NAME: {"DVSn": tracks}},
                       "videos": {"DVSn": {NAME: tracks}}}}, as JSON or as the release's pickle;
              a track is a list of [frame, x_min, y_min, x_max, y_max], frames count from 0
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlpipe.stores.datasets._captions import read_json_object
from vlpipe.stores.datasets._plain_pickle import read_plain_pickle
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
SOMEONE = "SOMEONE"
BLANK = "[...]"
CLIPS_OF_STORY = 5
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
    mentions in their order: "[9001_PERSON2]" and "ADA". Each is empty where its form has none.
    characters: for each mention who it is, one of the tracks' characters where there are any;
        None where that is not known.
    """

    video_id: str
    sentence: str
    blanked: str
    person_ids: tuple[str, ...]
    names: tuple[str, ...]
    tracks: tuple[Track, ...]
    characters: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """Five consecutive clips of a movie, or fewer at its end.

    genders: character -> "F" or "M" for its cast; empty where the form tells of none.
    """

    movie: str
    split: str
    lines: tuple[StoryLine, ...]
    genders: dict[str, str]


def read_sets(path: Path) -> list[tuple[str, ...]]:
    """The sets of one to five clip ids in a file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} cannot be read: {error}") from error
    sets = []
    for number, line in enumerate(lines, start=1):
        clips = tuple(line.split("\t")) if line.strip() else ()
        if len(clips) > CLIPS_OF_STORY or any(not clip for clip in clips):
            raise AnnotationError(
                f"{path}, line {number}: {len(clips)} fields; expected one to five clip ids parted "
                "by tabs"
            )
        if clips:
            sets.append(clips)
    return sets


def movie_of(clip_id: str) -> str:
    """The movie of an LSMDC clip: what stands before its times."""
    return clip_id.rpartition("_")[0]


def told_names(sentence: str) -> tuple[str, ...]:
    """The names between <PERSON> and </PERSON>, in their order."""
    return tuple(_MENTION.findall(sentence))


def with_someone(sentence: str, word: str = SOMEONE) -> str:
    """The sentence with that word in the place of each <PERSON>NAME</PERSON>."""
    return _MENTION.sub(lambda _: word, sentence)


def linked(mention: str, annotated: Iterable[str]) -> str | None:
    """The first annotated character whose name contains the mention, in any case of letters; None
    if there is none. This is how the code of CiSIN links sentences and tracks of M-VAD Names."""
    wanted = mention.lower()
    return next((name for name in annotated if wanted in name.lower()), None)


def read_stories(lsmdc: Path, mvad_names: Path, split: str) -> list[Story]:
    """The stories of a split from the two folders that tell about the same clips."""
    base = f"LSMDC16_annos_{LSMDC_SPLITS[split]}"
    told = _by_clip(lsmdc / "task1" / f"{base}_someone.csv", ANNOTATION_COLUMNS)
    blanked = _by_clip(lsmdc / "task2" / f"{base}_blank.csv", ANNOTATION_COLUMNS)
    ids = _by_clip(lsmdc / "task2" / f"{base}_onlyIDs.csv", ID_COLUMNS)
    mentions = {
        clip_id: (movie, clip, told_names(sentence))
        for movie, clip, clip_id, sentence in read_strict(
            mvad_names / "captions.csv", MENTION_COLUMNS
        )
    }
    tracks = read_tracks(mvad_names / "mvad-names.json")
    genders = read_genders(mvad_names / "characters.csv")

    def line(clip_id: str) -> StoryLine:
        movie, clip, names = mentions[clip_id]
        seen = tracks[movie, clip]
        return StoryLine(
            clip_id, told[clip_id], blanked[clip_id], split_ids(ids[clip_id]), names, seen,
            tuple(linked(name, (track.character for track in seen)) for name in names),
        )  # fmt: skip

    stories = []
    for clip_ids in read_sets(lsmdc / f"{split}Sets.csv"):
        movie = movie_of(clip_ids[0])
        try:
            lines = tuple(line(clip_id) for clip_id in clip_ids)
            stories.append(Story(movie, split, lines, genders[movie]))
        except KeyError as error:
            raise AnnotationError(
                f"{lsmdc} and {mvad_names} do not tell about the same clips: "
                f"{error.args[0]!r} is not in all of their files"
            ) from error
    return stories


def split_ids(text: str) -> tuple[str, ...]:
    """The ids of a row of an onlyIDs file."""
    return () if text == NO_IDS else tuple(text.split(","))


def read_genders(path: Path) -> dict[str, dict[str, str]]:
    """Movie -> character -> "F" or "M"; what is neither is left out."""
    genders: dict[str, dict[str, str]] = {}
    for movie, name, gender in read_strict(path, CHARACTER_COLUMNS[:3]):
        of_movie = genders.setdefault(movie, {})
        if gender in ("F", "M"):
            of_movie[name] = gender
    return genders


def read_tracks(path: Path) -> dict[tuple[str, str], tuple[Track, ...]]:
    """The tracks of each clip: (movie, "DVSn") -> tracks, by character."""
    movies = read_plain_pickle(path) if path.suffix == ".pkl" else read_json_object(path)
    if not isinstance(movies, dict):
        raise AnnotationError(f"{path} holds a {type(movies).__name__}; expected a dict of movies")
    found = {}
    for movie, entry in movies.items():
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
