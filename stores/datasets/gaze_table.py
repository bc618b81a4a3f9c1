"""Gaze of people who watched clips, in a table of vlpipe's own form: VAS, Hollywood2 EM, others.

ROOT holds two tables, and the clips anywhere below it under their ids:

    gaze.parquet or gaze.tsv    dataset, clip, subject, time_s, x, y, valid: see `_gaze.py`
    clips.tsv                   dataset, clip, width, height, split: train, val or test

Recordings in pixels of a screen have to be brought to pixels of the clip first: borders that the
player added and its scale taken off.

Clips of the dataset `vas` may do without a split: of these, sorted by name and shuffled by
RandomState(0), the first 60 % are for training, as in the public code of GEAN's gaze network.
"""

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from vlpipe.stores.datasets._gaze import (
    ClipRow,
    GazeClip,
    GazeRows,
    gaze_of_clips,
    read_clips,
    read_gaze,
)
from vlpipe.stores.datasets._named_clips import NamedClipsDataset
from vlpipe.stores.datasets._registry import register_dataset
from vlpipe.stores.errors import AnnotationError

_GAZE, _CLIPS = "gaze", "clips.tsv"
_GAZE_FILES = ("gaze.parquet", "gaze.tsv")
_SPLITS = ("train", "val", "test")
_DRAWN = "vas"
_TRAIN_SHARE = 0.6


@register_dataset("gaze-table")
class GazeTableDataset(NamedClipsDataset):
    """Recordings of one or several datasets; the ids are the clips of the tables."""

    description = "Gaze recordings of clips in vlpipe's own table (VAS, Hollywood2 EM, yours)."
    homepage = "your own recordings; Hollywood2 EM: https://vision.imar.ro/eyetracking"
    terms = "those of the recordings and of the clips; Hollywood2 EM: research, on request"
    splits = _SPLITS
    published_rows: ClassVar[Mapping[str, tuple[int, ...]]] = {}

    def table_names(self) -> Sequence[str]:
        return [_CLIPS, _GAZE]

    def table_path(self, name: str) -> Path | None:
        """The file of a table; None if it is absent. AnnotationError where both forms of the gaze
        lie side by side."""
        names = _GAZE_FILES if name == _GAZE else (name,)
        found = [path for own in names if (path := self.root / own).is_file()]
        if len(found) > 1:
            raise AnnotationError(
                f"{self.root} holds both {found[0].name} and {found[1].name}; expected one of them",
                hint="move one of them away: they may tell different things",
            )
        return found[0] if found else None

    def read(self, name: str) -> Sized:
        if name == _CLIPS:
            return self._clips
        _ = self._gaze  # raises for rows about clips that are not known
        return self._rows

    def ids_of(self, split: str) -> Iterable[str]:
        return (clip.video_id for clip in self._clips if clip.split == split)

    @property
    def gaze_splits(self) -> tuple[str, ...]:
        """The splits that clips have."""
        present = {clip.split for clip in self._clips}
        return tuple(split for split in _SPLITS if split in present)

    def gaze_clips(self, split: str) -> list[GazeClip]:
        """The clips of a split with their recordings, in the order of the table of clips; a clip
        without any sample on its frame is not among them."""
        self._require_split(split)
        return [clip for clip in self._gaze.values() if clip.split == split]

    @cached_property
    def _rows(self) -> GazeRows:
        path = self.table_path(_GAZE)
        if path is None:
            raise AnnotationError(
                f"neither {' nor '.join(_GAZE_FILES)} is in {self.root}",
                hint="docs/gaze.md describes the table",
            )
        return read_gaze(path)

    @cached_property
    def _gaze(self) -> dict[str, GazeClip]:
        return gaze_of_clips(self._rows, self._clips, self.require(_CLIPS))

    @cached_property
    def _clips(self) -> list[ClipRow]:
        path = self.require(_CLIPS)
        clips = read_clips(path)
        of_vas = [clip for clip in clips if clip.dataset.lower() == _DRAWN]
        is_drawn = bool(of_vas) and not any(clip.split for clip in of_vas)
        drawn = split_of_vas([clip.video_id for clip in of_vas]) if is_drawn else {}
        clips = [replace(clip, split=drawn.get(clip.video_id, clip.split)) for clip in clips]
        for clip in clips:
            if clip.split not in _SPLITS:
                raise AnnotationError(
                    f"{path}, line {clip.line}, column split: found {clip.split!r}; expected "
                    f"{', '.join(_SPLITS)}",
                    hint=f"only the clips of dataset {_DRAWN!r}, and all of them together, may do "
                    "without a split",
                )
        return clips


def split_of_vas(names: Iterable[str]) -> dict[str, str]:
    """Clip -> `train` or `test`: 60 % and 40 %, drawn over the sorted names by RandomState(0), so
    that 144 clips are 86 and 58."""
    import numpy as np

    order = sorted(names)
    # The generator of the public code, whose draws never change.
    np.random.RandomState(0).shuffle(order)
    num_train = int(_TRAIN_SHARE * len(order))
    return {name: "train" if n < num_train else "test" for n, name in enumerate(order)}
