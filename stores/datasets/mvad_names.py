"""M-VAD Names: which character each track and each mention of a movie clip is.

ROOT holds these tables, and the clips of M-VAD anywhere below it:

    mvad-names.pkl      of the release, or the same as mvad-names.json: {MOVIE: {"videos": {"DVSn":
                        {NAME: tracks}}}}, a track is a list of (frame, x_min, y_min, x_max, y_max)
    captions.csv        tab-separated, header movie, clip, clip_id, sentence: MOVIE, DVSn, the name
                        of the media file, and its sentence with <PERSON>NAME</PERSON>
    {train,val,test}.txt    the clips of a split, one a line, as MOVIE_DVSn or by clip_id
    characters.csv      optional: tab-separated, header movie, name, gender ("F", "M" or else)

Clips of a movie and split make sets of five in the order of their numbers; what is left over at the
end is dropped. A mention belongs to the first character with tracks in the clip whose name contains
it.
"""

from collections.abc import Iterable, Mapping, Sequence, Sized
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from vlpipe.stores.datasets._named_clips import NamedClipsDataset
from vlpipe.stores.datasets._registry import register_dataset
from vlpipe.stores.datasets._stories import (
    BLANK,
    CLIPS_OF_STORY,
    MENTION_COLUMNS,
    SOMEONE,
    Story,
    StoryLine,
    Track,
    linked,
    read_genders,
    read_tracks,
    told_names,
    with_someone,
)
from vlpipe.stores.datasets._tables import read_strict
from vlpipe.stores.errors import AnnotationError

_TRACKS, _CAPTIONS, _CHARACTERS = "mvad-names.pkl", "captions.csv", "characters.csv"
_SPLITS = ("train", "val", "test")


@register_dataset("mvad-names")
class MvadNamesDataset(NamedClipsDataset):
    """A copy of M-VAD Names with the clips of M-VAD; ids are the names of the media files."""

    description = "M-VAD Names: characters of 63 k tracks and 34 k mentions in 24 k movie clips."
    homepage = "https://github.com/aimagelab/mvad-names-dataset"
    terms = "research and education only; the clips of M-VAD on request"
    splits = _SPLITS
    story_splits: ClassVar[tuple[str, ...]] = _SPLITS
    drops_silent_sets: ClassVar[bool] = True
    """The code of CiSIN leaves sets out in which nobody is mentioned."""

    published_rows: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "train.txt": (19_023,),
        "val.txt": (2_976,),
        "test.txt": (2_836,),
    }
    optional_tables: ClassVar[frozenset[str]] = frozenset((_CHARACTERS,))

    def table_names(self) -> Sequence[str]:
        return [_TRACKS, _CAPTIONS, *(f"{split}.txt" for split in _SPLITS), _CHARACTERS]

    def table_path(self, name: str) -> Path | None:
        names = (name, "mvad-names.json") if name == _TRACKS else (name,)
        return next((p for own in names if (p := self.root / own).is_file()), None)

    def read(self, name: str) -> Sized:
        if name == _TRACKS:
            return self._tracks
        if name == _CAPTIONS:
            return read_strict(self.require(_CAPTIONS), MENTION_COLUMNS)
        if name == _CHARACTERS:
            return read_strict(self.require(name), ("movie", "name", "gender"))
        return self._clips_of(name.removesuffix(".txt"))

    def ids_of(self, split: str) -> Iterable[str]:
        return (clip_id for _, _, clip_id, _ in self._clips_of(split))

    def stories(self, split: str) -> list[Story]:
        """Sets of five clips of a movie, the movies in the order of the captions."""
        self._require_split(split)
        path = self.table_path(_CHARACTERS)
        genders = {} if path is None else read_genders(path)
        movies: dict[str, list[tuple[str, ...]]] = {}
        for row in self._clips_of(split):
            movies.setdefault(row[0], []).append(row)
        stories = []
        for movie, rows in movies.items():
            rows.sort(key=lambda row: (len(row[1]), row[1]))  # DVS9 before DVS10
            for first in range(0, len(rows) - CLIPS_OF_STORY + 1, CLIPS_OF_STORY):
                lines = tuple(self._line(row) for row in rows[first : first + CLIPS_OF_STORY])
                stories.append(Story(movie, split, lines, genders.get(movie, {})))
        return stories

    def _line(self, row: tuple[str, ...]) -> StoryLine:
        movie, clip, clip_id, sentence = row
        # Of the older captions; nobody has found out who that is.
        sentence = sentence.replace(SOMEONE, SOMEONE.lower())
        tracks = self._tracks.get((movie, clip), ())
        names = told_names(sentence)
        return StoryLine(
            clip_id, with_someone(sentence), with_someone(sentence, BLANK), (), names, tracks,
            tuple(linked(name, (track.character for track in tracks)) for name in names),
        )  # fmt: skip

    @cached_property
    def _tracks(self) -> dict[tuple[str, str], tuple[Track, ...]]:
        return read_tracks(self.require(_TRACKS))

    @cached_property
    def _told(self) -> dict[str, tuple[str, ...]]:
        """Row of the captions by clip_id and by MOVIE_DVSn."""
        found: dict[str, tuple[str, ...]] = {}
        for row in read_strict(self.require(_CAPTIONS), MENTION_COLUMNS):
            found[row[2]] = found[f"{row[0]}_{row[1]}"] = row
        return found

    def _clips_of(self, split: str) -> list[tuple[str, ...]]:
        path = self.require(f"{split}.txt")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise AnnotationError(f"{path} cannot be read: {error}") from error
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        unknown = [name for name in lines if name not in self._told]
        if unknown:
            raise AnnotationError(
                f"{path} names {len(unknown)} clips that {_CAPTIONS} has no sentence of, the first "
                f"is {unknown[0]!r}; expected MOVIE_DVSn or a clip_id of that table"
            )
        return [self._told[name] for name in lines]
