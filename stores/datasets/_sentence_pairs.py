"""Datasets of sentences about whole videos, whose ids are the names of the media files."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from vlpipe.stores.datasets._captions import SentencePair
from vlpipe.stores.datasets._ids import id_problem
from vlpipe.stores.datasets._media_files import same_file, walk_media
from vlpipe.stores.datasets._registry import Dataset, DatasetCheck, TableCheck, Video
from vlpipe.stores.errors import AnnotationError, UsageError


class SentencePairDataset(Dataset):
    """The tables in ROOT, the media anywhere below it under their ids."""

    pair_splits: ClassVar[tuple[str, ...]]
    published_rows: ClassVar[Mapping[str, tuple[int, ...]]]
    """By the table's file name; see `TableCheck`."""

    @abstractmethod
    def tables(self) -> Mapping[str, Callable[[Path], Sequence[SentencePair]]]:
        """How each table is read, by its file name."""

    @abstractmethod
    def pairs_of(self, split: str) -> list[SentencePair]:
        """The sentences of one of pair_splits."""

    def sentence_pairs(self, split: str) -> list[SentencePair]:
        """Sentences and the video that each tells about, in the order of the files."""
        if split not in self.pair_splits:
            raise UsageError(
                f"the sentences of dataset {self.name!r} have no split {split!r}; "
                f"they have: {', '.join(self.pair_splits)}"
            )
        return self.pairs_of(split)

    def read(self, name: str) -> Sequence[SentencePair]:
        """The rows of a table; an AnnotationError if it is absent or malformed."""
        path = self.root / name
        if not path.is_file():
            raise AnnotationError(
                f"{name} is not in {self.root}",
                hint=f"vlpipe datasets check {self.name} --root {self.root}",
            )
        return self.tables()[name](path)

    def videos(self, split: str | None = None) -> list[Video]:
        """All videos of the split's sentences, in the order of their first one."""
        self._require_split(split)
        self.left_out = ()
        media = self._media()
        splits = self.splits if split is None else (split,)
        named: dict[str, str] = {}
        for name in splits:
            for pair in self.sentence_pairs(name):
                named.setdefault(pair.video_id, name)
        return [_video(video_id, of_split, media) for video_id, of_split in named.items()]

    def check(self) -> DatasetCheck:
        tables = [self._checked(name) for name in self.tables()]
        is_readable = all(table.path is not None and table.problem is None for table in tables)
        videos = self.videos() if is_readable else []
        media = self._media()
        return DatasetCheck.of_media(self, tables, videos, media)

    def _checked(self, name: str) -> TableCheck:
        path, published = self.root / name, self.published_rows[name]
        if not path.is_file():
            return TableCheck(name, None, None, published)
        try:
            return TableCheck(name, path, len(self.read(name)), published)
        except AnnotationError as error:
            return TableCheck(name, path, None, published, problem=str(error))

    def _media(self) -> dict[str, list[Path]]:
        media, unlisted = dict[str, list[Path]](), list[str]()
        for path in walk_media(self.root, unlisted):
            media.setdefault(path.stem, []).append(path)
        self.left_out += tuple(line for line in unlisted if line not in self.left_out)
        return media


def _video(video_id: str, split: str, media: dict[str, list[Path]]) -> Video:
    problem = id_problem(video_id)
    if problem is not None:
        return Video(video_id, None, split, problem, "bad_id")
    present = [path for path in media.get(video_id, []) if path.exists()]
    if len(present) > 1 and not same_file(present):
        named = " and ".join(str(path) for path in present)
        reason = f"{len(present)} files have the id {video_id!r}: {named}; keep one of them"
        return Video(video_id, None, split, reason, "duplicate_id")
    return Video(video_id, present[0] if present else None, split)
