"""The file of all rows of a part: a raw matrix, a `.npy` file and a Zarr v3 shard at once.

    offset          bytes        content
    0               4096         NumPy header 1.0, padded with spaces
    4096            N * r        the rows, C order, little endian, video after video
    4096 + N*r      (n*R - N)*r  zeros up to whole chunks
    4096 + n*R*r    16 * n       shard index: offset and length of each chunk, u64 little endian
    ...             4            CRC-32C of the index, u32 little endian

N rows of r bytes in n chunks of R rows. An uncompressed shard whose chunks lie in order is the
matrix itself, so a video is one contiguous range for those who know where it begins.
"""

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.checksum import crc32c
from vlpipe.stores.storage import ObjectStream, Storage

BASE = 4096  # where rows begin: one page, and room for the header of any shape
_CHUNK_TARGET_BYTES = 256 * 1024  # where zarr-python reads short clips fastest
_MAX_CHUNK_ROWS = 65_536
_MAX_PADDING = 32  # at most one part in so many is padding

_PREFIX = struct.Struct("<6sBBH")  # magic, major, minor, length of the text


@dataclass(frozen=True)
class RowFileShape:
    """All sizes of a row file, from the number of rows and the layout of one."""

    num_rows: int
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    chunk_rows: int

    @classmethod
    def of(cls, num_rows: int, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> "RowFileShape":
        """The shape that a writer chooses: chunks of about 256 KiB and at most 3% padding."""
        row_bytes = row_size_bytes(dtype, row_shape)
        chunk_rows = min(
            max(_CHUNK_TARGET_BYTES // row_bytes, 1),
            max(-(-num_rows // _MAX_PADDING), 1),
            _MAX_CHUNK_ROWS,
        )
        return cls(num_rows, dtype, row_shape, chunk_rows)

    @cached_property
    def row_bytes(self) -> int:
        return row_size_bytes(self.dtype, self.row_shape)

    @property
    def num_chunks(self) -> int:
        return -(-self.num_rows // self.chunk_rows)

    @property
    def padding_bytes(self) -> int:
        return (self.num_chunks * self.chunk_rows - self.num_rows) * self.row_bytes

    @property
    def num_bytes(self) -> int:
        """Size of the file; 0 means that there is none, because there are no rows."""
        if self.num_rows == 0:
            return 0
        return BASE + self.num_chunks * (self.chunk_rows * self.row_bytes + 16) + 4

    def header(self) -> bytes:
        """The first 4096 bytes."""
        shape = ", ".join(str(size) for size in (self.num_rows, *self.row_shape))
        text = (
            f"{{'descr': '{self.dtype.str}', 'fortran_order': False, 'shape': ({shape},), }}"
        ).encode()
        length = BASE - _PREFIX.size
        if len(text) >= length:
            raise ValueError(f"the row shape {self.row_shape} does not fit into the header")
        return _PREFIX.pack(b"\x93NUMPY", 1, 0, length) + text.ljust(length - 1) + b"\n"

    def index(self) -> bytes:
        """The shard index with its checksum: the last bytes of the file."""
        chunk_bytes = self.chunk_rows * self.row_bytes
        entries = np.empty((self.num_chunks, 2), "<u8")
        entries[:, 0] = BASE + chunk_bytes * np.arange(self.num_chunks, dtype=np.uint64)
        entries[:, 1] = chunk_bytes
        data = entries.tobytes()
        return data + struct.pack("<I", crc32c(data))


def row_size_bytes(dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> int:
    size = dtype.itemsize
    for length in row_shape:
        size *= length
    return size


class RowFileWriter:
    """Streams rows into a new row file; memory does not grow with it."""

    def __init__(
        self, storage: Storage, name: str, dtype: np.dtype[Any], row_shape: tuple[int, ...]
    ) -> None:
        self._storage = storage
        self._name = name
        self._dtype = dtype
        self._row_shape = row_shape
        self._stream: ObjectStream | None = None
        self.num_rows = 0

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Adds rows [T, *row_shape], which must have the dtype and be C-contiguous."""
        if len(rows):
            if self._stream is None:  # a part of empty videos has no row file
                self._stream = self._storage.stream(self._name, BASE)
            self._stream.write(rows)
            self.num_rows += len(rows)

    def close(self) -> RowFileShape:
        shape = RowFileShape.of(self.num_rows, self._dtype, self._row_shape)
        if self._stream is not None:
            self._stream.write(bytes(shape.padding_bytes) + shape.index())
            self._stream.close(shape.header())
        return shape

    def abandon(self) -> None:
        if self._stream is not None:
            self._stream.abandon()
