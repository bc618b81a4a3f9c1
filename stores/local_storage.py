"""A store in a folder of a file system.

This module and `local_files` are the only ones of the store that make system calls for writing, by
way of `os`, so that tests can count them and fail or kill at each one.
"""
# ruff: noqa: PTH102, PTH103, PTH104, PTH108, PTH116, PTH120, PTH123, PTH208

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import EnvironmentLacks
from vlpipe.stores.exclusive_rename import rename_if_absent
from vlpipe.stores.layout import new_temporary_name
from vlpipe.stores.local_files import (
    LocalFile,
    LocalStream,
    as_bytes,
    map_file,
    read_file_ranges,
    remove_tree,
    sync_path,
    unwritable,
    write_all,
    writing,
)
from vlpipe.stores.storage import Bytes, Request, create_alone

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class LocalStorage:
    """Objects are files below `folder`."""

    def __init__(self, folder: Path, *, is_power_safe: bool = True) -> None:
        self._folder = str(folder)
        self._is_power_safe = is_power_safe
        self.is_single_writer = False

    @property
    def url(self) -> str:
        return self._folder

    @property
    def local_folder(self) -> str | None:
        return self._folder

    # reading

    def read(self, name: str) -> bytes:
        with self._reading(name) as path, open(path, "rb") as file:
            return file.read()

    def map(self, name: str) -> npt.NDArray[np.uint8]:
        with self._reading(name) as path:
            return map_file(path)

    def open(self, name: str) -> LocalFile:
        with self._reading(name) as path:
            return LocalFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def read_ranges(self, requests: Sequence[Request]) -> list[int]:
        return read_file_ranges(requests)

    def size(self, name: str) -> int | None:
        try:
            return os.stat(self._path(name)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def modified(self, name: str) -> float | None:
        try:
            return os.stat(self._path(name)).st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None

    def now(self) -> float:
        # A file made now carries the clock of the file server, which may not be ours.
        probe = self._path(new_temporary_name())
        with writing(probe):
            descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                return os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)
                os.unlink(probe)

    def age_s(self, name: str) -> float | None:
        path = self._path(name)
        written = self.modified(name)
        if written is None:
            return None
        with contextlib.suppress(OSError):  # not every file system can
            os.utime(path)  # to the clock of the file server, for less than a new file costs
        moved = self.modified(name)
        if moved is None:
            return None
        # Where that did nothing, a file of its own tells the time.
        return (self.now() if moved == written else moved) - written

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self._path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    # writing

    def prepare(self) -> None:
        with writing(self._folder):
            os.makedirs(self._folder, exist_ok=True)
            if self._is_power_safe:
                sync_path(os.path.dirname(self._folder))

    def write(self, name: str, data: Bytes) -> None:
        path = self._path(name)
        with writing(path):
            descriptor = self._new_file(path)
            try:
                write_all(descriptor, as_bytes(data))
            finally:
                os.close(descriptor)

    def stream(self, name: str, reserve_bytes: int) -> LocalStream:
        path = self._path(name)
        with writing(path):
            return LocalStream(path, self._new_file(path), reserve_bytes)

    def sync(self, names: Sequence[str]) -> None:
        if not self._is_power_safe:
            return
        folders: set[str] = set()
        for name in names:
            path = self._path(name)
            sync_path(path)
            while path != self._folder:
                path = os.path.dirname(path)
                folders.add(path)
        for folder in sorted(folders, key=len, reverse=True):  # inside out
            sync_path(folder)

    def create(self, name: str, data: bytes) -> bool:
        if self.is_single_writer:
            return create_alone(self, name, data)
        path = self._path(name)
        folder = os.path.dirname(path)
        temporary = f"{folder}/{new_temporary_name()}"
        with writing(path):
            descriptor = self._new_file(temporary)
            try:
                write_all(descriptor, data)
                if self._is_power_safe:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        try:
            is_ours = self._link(temporary, path, data)
        finally:
            # A leftover is ignored by everybody and collected later.
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if self._is_power_safe:
            sync_path(folder)
        return is_ours

    def _link(self, temporary: str, path: str, data: bytes) -> bool:
        try:
            try:
                os.link(temporary, path)
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                rename_if_absent(temporary, path)
            return True
        except OSError as error:
            # Whatever was said, the file tells: over NFS a link can take effect and its reply
            # be lost, and the retry of the client then answers that the name exists.
            try:
                with open(path, "rb") as file:
                    return file.read() == data
            except OSError:
                raise unwritable(path, error) from error

    def replace(self, name: str, data: bytes) -> None:
        path = self._path(name)
        temporary = f"{os.path.dirname(path)}/{new_temporary_name()}"
        with writing(path):
            descriptor = self._new_file(temporary)
            try:
                write_all(descriptor, data)
                if self._is_power_safe:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(temporary, path)

    def remove(self, name: str) -> None:
        path = self._path(name)
        with writing(path):
            remove_tree(path)

    # below

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}" if name else self._folder

    def _new_file(self, path: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o666)
        except FileNotFoundError:
            self._make_folder(os.path.dirname(path))
            return os.open(path, flags, 0o666)

    def _make_folder(self, path: str) -> None:
        try:
            os.mkdir(path)
        except FileExistsError:
            return
        except FileNotFoundError:
            if path == self._folder:  # the store itself went away: do not make it again
                raise
            self._make_folder(os.path.dirname(path))
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[str]:
        path = self._path(name)
        try:
            yield path
        except PermissionError as error:
            raise EnvironmentLacks(
                f"{path} cannot be read: {error.strerror}",
                hint="check the permissions of the store",
            ) from error
