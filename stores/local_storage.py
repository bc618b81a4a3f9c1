"""A store in a folder of a file system.

The only module of the store that makes system calls for writing, so that tests can count them and
fail or kill at each one.
"""
# ruff: noqa: PTH - the calls of `os` are the subject here: descriptors, links, fsync

import contextlib
import errno
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import EnvironmentLacks, StoreUnwritable
from vlpipe.stores.exclusive_rename import rename_if_absent
from vlpipe.stores.layout import new_temporary_name

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class LocalStorage:
    """Objects are files below `folder`."""

    def __init__(self, folder: Path, *, is_power_safe: bool = True) -> None:
        self._folder = str(folder)
        self._is_power_safe = is_power_safe

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
        with self._reading(name) as path, open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return np.empty(0, np.uint8)
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    def open(self, name: str) -> "LocalFile":
        with self._reading(name) as path:
            return LocalFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

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
        with _writing(probe):
            descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                return os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)
                os.unlink(probe)

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self._path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    # writing

    def prepare(self) -> None:
        with _writing(self._folder):
            os.makedirs(self._folder, exist_ok=True)
            if self._is_power_safe:
                _sync_path(os.path.dirname(self._folder))

    def write(self, name: str, data: bytes | npt.NDArray[Any]) -> None:
        path = self._path(name)
        with _writing(path):
            descriptor = self._new_file(path)
            try:
                _write_all(descriptor, data)
            finally:
                os.close(descriptor)

    def stream(self, name: str, reserve_bytes: int) -> "LocalStream":
        path = self._path(name)
        with _writing(path):
            return LocalStream(path, self._new_file(path), reserve_bytes)

    def sync(self, names: Sequence[str]) -> None:
        if not self._is_power_safe:
            return
        folders: set[str] = set()
        for name in names:
            path = self._path(name)
            _sync_path(path)
            while path != self._folder:
                path = os.path.dirname(path)
                folders.add(path)
        for folder in sorted(folders, key=len, reverse=True):  # inside out
            _sync_path(folder)

    def create(self, name: str, data: bytes) -> bool:
        path = self._path(name)
        folder = os.path.dirname(path)
        temporary = f"{folder}/{new_temporary_name()}"
        with _writing(path):
            descriptor = self._new_file(temporary)
            try:
                _write_all(descriptor, data)
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
            _sync_path(folder)
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
                raise _unwritable(path, error) from error

    def replace(self, name: str, data: bytes) -> None:
        path = self._path(name)
        temporary = f"{os.path.dirname(path)}/{new_temporary_name()}"
        with _writing(path):
            descriptor = self._new_file(temporary)
            try:
                _write_all(descriptor, data)
                if self._is_power_safe:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(temporary, path)

    def remove(self, name: str) -> None:
        path = self._path(name)
        with _writing(path):
            _remove_tree(path)

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


class LocalFile:
    """A file open for reading. Closed when nobody refers to it, so that a thread that reads from
    it is safe from another one that drops it from a cache."""

    __slots__ = ("_descriptor", "size")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read_into(self, offset: int, target: npt.NDArray[np.uint8]) -> int:
        num_read = os.preadv(self._descriptor, (target,), offset)
        if num_read == len(target):
            return num_read
        # The kernel moves at most 2 GiB at once and may stop earlier.
        while num_read < len(target):
            more = os.preadv(self._descriptor, (target[num_read:],), offset + num_read)
            if more == 0:
                break
            num_read += more
        return num_read

    def __del__(self) -> None:
        # AttributeError: the constructor failed. OSError: nothing was written, nothing is lost.
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._descriptor)


class LocalStream:
    """A file that grows at its end; the first `reserve_bytes` are written at close."""

    def __init__(self, path: str, descriptor: int, reserve_bytes: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        try:
            self.write(bytes(reserve_bytes))
        except BaseException:
            self.abandon()
            raise

    def write(self, data: bytes | npt.NDArray[Any]) -> None:
        if self._descriptor is None:
            raise ValueError(f"{self._path} is closed")
        with _writing(self._path):
            _write_all(self._descriptor, data)

    def close(self, head: bytes) -> None:
        if self._descriptor is None:
            raise ValueError(f"{self._path} is closed")
        with _writing(self._path):
            written = 0
            while written < len(head):
                written += _positive(os.pwrite(self._descriptor, head[written:], written))
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def abandon(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _write_all(descriptor: int, data: bytes | npt.NDArray[Any]) -> None:
    view = memoryview(data)
    if view.nbytes == 0:
        return  # an array of no bytes cannot be cast
    view = view.cast("B")
    written = os.write(descriptor, view)
    while written < len(view):
        written += _positive(os.write(descriptor, view[written:]))


def _positive(num_written: int) -> int:
    if num_written <= 0:
        raise OSError(errno.EIO, "the file system accepted no bytes")
    return num_written


def _sync_path(path: str) -> None:
    with _writing(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_tree(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except (
        IsADirectoryError,
        PermissionError,
    ):  # unlink of a folder: EISDIR, on some systems EPERM
        if not os.path.isdir(path):
            raise
        for name in sorted(os.listdir(path), reverse=True):  # zarr.json goes first
            _remove_tree(f"{path}/{name}")
        os.rmdir(path)


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: str, error: OSError) -> StoreUnwritable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room, then run the same command again: it carries on where it stopped"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "check owner and permissions of the store, and that it is not mounted read-only"
    else:
        hint = "check the disk or the mount, then run the same command again"
    return StoreUnwritable(f"{path} cannot be written: {error.strerror or error}", hint=hint)
