"""Charades: 157 kinds of actions at home in 9,848 videos (Sigurdsson et al., ECCV 2016).

ROOT, or ROOT/Charades as Charades.zip unpacks, holds
    Charades_v1_{train,test}.csv    commas, header, `"` quotes; read are id, script, descriptions
                                    (parted by ;), actions (`c019 11.90 21.20;...`, or nothing) and
                                    length
    Charades_v1_classes.txt         a class a line: `c000 Holding some clothes`
The videos lie anywhere below ROOT as ID.mp4. Where both Charades_v1_480 and Charades_v1 are there,
the smaller pictures of Charades_v1_480 are taken.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import ClassVar

from vlpipe.stores.datasets._actions import Action, ActionClass, ActionVideo
from vlpipe.stores.datasets._named_clips import NamedClipsDataset
from vlpipe.stores.datasets._registry import register_dataset
from vlpipe.stores.datasets._tables import read_table
from vlpipe.stores.errors import AnnotationError

_SPLITS = ("train", "test")
_TABLES = {split: f"Charades_v1_{split}.csv" for split in _SPLITS}
_CLASSES = "Charades_v1_classes.txt"
_FOLDERS = ("", "Charades")
_COLUMNS = ("id", "script", "descriptions", "actions", "length")
_SMALL, _FULL = "Charades_v1_480", "Charades_v1"
_CLASS_LINE = re.compile(r"(c\d{3}) (\S.*)")
_SHOWN_CHARS = 60


@register_dataset("charades")
class CharadesDataset(NamedClipsDataset):
    """A copy of Charades; the ids are the five characters of the tables."""

    description = "Charades: when which of 157 actions happens in 9,848 videos of homes."
    homepage = "https://prior.allenai.org/projects/charades"
    terms = "licence of the Allen Institute for AI: non-commercial; license.txt stays with the data"
    splits = _SPLITS
    action_splits: ClassVar[tuple[str, ...]] = _SPLITS
    published_rows: ClassVar[Mapping[str, tuple[int, ...]]] = {
        _TABLES["train"]: (7_985,),
        _TABLES["test"]: (1_863,),
        _CLASSES: (157,),
    }

    def table_names(self) -> Sequence[str]:
        return tuple(self.published_rows)

    def table_path(self, name: str) -> Path | None:
        paths = (self.root / folder / name for folder in _FOLDERS)
        return next((path for path in paths if path.is_file()), None)

    def read(self, name: str) -> Sized:
        if name == _CLASSES:
            return self.action_classes()
        return self._rows(name)

    def ids_of(self, split: str) -> Iterable[str]:
        return (row.video_id for row in self._rows(_TABLES[split]))

    def action_classes(self) -> tuple[ActionClass, ...]:
        """All classes; an action's `place` is one of this list.

        Raises AnnotationError where the file is absent, or its codes are not c000, c001, ...
        """
        return _read_classes(self.require(_CLASSES))

    def actions(self, split: str) -> list[ActionVideo]:
        """The videos of a split with their actions, in the order of its table.

        Raises AnnotationError for an absent or malformed table, with row and column.
        """
        self._require_split(split)
        return self._rows(_TABLES[split])

    def media(self) -> dict[str, list[Path]]:
        """As of every dataset; of a video that is there in both sizes the small one alone."""
        found = super().media()
        for video_id, paths in found.items():
            folders = {path: set(path.relative_to(self.root).parts) for path in paths}
            full = [path for path in paths if folders[path] & {_SMALL, _FULL} == {_FULL}]
            if any(_SMALL in folders[path] for path in paths):
                found[video_id] = [path for path in paths if path not in full]
        return found

    def _rows(self, name: str) -> list[ActionVideo]:
        places = {known.code: place for place, known in enumerate(self.action_classes())}
        return _read_videos(self.require(name), places)


def _read_classes(path: Path) -> tuple[ActionClass, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} cannot be read: {error}") from error
    classes: list[ActionClass] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = _CLASS_LINE.fullmatch(line.strip())
        expected = f"c{len(classes):03d}"
        if found is None or found[1] != expected:
            raise AnnotationError(
                f"{path}, line {number}: {_shown(line)}; expected {expected} and its name",
                hint="a class's place is its code: take the publisher's file unchanged",
            )
        classes.append(ActionClass(found[1], found[2]))
    if not classes:
        raise AnnotationError(f"{path} names no classes; expected a line for each: c000 NAME")
    return tuple(classes)


def _read_videos(path: Path, places: Mapping[str, int]) -> list[ActionVideo]:
    videos: dict[str, ActionVideo] = {}
    for row in read_table(path, _COLUMNS, delimiter=","):
        if row.problem is not None:
            raise AnnotationError(str(row.problem))
        where = f"{path}, line {row.line}"
        video_id, script, descriptions, actions, length = row.values
        if video_id in videos:
            raise AnnotationError(f"{where}, column id: {_shown(video_id)} is named before")
        videos[video_id] = ActionVideo(
            video_id,
            _read_actions(f"{where}, column actions", actions, places),
            script,
            tuple(text.strip() for text in descriptions.split(";") if text.strip()),
            _seconds(f"{where}, column length", length) if length.strip() else None,
        )
    return list(videos.values())


def _read_actions(where: str, text: str, places: Mapping[str, int]) -> tuple[Action, ...]:
    actions = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        words = part.split(" ")
        if len(words) != 3:
            raise AnnotationError(f"{where}: {_shown(part)}; expected CLASS START END, with blanks")
        code, *times = words
        if code not in places:
            raise AnnotationError(
                f"{where}: {_shown(code)} is none of the {len(places)} classes of {_CLASSES}"
            )
        start_s, end_s = (_seconds(where, time) for time in times)
        actions.append(Action(places[code], start_s, end_s))
    return tuple(actions)


def _seconds(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise AnnotationError(f"{where}: {_shown(text)}; expected seconds, 0 or more")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "...")
