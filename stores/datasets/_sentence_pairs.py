"""Datasets of sentences about whole videos, whose ids are the names of the media files."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from vlpipe.stores.datasets._captions import SentenceBlank, SentenceChoice, SentencePair
from vlpipe.stores.datasets._named_clips import media_below, named_clip
from vlpipe.stores.datasets._registry import Dataset, DatasetCheck, TableCheck, Video
from vlpipe.stores.errors import AnnotationError, UsageError

Row = SentencePair | SentenceChoice | SentenceBlank
_Row = TypeVar("_Row", SentencePair, SentenceChoice, SentenceBlank)


@dataclass(frozen=True, slots=True)
class SentenceTable:
    """A file of one split. is_required: a copy without it is not complete."""

    name: str
    split: str
    read: Callable[[Path], Sequence[Row]]
    published_rows: tuple[int, ...] = ()
    """See `TableCheck`."""

    is_required: bool = False


class SentencePairDataset(Dataset):
    """The tables in ROOT, the media anywhere below it under their ids.

    Those for choices and blanks may be absent; who asks for their rows is told which file it is.
    """

    pair_splits: ClassVar[tuple[str, ...]]
    choice_splits: ClassVar[tuple[str, ...]] = ()
    blank_splits: ClassVar[tuple[str, ...]] = ()
    first_choice: ClassVar[int] = 0
    """The number of the first of the sentences to choose among in the benchmark's own files."""

    @abstractmethod
    def tables(self) -> Sequence[SentenceTable]:
        """All files of all tasks."""

    @abstractmethod
    def pairs_of(self, split: str) -> list[SentencePair]:
        """The sentences of one of pair_splits."""

    @abstractmethod
    def choices_of(self, split: str) -> list[SentenceChoice]:
        """The rows of one of choice_splits."""

    @abstractmethod
    def blanks_of(self, split: str) -> list[SentenceBlank]:
        """The rows of one of blank_splits."""

    def sentence_pairs(self, split: str) -> list[SentencePair]:
        """Sentences and the video that each tells about, in the order of the files."""
        self._require_one_of(self.pair_splits, split, "sentences")
        return self.pairs_of(split)

    def descriptions(self, split: str) -> list[SentencePair]:
        """The same for describing clips, of which some datasets test more than of retrieval."""
        return self.sentence_pairs(split)

    def sentence_choices(self, split: str) -> list[SentenceChoice]:
        """Five sentences for each video, one of which tells about it, in the order of the files."""
        self._require_one_of(self.choice_splits, split, "choices among sentences")
        return self.choices_of(split)

    def sentence_blanks(self, split: str) -> list[SentenceBlank]:
        """Sentences that lack a word, in the order of the files."""
        self._require_one_of(self.blank_splits, split, "sentences with blanks")
        return self.blanks_of(split)

    def read(self, name: str, kind: type[_Row]) -> list[_Row]:
        """The rows of a table; an AnnotationError if it is absent or malformed."""
        (table,) = (table for table in self.tables() if table.name == name)
        path = self.root / name
        if not path.is_file():
            raise AnnotationError(
                f"{name} is not in {self.root}",
                hint=f"vlpipe datasets check {self.name} --root {self.root}",
            )
        return [row for row in table.read(path) if isinstance(row, kind)]

    def videos(self, split: str | None = None) -> list[Video]:
        """All videos that the rows of the split name, in the order of their first one."""
        self._require_split(split)
        self.left_out = ()
        media = media_below(self)
        splits = self.splits if split is None else (split,)
        named: dict[str, str] = {}
        for name in (name for name in splits if name in self.pair_splits):
            for pair in self.sentence_pairs(name):
                named.setdefault(pair.video_id, name)
        for table in self.tables():
            path = self.root / table.name
            if not table.is_required and table.split in splits and path.is_file():
                for row in table.read(path):
                    named.setdefault(row.video_id, table.split)
        return [named_clip(video_id, of_split, media) for video_id, of_split in named.items()]

    def check(self) -> DatasetCheck:
        tables = [self._checked(table) for table in self.tables()]
        is_readable = all(
            table.problem is None and (table.path is not None or not table.is_required)
            for table in tables
        )
        videos = self.videos() if is_readable else []
        media = media_below(self)
        return DatasetCheck.of_media(self, tables, videos, media)

    def _checked(self, table: SentenceTable) -> TableCheck:
        path, published = self.root / table.name, table.published_rows
        if not path.is_file():
            return TableCheck(table.name, None, None, published, table.is_required)
        try:
            rows = len(table.read(path))
        except AnnotationError as error:
            return TableCheck(
                table.name, path, None, published, table.is_required, problem=str(error)
            )
        return TableCheck(table.name, path, rows, published, table.is_required)

    def _require_one_of(self, splits: tuple[str, ...], split: str, what: str) -> None:
        if split not in splits:
            known = ", ".join(splits) or "none"
            raise UsageError(
                f"the {what} of dataset {self.name!r} have no split {split!r}; they have: {known}"
            )
