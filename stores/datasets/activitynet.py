"""ActivityNet Captions: sentences for the events of 15 k videos (Krishna et al., ICCV 2017).

ROOT, or ROOT/captions, holds train.json, val_1.json and val_2.json, as published or compressed by
gzip (.json.gz). val_1 and val_2 are two annotations of almost the same videos. The videos lie
anywhere below ROOT as v_ID.mp4, or as ID.mp4, with any extension of media. What is said in the
events is read from train_meta.csv, val_1_meta.csv and val_2_meta.csv beside them, if they are there
(`_event_speech.py`).
"""

import gzip
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from vlpipe.stores.datasets._captions import DenseCaptions
from vlpipe.stores.datasets._event_speech import with_speech
from vlpipe.stores.datasets._ids import id_problem, shown_id
from vlpipe.stores.datasets._media_files import same_file, walk_media
from vlpipe.stores.datasets._registry import (
    Dataset,
    DatasetCheck,
    TableCheck,
    Video,
    register_dataset,
)
from vlpipe.stores.errors import AnnotationError, UsageError

_MAX_BYTES = 256 << 20  # the largest published file has 12 MB
_FOLDERS = ("", "captions")
_OF_SPLIT = {"train": ("train",), "val": ("val_1", "val_2")}
_PREFIX = "v_"
_EXPECTED = "duration, timestamps [[start, end], ...] and as many sentences for each video"

_Seconds = Annotated[float, Field(allow_inf_nan=False)]


class _Entry(BaseModel):
    """What a file says of one video."""

    duration: _Seconds
    timestamps: list[tuple[_Seconds, _Seconds]]
    sentences: list[str]


_ENTRIES = TypeAdapter(dict[str, _Entry])


@register_dataset("activitynet")
class ActivityNetDataset(Dataset):
    """A copy of ActivityNet Captions; the ids are those of the files, v_ and eleven characters."""

    description = "ActivityNet Captions: 72 k sentences for events of 15 k videos."
    homepage = "https://cs.stanford.edu/people/ranjaykrishna/densevid/"
    terms = "the videos: YouTube's terms; the dead ones on request from ActivityNet's authors"
    splits = ("train", "val")
    caption_splits: ClassVar[tuple[str, ...]] = ("train", "val_1", "val_2")
    published_rows: ClassVar[dict[str, tuple[int, ...]]] = {
        "train": (10_009,), "val_1": (4_917,), "val_2": (4_885,)
    }  # fmt: skip

    def captions(self, split: str) -> list[DenseCaptions]:
        """The videos of train, val_1 or val_2 with their events, in the order of the file.

        A few events are as long as nothing or end after their video; they are given as they are.
        Raises AnnotationError if the file is not there or not of the published form.
        """
        if split not in self.caption_splits:
            raise UsageError(
                f"the captions of dataset {self.name!r} have no split {split!r}; they have: "
                f"{', '.join(self.caption_splits)}"
            )
        path = self._table(split)
        if path is None:
            raise AnnotationError(
                f"{split}.json is not in {self.root} nor in its folder captions/",
                hint=f"captions.zip of {self.homepage} holds it",
            )
        speech = path.parent / f"{split}_meta.csv"
        return with_speech(_read(path), speech) if speech.is_file() else _read(path)

    def videos(self, split: str | None = None) -> list[Video]:
        """The videos that the files of the split name, in their order, each once.

        A file that is not there is left out; an error if none is.
        """
        self._require_split(split)
        self.left_out = ()
        splits = [name for name in _OF_SPLIT if split in (None, name)]
        files = [(s, file) for s in splits for file in _OF_SPLIT[s] if self._table(file)]
        if not files:
            self.captions(_OF_SPLIT[splits[0]][0])  # says what is missing
        named: dict[str, str] = {}
        for of_split, file in files:
            for video in self.captions(file):
                named.setdefault(video.video_id, of_split)
        media = self._media()
        return [_video(name, of_split, media.get(name, [])) for name, of_split in named.items()]

    def check(self) -> DatasetCheck:
        tables: list[TableCheck] = []
        named: dict[str, str] = {}
        for split, files in _OF_SPLIT.items():
            for file in files:
                path, rows, problem = self._table(file), None, None
                if path is not None:
                    try:
                        found = _read(path)
                        rows = len(found)
                        named |= {video.video_id: split for video in found}
                    except AnnotationError as error:
                        problem = str(error)
                published = self.published_rows[file]
                tables.append(TableCheck(f"{file}.json", path, rows, published, problem=problem))
        media = self._media()
        videos = [_video(name, split, media.get(name, [])) for name, split in named.items()]
        return DatasetCheck.of_media(self, tables, videos, media)

    def _table(self, name: str) -> Path | None:
        paths = (
            self.root / folder / f"{name}{suffix}"
            for folder in _FOLDERS
            for suffix in (".json", ".json.gz")
        )
        return next((path for path in paths if path.is_file()), None)

    def _media(self) -> dict[str, list[Path]]:
        """Media below the root by the id of the video."""
        media, unlisted = dict[str, list[Path]](), list[str]()
        for path in walk_media(self.root, unlisted):
            name = path.stem if path.stem.startswith(_PREFIX) else _PREFIX + path.stem
            media.setdefault(name, []).append(path)
        self.left_out += tuple(unlisted)
        return media


def _read(path: Path) -> list[DenseCaptions]:
    try:
        with path.open("rb") as plain, ExitStack() as stack:
            is_packed = path.suffix == ".gz"
            file = stack.enter_context(gzip.open(plain)) if is_packed else plain
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise AnnotationError(f"{path} has more than {_MAX_BYTES:,} bytes")
        entries = _ENTRIES.validate_json(data.removeprefix(b"\xef\xbb\xbf"), strict=True)
    except (OSError, EOFError, zlib.error) as error:
        raise AnnotationError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ", ".join(shown_id(str(part)) for part in first["loc"]) or "the file"
        raise AnnotationError(f"{path}, {where}: {first['msg']}; expected {_EXPECTED}") from error
    found = []
    for name, entry in entries.items():
        if len(entry.timestamps) != len(entry.sentences):
            raise AnnotationError(
                f"{path}, video {shown_id(name)}: {len(entry.timestamps)} timestamps and "
                f"{len(entry.sentences)} sentences; expected {_EXPECTED}"
            )
        found.append(
            DenseCaptions(name, entry.duration, tuple(entry.timestamps), tuple(entry.sentences))
        )
    return found


def _video(name: str, split: str, paths: list[Path]) -> Video:
    reason = id_problem(name)
    if reason is not None:
        return Video(shown_id(name), None, split, f"{reason}, in the caption files", "bad_id")
    present = [path for path in paths if path.exists()]
    if len(present) > 1 and not same_file(present):
        named = " and ".join(str(path) for path in present)
        reason = f"{len(present)} files have the id {name!r}: {named}; keep one of them"
        return Video(name, None, split, reason, "duplicate_id")
    return Video(name, present[0] if present else None, split)
