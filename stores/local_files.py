"""Files of a file system: reading ranges, growing streams, and what goes wrong with them."""
# ruff: noqa: PTH106, PTH108, PTH112, PTH208

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import StoreUnwritable
from vlpipe.stores.storage import Bytes


class LocalFile:
    """A file open for reading. Closed when nobody refers to it, so that a thread that reads from
    it is safe from another one that drops it from a cache."""

    __slots__ = ("_descriptor", "size")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read_into(self, offset: int, target: npt.NDArray[Any]) -> int:
        num_read = os.preadv(self._descriptor, (target.data,), offset)
        if num_read == target.nbytes:
            return num_read
        # The kernel moves at most 2 GiB at once and may stop earlier.
        data = target.reshape(-1).view(np.uint8)
        while num_read < len(data):
            more = os.preadv(self._descriptor, (data[num_read:].data,), offset + num_read)
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

    def write(self, data: Bytes) -> None:
        if self._descriptor is None:
            raise ValueError(f"{self._path} is closed")
        with writing(self._path):
            write_all(self._descriptor, data)

    def close(self, head: bytes) -> None:
        if self._descriptor is None:
            raise ValueError(f"{self._path} is closed")
        with writing(self._path):
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


def write_all(descriptor: int, data: Bytes) -> None:
    view = memoryview(data) if isinstance(data, bytes) else data.data
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


def sync_path(path: str) -> None:
    with writing(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_tree(path: str) -> None:
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
            remove_tree(f"{path}/{name}")
        os.rmdir(path)


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: str, error: OSError) -> StoreUnwritable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room, then run the same command again: it carries on where it stopped"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "check owner and permissions of the store, and that it is not mounted read-only"
    else:
        hint = "check the disk or the mount, then run the same command again"
    return StoreUnwritable(f"{path} cannot be written: {error.strerror or error}", hint=hint)
