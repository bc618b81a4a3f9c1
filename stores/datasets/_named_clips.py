"""Datasets whose tables lie in ROOT, and whose media lie anywhere below it under their ids."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import ClassVar

from vlpipe.stores.datasets._ids import id_problem
from vlpipe.stores.datasets._media_files import same_file, walk_media
from vlpipe.stores.datasets._registry import Dataset, DatasetCheck, TableCheck, Video
from vlpipe.stores.errors import AnnotationError


class NamedClipsDataset(Dataset):
    """A subclass says which tables there are, and which ids a split has."""

    published_rows: ClassVar[Mapping[str, tuple[int, ...]]]
    """By the table's name; see `TableCheck`."""

    optional_tables: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def table_names(self) -> Sequence[str]:
        """All tables by the names that `read` takes."""

    @abstractmethod
    def read(self, name: str) -> Sized:
        """The rows of a table; an AnnotationError if it is absent or malformed."""

    @abstractmethod
    def ids_of(self, split: str) -> Iterable[str]:
        """The ids of a split's media, in the order of its tables; they may repeat."""

    def media(self) -> dict[str, list[Path]]:
        """The media files by the ids that they may belong to; two for one id are a problem."""
        return media_below(self)

    def table_path(self, name: str) -> Path | None:
        """The file of a table; None if it is absent."""
        path = self.root / name
        return path if path.is_file() else None

    def require(self, name: str) -> Path:
        """The file of a table; an AnnotationError if it is absent."""
        path = self.table_path(name)
        if path is None:
            raise AnnotationError(
                f"{name} is not in {self.root}",
                hint=f"vlpipe datasets check {self.name} --root {self.root}",
            )
        return path

    def videos(self, split: str | None = None) -> list[Video]:
        """All videos of the split's tables, in the order in which they are named first."""
        self._require_split(split)
        self.left_out = ()
        media = self.media()
        splits = self.splits if split is None else (split,)
        named: dict[str, str] = {}
        for name in splits:
            for video_id in self.ids_of(name):
                named.setdefault(video_id, name)
        return [named_clip(video_id, of_split, media) for video_id, of_split in named.items()]

    def check(self) -> DatasetCheck:
        tables = [self._checked(name) for name in self.table_names()]
        is_readable = all(
            table.problem is None and (table.path is not None or not table.is_required)
            for table in tables
        )
        videos = self.videos() if is_readable else []
        return DatasetCheck.of_media(self, tables, videos, self.media())

    def _checked(self, name: str) -> TableCheck:
        path, published = self.table_path(name), self.published_rows.get(name, ())
        is_required = name not in self.optional_tables
        if path is None:
            return TableCheck(name, None, None, published, is_required)
        try:
            return TableCheck(name, path, len(self.read(name)), published, is_required)
        except AnnotationError as error:
            return TableCheck(name, path, None, published, is_required, problem=str(error))


def media_below(dataset: Dataset) -> dict[str, list[Path]]:
    """The media files below the dataset's root by their names; folders that cannot be listed are
    added to `left_out`."""
    media, unlisted = dict[str, list[Path]](), list[str]()
    for path in walk_media(dataset.root, unlisted):
        media.setdefault(path.stem, []).append(path)
    dataset.left_out += tuple(line for line in unlisted if line not in dataset.left_out)
    return media


def named_clip(video_id: str, split: str, media: Mapping[str, Sequence[Path]]) -> Video:
    """The video that a table names, with its file if there is one."""
    problem = id_problem(video_id)
    if problem is not None:
        return Video(video_id, None, split, problem, "bad_id")
    present = [path for path in media.get(video_id, []) if path.exists()]
    if len(present) > 1 and not same_file(present):
        named = " and ".join(str(path) for path in present)
        reason = f"{len(present)} files have the id {video_id!r}: {named}; keep one of them"
        return Video(video_id, None, split, reason, "duplicate_id")
    return Video(video_id, present[0] if present else None, split)
