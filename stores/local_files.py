"""Files of a file system: reading ranges, growing streams, and what goes wrong with them."""
# ruff: noqa: PTH106, PTH108, PTH112, PTH123, PTH208

import contextlib
import errno
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import SINGLE_WRITER_HINT, StoreUnwritable
from vlpipe.stores.storage import Bytes, Request

_PIECE_BYTES = 2**18


class LocalFile:
    """A file open for reading. Closed when nobody refers to it, so that a thread that reads from
    it is safe from another one that drops it from a cache."""

    __slots__ = ("_descriptor", "read_once", "size")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.read_once: Callable[[Any, int], int] = partial(os.preadv, descriptor)  # no frame
        self.size = os.fstat(descriptor).st_size

    def read_into(self, offset: int, *targets: npt.NDArray[Any]) -> int:
        buffers: Any = targets  # arrays are buffers, which type stubs know from Python 3.12 on
        num_read = os.preadv(self._descriptor, buffers, offset)
        if num_read == (targets[0].nbytes if len(targets) == 1 else sum(t.nbytes for t in targets)):
            return num_read
        return self._read_on(offset, num_read, targets)

    def read_cached(self, offset: int, *targets: npt.NDArray[Any]) -> int:
        """The same of what is in memory already; waits for no disk and may read less."""
        buffers: Any = targets
        try:
            return os.preadv(self._descriptor, buffers, offset, os.RWF_NOWAIT)
        except OSError:  # nothing is in memory, or this file system cannot tell
            return 0

    def announce(self, offset: int, num_bytes: int) -> None:
        """Lets the kernel begin to read a range that is about to be asked for."""
        os.posix_fadvise(self._descriptor, offset, num_bytes, os.POSIX_FADV_WILLNEED)

    def _read_on(self, offset: int, num_read: int, targets: Sequence[npt.NDArray[Any]]) -> int:
        """The kernel moves at most 2 GiB at once and may stop earlier: the rest, in pieces."""
        end = 0
        for target in targets:
            start, end = end, end + target.nbytes
            data: Any = target.reshape(-1).view(np.uint8)
            while num_read < end:
                more = os.preadv(self._descriptor, (data[num_read - start :],), offset + num_read)
                if more == 0:
                    return num_read
                num_read += more
        return num_read

    def __del__(self) -> None:
        # AttributeError: the constructor failed. OSError: nothing was written, nothing is lost.
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._descriptor)


def read_file_ranges(requests: Sequence[Request]) -> list[int]:
    """`Storage.read_ranges` of files: what is in memory is copied at once; the rest is announced
    before any of it is waited for, so that the disk sees all of it."""
    counts = []
    waiting = []
    for number, (file, offset, targets) in enumerate(requests):
        if not isinstance(file, LocalFile):
            raise TypeError(f"{file} is no file of this machine")
        num_bytes = sum([target.nbytes for target in targets])
        counts.append(file.read_cached(offset, *targets))
        if counts[-1] < num_bytes:
            file.announce(offset, num_bytes)
            waiting.append((number, file))
    for number, file in waiting:
        counts[number] = file.read_into(requests[number][1], *requests[number][2])
    return counts


def map_file(path: str) -> npt.NDArray[np.uint8]:
    """All bytes of a file as a read-only array over its map."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


class LocalStream:
    """A file that grows at its end; the first `reserve_bytes` are written at close.

    Bytes go to the file in pieces of 256 KiB at multiples of 256 KiB: Linux then keeps the file in
    large pages, from which warm reads copy a quarter faster than from those of small writes. Larger
    pieces are read no faster, and on a virtual machine they more often meet free memory that went
    back to its host, which is written to at a quarter of the speed.
    """

    def __init__(self, path: str, descriptor: int, reserve_bytes: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        # Of pages of its own: copying to a few bytes behind the source's place in its page is many
        # times as slow on some processors, and rows mostly begin where a page or a line does.
        self._buffer = memoryview(mmap.mmap(-1, _PIECE_BYTES))
        self._filled = reserve_bytes

    def write(self, data: Bytes) -> None:
        if self._descriptor is None:
            raise ValueError(f"{self._path} is closed")
        left = as_bytes(data)
        end = self._filled + len(left)
        while end >= _PIECE_BYTES:
            if self._filled == 0:
                self._put(left[:_PIECE_BYTES])
                left = left[_PIECE_BYTES:]
            else:
                count = _PIECE_BYTES - self._filled
                self._buffer[self._filled :] = left[:count]
                self._put(self._buffer)
                self._filled, left = 0, left[count:]
            end -= _PIECE_BYTES
        self._buffer[self._filled : end] = left
        self._filled = end

    def close(self, head: bytes) -> None:
        if self._descriptor is None:
            raise ValueError(f"{self._path} is closed")
        self._put(self._buffer[: self._filled])
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

    def _put(self, data: memoryview) -> None:
        with writing(self._path):
            write_all(cast("int", self._descriptor), data)


def as_bytes(data: Bytes) -> memoryview:
    if isinstance(data, bytes):
        return memoryview(data)
    # An array of no bytes cannot be cast.
    return data.data.cast("B") if data.nbytes else memoryview(b"")


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    written = os.write(descriptor, view) if len(view) else 0
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


def unwritable(
    path: str, error: OSError, to_check: str = "the disk or the mount"
) -> StoreUnwritable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room, then run the same command again: it carries on where it stopped"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "check owner and permissions of the store, and that it is not mounted read-only"
    elif error.errno == errno.EOPNOTSUPP:
        hint = f"put the store on another file system; {SINGLE_WRITER_HINT}"
    else:
        hint = f"check {to_check}, then run the same command again"
    return StoreUnwritable(f"{path} cannot be written: {error.strerror or error}", hint=hint)
