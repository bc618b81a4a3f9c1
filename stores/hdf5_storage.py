"""One HDF5 file as the place of a store that is only read: each dataset of rows is an object."""
# ruff: noqa: PTH116 - `os`, as in `local_storage`

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import SnapshotGone, UsageError
from vlpipe.stores.local_files import LocalFile, map_file, read_file_ranges
from vlpipe.stores.part import Part
from vlpipe.stores.storage import Bytes, ObjectStream, Request

FORM = "hdf5"


@dataclass(frozen=True, eq=False)
class Hdf5Part(Part):
    """The group of a feature generation: all its rows are a part, and the file is that of both
    arrays, so that `base` and `spans_base` count from the beginning of the whole file."""

    @property
    def folder(self) -> str:
        return f"{self.feature}/{self.generation}"

    @cached_property
    def rows_file(self) -> str:
        return f"{self.folder}/rows"

    @cached_property
    def spans_file(self) -> str:
        return f"{self.folder}/spans"

    @property
    def num_bytes(self) -> int:
        """Size of its rows and spans: its file holds those of other parts too."""
        return self.num_rows * (self.rows_shape.row_bytes + self.spans_shape.row_bytes)

    @property
    def is_folder(self) -> bool:
        return False

    @cached_property
    def is_plain(self) -> bool:
        return True


class Hdf5Storage:
    """The file at a path, as it is now: SnapshotGone where another one has taken its place."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._identity = _identity(os.stat(path))
        self.is_single_writer = False

    @property
    def url(self) -> str:
        return self._path

    @property
    def local_folder(self) -> str | None:
        return None

    # reading

    def read(self, name: str) -> bytes:
        raise FileNotFoundError(f"{self._path} keeps no files such as {name}")

    def map(self, name: str) -> npt.NDArray[np.uint8]:
        self.open(name)
        return map_file(self._path)

    def open(self, name: str) -> LocalFile:
        """The whole file, whatever dataset is asked for."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SnapshotGone(
                f"{self._path} is not there any more", hint="put the file back, or open another"
            ) from None
        file = LocalFile(descriptor)
        if _identity(os.fstat(descriptor)) != self._identity:
            raise SnapshotGone(
                f"{self._path} was replaced or changed since it was opened", hint="open it again"
            )
        return file

    def read_ranges(self, requests: Sequence[Request]) -> list[int]:
        return read_file_ranges(requests)

    def size(self, name: str) -> int | None:
        return self.open(name).size

    def names(self, folder: str) -> list[str]:
        return []  # of a store's own files: log, checkpoints, tags

    def modified(self, name: str) -> float | None:
        return None

    def age_s(self, name: str) -> float | None:
        return None

    # writing

    def now(self) -> float:
        raise only_read(self.url)

    def prepare(self) -> None:
        raise only_read(self.url)

    def write(self, name: str, data: Bytes) -> None:
        raise only_read(self.url)

    def stream(self, name: str, reserve_bytes: int) -> ObjectStream:
        raise only_read(self.url)

    def sync(self, names: Sequence[str]) -> None:
        raise only_read(self.url)

    def create(self, name: str, data: bytes) -> bool:
        raise only_read(self.url)

    def replace(self, name: str, data: bytes) -> None:
        raise only_read(self.url)

    def remove(self, name: str) -> None:
        raise only_read(self.url)


def only_read(path: str) -> UsageError:
    """The error for what would change the file."""
    return UsageError(
        f"{path} is one HDF5 file, which is read and never changed",
        hint=f"make a store of it: vlpipe store import STORE --layout vlpipe-hdf5 --from {path}",
    )


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
