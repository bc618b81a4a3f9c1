"""What a dataset is to the pipeline, and the catalogue of those that vlpipe knows.

A dataset is one public module in this folder whose class carries `@register_dataset("name")`; it is
found by listing the folder, so that adding a dataset is adding a file. Modules that start with `_`
hold what several datasets share and are never imported by the search.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from vlpipe.stores.datasets._ids import printable
from vlpipe.stores.errors import UsageError
from vlpipe.stores.registry import Registry

DATASET_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Video:
    """One media item of a dataset.

    path is None when the annotations name the item and no such file is on disk: links of published
    datasets die, so that is a gap and not a failure. problem says why the item cannot be used at
    all; problem_kind is its short form: "duplicate_id" or "bad_id".
    """

    id: str
    path: Path | None
    split: str | None
    problem: str | None = None
    problem_kind: str | None = None


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A row of an annotation file that is not in the publisher's format."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class TableCheck:
    """One annotation file: absent (path None), unreadable (problem set), or with its row count.

    published_rows holds every row count that counts as complete; empty when none is published.
    """

    name: str
    path: Path | None
    rows: int | None
    published_rows: tuple[int, ...] = ()
    is_required: bool = True
    problem: str | None = None

    @property
    def is_complete(self) -> bool:
        if self.path is None:
            return not self.is_required
        return self.problem is None and (
            not self.published_rows or self.rows in self.published_rows
        )


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """What a copy of a dataset holds, and what it lacks.

    media_named and media_present count distinct ids; missing lists ids without a file; unnamed
    lists media below the root, relative to it, that no annotation names; unusable lists the items
    that have a problem.
    """

    dataset: str
    root: Path
    tables: tuple[TableCheck, ...]
    media_named: int
    media_present: int
    missing: tuple[str, ...]
    unnamed: tuple[str, ...]
    unusable: tuple[Video, ...]
    bad_rows: tuple[RowProblem, ...]

    @classmethod
    def of_media(
        cls,
        dataset: "Dataset",
        tables: Iterable[TableCheck],
        videos: Sequence[Video],
        media: Mapping[str, Sequence[Path]],
        bad_rows: Iterable[RowProblem] = (),
    ) -> Self:
        """The check of a copy with these videos. media: all files below the root by id."""
        named = {video.id for video in videos}
        usable = [video for video in videos if video.problem is None]
        return cls(
            dataset=dataset.name,
            root=dataset.root,
            tables=tuple(tables),
            media_named=len(videos),
            media_present=sum(video.path is not None for video in usable),
            missing=tuple(video.id for video in usable if video.path is None),
            unnamed=tuple(
                printable(path.relative_to(dataset.root).as_posix())
                for video_id, paths in media.items()
                if video_id not in named
                for path in paths
            ),
            unusable=tuple(video for video in videos if video.problem is not None),
            bad_rows=tuple(bad_rows),
        )

    @property
    def is_complete(self) -> bool:
        """True if every required table and every named file is there and nothing is malformed."""
        return (
            all(table.is_complete for table in self.tables)
            and not self.missing
            and not self.unusable
            and not self.bad_rows
        )

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values, for `--json` and reports."""
        return {
            "dataset": self.dataset,
            "root": str(self.root),
            "complete": self.is_complete,
            "tables": [
                {
                    "name": table.name,
                    "path": None if table.path is None else str(table.path),
                    "rows": table.rows,
                    "published_rows": list(table.published_rows),
                    "required": table.is_required,
                    "complete": table.is_complete,
                    "problem": table.problem,
                }
                for table in self.tables
            ],
            "media": {
                "named": self.media_named,
                "present": self.media_present,
                "missing": list(self.missing),
                "unnamed": list(self.unnamed),
            },
            "unusable": [
                {"id": video.id, "kind": video.problem_kind, "problem": video.problem}
                for video in self.unusable
            ],
            "bad_rows": [
                {"path": str(row.path), "line": row.line, "reason": row.reason}
                for row in self.bad_rows
            ],
        }


class Dataset(ABC):
    """A named source of videos and annotations that lies in a folder of the user's.

    Class-level facts are for listings; `splits` are the values that `videos(split)` takes.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    homepage: ClassVar[str]
    terms: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = ()

    root: Path
    left_out: tuple[str, ...] = ()
    """What the last call of `videos` could not read of the annotations, and so left out."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().absolute()
        if not self.root.is_dir():
            found = "is a file" if self.root.exists() else "does not exist"
            raise UsageError(
                f"the root of dataset {self.name!r} {found}: {self.root}; expected a folder",
                hint=f"give the folder that holds your copy; where to get one: {self.homepage}",
            )

    @abstractmethod
    def videos(self, split: str | None = None) -> list[Video]:
        """All items of a split, or of all splits, in a stable order, each id once."""

    @abstractmethod
    def check(self) -> DatasetCheck:
        """What this copy holds and lacks; reads all annotation files and no media."""

    def _require_split(self, split: str | None) -> None:
        if split is not None and split not in self.splits:
            known = ", ".join(self.splits) or "none"
            raise UsageError(f"dataset {self.name!r} has no split {split!r}; it has: {known}")


_datasets: Registry[type[Dataset]] = Registry(
    "dataset", "vlpipe.stores.datasets", "`vlpipe datasets ls` lists all"
)
_AnyDataset = TypeVar("_AnyDataset", bound=type[Dataset])


def register_dataset(name: str) -> Callable[[_AnyDataset], _AnyDataset]:
    """A class decorator that puts a Dataset into the catalogue under that name.

    A second class of the same name is refused: one of the two would be lost without a word.
    """
    if not DATASET_NAME.fullmatch(name):
        raise ValueError(f"dataset name {name!r} must match {DATASET_NAME.pattern}")

    def enter(dataset: _AnyDataset) -> _AnyDataset:
        _datasets.add(name, dataset)  # first: what is refused keeps its name
        dataset.name = name
        return dataset

    return enter


def list_datasets() -> list[type[Dataset]]:
    """The classes of all known datasets, by name."""
    return list(_datasets.all().values())


def dataset_names() -> list[str]:
    """The names of all known datasets."""
    return list(_datasets.all())


def dataset_class(name: str) -> type[Dataset]:
    """The class of a dataset by its name; a UsageError with the nearest names if there is none."""
    return _datasets.find(name)


def open_dataset(name: str, root: Path | str) -> Dataset:
    """The copy of a dataset that lies at root."""
    return dataset_class(name)(root)
