"""LSMDC 2019, task 2: five consecutive clips of a movie, in whose sentences people are blanks.

ROOT holds, alone or in a folder task2, LSMDC16_annos_{training,val,test}_blank.csv (tab-separated,
no header: CLIP_ID, four times, the sentence with [...] for every person) and, but for the test,
LSMDC16_annos_*_onlyIDs.csv or *_onlyIDs_NEW.csv (CLIP_ID and its people's ids parted by commas, "_"
if there are none). The clips lie anywhere below ROOT as CLIP_ID.avi.

The ids of the test are on a server: its split is called `blind`, and predictions are made for it.
Sets are {train,val,blind}Sets.csv where there are any; else five rows of a movie after one another,
which is what the published valSets.csv holds.
"""

from collections.abc import Iterable, Mapping, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import ClassVar

from vlpipe.stores.datasets._named_clips import NamedClipsDataset
from vlpipe.stores.datasets._registry import register_dataset
from vlpipe.stores.datasets._stories import (
    ANNOTATION_COLUMNS,
    BLANK,
    CLIPS_OF_STORY,
    ID_COLUMNS,
    SOMEONE,
    Story,
    StoryLine,
    movie_of,
    read_sets,
    split_ids,
)
from vlpipe.stores.datasets._tables import read_strict
from vlpipe.stores.errors import AnnotationError

_WORDS = {"train": "training", "val": "val", "blind": "test"}  # in file names
_PUBLISHED = {"train": 101_079, "val": 7_408, "blind": 10_053}


def _blanked(split: str) -> str:
    return f"LSMDC16_annos_{_WORDS[split]}_blank.csv"


def _ids(split: str) -> str:
    return f"LSMDC16_annos_{_WORDS[split]}_onlyIDs.csv"


@register_dataset("lsmdc-2019")
class Lsmdc2019Dataset(NamedClipsDataset):
    """A copy of the second task; ids of people are those of their movie."""

    description = "LSMDC 2019: who is who in sets of five movie clips and their sentences."
    homepage = "https://sites.google.com/site/describingmovies/lsmdc-2019"
    terms = "agreement with MPI Informatics; no redistribution"
    splits = ("train", "val", "blind")
    story_splits: ClassVar[tuple[str, ...]] = ("train", "val", "blind")
    drops_silent_sets: ClassVar[bool] = False
    """The script of the challenge wants a row for every clip."""

    published_rows: ClassVar[Mapping[str, tuple[int, ...]]] = {
        name(split): (count,) for split, count in _PUBLISHED.items() for name in (_blanked, _ids)
    }
    optional_tables: ClassVar[frozenset[str]] = frozenset(
        (_blanked("blind"), *(f"{split}Sets.csv" for split in _WORDS))
    )

    def table_names(self) -> Sequence[str]:
        return [
            *(_blanked(split) for split in _WORDS),
            *(_ids(split) for split in _WORDS if split != "blind"),
            *(f"{split}Sets.csv" for split in _WORDS),
        ]

    def table_path(self, name: str) -> Path | None:
        names = (name, name.replace("_onlyIDs.", "_onlyIDs_NEW."))
        paths = [self.root / folder / own for folder in ("", "task2") for own in names]
        return next((path for path in paths if path.is_file()), None)

    def read(self, name: str) -> Sized:
        path = self.require(name)
        if name.endswith("Sets.csv"):
            return read_sets(path)
        return read_strict(
            path, ID_COLUMNS if "onlyIDs" in name else ANNOTATION_COLUMNS, has_header=False
        )

    def ids_of(self, split: str) -> Iterable[str]:
        if self.table_path(_blanked(split)) is None and split == "blind":
            return ()
        return (row[0] for row in self._rows(_blanked(split), ANNOTATION_COLUMNS))

    def stories(self, split: str) -> list[Story]:
        """The sets of a split in the order of its files; of `blind`, which may be absent, nobody is
        known."""
        self._require_split(split)
        if split == "blind" and self.table_path(_blanked(split)) is None:
            return []
        told = self._rows(_blanked(split), ANNOTATION_COLUMNS)
        known: list[tuple[str, ...] | None] = [None] * len(told)
        if split != "blind":
            rows = self._rows(_ids(split), ID_COLUMNS)
            if [row[0] for row in rows] != [row[0] for row in told]:
                raise AnnotationError(
                    f"{_ids(split)} and {_blanked(split)} do not have the same clips in one order"
                )
            known = [split_ids(row[1]) for row in rows]
        lines = [
            _line(_blanked(split), clip_id, sentence, ids)
            for (clip_id, *_, sentence), ids in zip(told, known, strict=True)
        ]
        return [
            Story(movie_of(part[0].video_id), split, tuple(part), {})
            for part in self._parts(split, lines)
        ]

    def _rows(self, name: str, columns: Sequence[str]) -> list[tuple[str, ...]]:
        return read_strict(self.require(name), columns, has_header=False)

    def _parts(self, split: str, lines: list[StoryLine]) -> list[list[StoryLine]]:
        path = self.table_path(f"{split}Sets.csv")
        if path is None:
            return in_fives(lines)
        sets = read_sets(path)
        if [clip for clips in sets for clip in clips] != [line.video_id for line in lines]:
            raise AnnotationError(
                f"{path} and {_blanked(split)} do not have the same clips in one order",
                hint=f"without {path.name} five rows of a movie make a set",
            )
        rest = iter(lines)
        return [list(islice(rest, len(clips))) for clips in sets]


def in_fives(lines: Iterable[StoryLine]) -> list[list[StoryLine]]:
    """Five lines of a movie after one another, fewer at its end."""
    parts: list[list[StoryLine]] = []
    for line in lines:
        is_new = not parts or len(parts[-1]) == CLIPS_OF_STORY
        if is_new or movie_of(parts[-1][0].video_id) != movie_of(line.video_id):
            parts.append([])
        parts[-1].append(line)
    return parts


def _line(table: str, clip_id: str, sentence: str, ids: tuple[str, ...] | None) -> StoryLine:
    blanks = sentence.count(BLANK)
    if ids is not None and len(ids) != blanks:
        raise AnnotationError(
            f"{table}, clip {clip_id!r}: {blanks} blanks and {len(ids)} ids; expected as many"
        )
    people: tuple[str | None, ...] = (None,) * blanks if ids is None else ids
    told = sentence.replace(BLANK, SOMEONE)
    return StoryLine(clip_id, told, sentence, ids or (), (), (), people)
