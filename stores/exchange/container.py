"""What kinds of files there are: how arrays of many videos are read from and written to them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import UsageError
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.information import FeatureInfo

if TYPE_CHECKING:
    from vlpipe.stores.exchange.layout import Slot


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the file that rows came from; see `FeatureWriter.add`."""

    source: str | None = None
    seconds: float | None = None
    source_size: int | None = None
    source_mtime_ns: int | None = None
    note: str | None = None


@dataclass(slots=True)
class Sample:
    """One video as it was read: rows by slot, and why there are none where there should be.

    spans: given where the file itself holds them. failures: (kind, message) of what failed before
    it came into the file.
    """

    key: str
    rows: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    spans: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that holds many videos: part of the identity of what is imported from it."""

    name: str
    path: Path


class Source(ABC):
    """Files that were opened for import. Reading a damaged video gives problems, not an error."""

    files: tuple[SourceFile, ...] = ()  # empty where each video has files of its own
    definitions: Mapping[str, FeatureDefinition] = {}  # by slot, where the file holds them
    slots: "tuple[Slot, ...]" = ()
    left_out: tuple[str, ...] = ()  # what was found and is never read, with the reason

    @abstractmethod
    def keys(self) -> Sequence[str]:
        """All videos, always in the same order."""

    @abstractmethod
    def read(self, key: str) -> Sample:
        """The rows of one video."""

    def facts(self, key: str, slot: str) -> Facts:
        """Size and time stamp of the file of one video, cheaply; nothing where many share one."""
        del key, slot
        return Facts()

    def close(self) -> None:  # noqa: B027 - nothing to close is the usual case
        """Closes all files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class ExportPlan:
    """What is to be written.

    identity: SHA-256 of all that the files depend on; the same identity gives the same files.
    infos: by slot, of the feature (the first, if several are joined).
    num_rows: by slot, rows of each video, in the order in which they will come.
    store: JSON about the store and its version.
    """

    folder: Path
    layout: str
    identity: str
    slots: "tuple[Slot, ...]"
    infos: Mapping[str, FeatureInfo]
    row_shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    num_rows: Mapping[str, Mapping[str, int]]
    store: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where the rows of a video lie in a file of the store: [T, *row_shape], C order, as they are
    stored, from byte `offset` on."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str


class Target(ABC):
    """Files that are being written. Nothing stands under its final name before `finish`, except
    where each video has a file of its own."""

    def has(self, key: str, slot: str) -> bool:
        """Whether an earlier, interrupted export of the same has finished this video."""
        del key, slot
        return False

    @abstractmethod
    def add(
        self,
        key: str,
        slot: str,
        rows: npt.NDArray[Any],
        spans: npt.NDArray[np.float64],
        facts: Facts,
    ) -> None:
        """Writes the rows [T, *row_shape] of one video, of the dtype of the plan."""

    def link(self, key: str, slot: str, place: RowPlace) -> None:
        """Names rows that stay where they are; UsageError where files cannot do that."""
        raise UsageError(
            f"files of this layout cannot point to rows elsewhere: {slot} of {key!r}, {place.path}",
            hint="leave out --link",
        )

    @abstractmethod
    def finish(self) -> list[Path]:
        """Checks what was written, gives the files their names, and returns them."""

    def abandon(self) -> None:  # noqa: B027 - files of single videos stay: each is complete
        """Removes what has no final name yet."""


class Container(ABC):
    """One kind of files."""

    has_places = True  # whether slots lie at places that a layout or a user names
    has_file_per_video = False  # so that an interrupted export can go on in the middle
    holds_empty = False  # whether a video without rows can be written
    shares_rows = False  # whether all slots lie row by row beside each other, under one list of ids

    def check_place(self, slot: str, place: str) -> None:
        """Raises UsageError when a slot cannot lie at this place."""
        if "{key}" not in place:
            raise UsageError(
                f"the place {place!r} of {slot!r} does not say where the key of a video stands",
                hint="for instance --place 'rgb={key}_rgb.npy'",
            )

    def check_key(self, key: str) -> str | None:
        """Why a video cannot have this key here, or None if it can."""
        del key
        return None

    @abstractmethod
    def open(self, path: Path, slots: "Sequence[Slot]", raw_dtype: str | None) -> Source:
        """Opens files for import.

        raw_dtype: of values that are bytes without a header.
        Raises UsageError when the path is not of this kind.
        """

    def existing(self, plan: ExportPlan) -> list[Path]:
        """Files that an export would write, as far as they are there already."""
        keys = {key: None for rows in plan.num_rows.values() for key in rows}
        names = dict.fromkeys(slot.places[0].partition(":")[0] for slot in plan.slots)
        paths = {plan.folder / name.replace("{key}", key): None for name in names for key in keys}
        return [path for path in paths if path.exists()]

    def create(self, plan: ExportPlan) -> Target:
        """Begins an export; UsageError where the layout is for import only."""
        raise UsageError(
            f"layout {plan.layout!r} is for import only",
            hint="`vlpipe store layouts` says which can be exported",
        )

    @property
    def is_exported(self) -> bool:
        return type(self).create is not Container.create


def require_path(path: Path, what: str) -> None:
    """Raises UsageError when there is nothing at the path."""
    if not path.exists():
        raise UsageError(f"there is no {what} at {path}", hint="check --from")


def check_within_folder(slot: str, place: str, file: str) -> None:
    """Raises UsageError when the file of a place does not lie in the folder."""
    if Path(file).is_absolute() or ".." in Path(file).parts:
        raise UsageError(f"the place {place!r} of {slot!r} leads out of the folder")


def plain_name_problem(key: str) -> str | None:
    """Why a key cannot be a file name or a name inside HDF5, or None if it can."""
    if not key or key in (".", "..") or "/" in key or "\\" in key or "\0" in key:
        return f"the key {key!r} cannot be a name in a file: it is empty, a dot, or has a slash"
    if len(key.encode("utf-8", "surrogatepass")) > 200:
        return f"the key {key[:60]!r}... is longer than 200 bytes"
    return None
