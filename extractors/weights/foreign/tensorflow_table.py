"""The tables of TensorFlow's checkpoints: sorted pairs of bytes in LevelDB's format.

A table is a row of blocks and a footer of 48 bytes that says where the index block is; the index
holds the place of each block. After each block come its compression and a CRC-32C, which is
checked. TensorFlow writes checkpoints without compression.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from vlpipe.extractors.weights.foreign.protobuf_wire import read_varint

_FOOTER_BYTES = 48
_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_TRAILER_BYTES = 5  # compression, then the checksum
_NO_COMPRESSION = 0


def is_table(path: Path) -> bool:
    """Whether the file ends as a table does."""
    with path.open("rb") as file:
        if file.seek(0, 2) < _FOOTER_BYTES:
            return False
        file.seek(-len(_MAGIC), 2)
        return file.read() == _MAGIC


def read_table(path: Path) -> Iterator[tuple[bytes, memoryview]]:
    """Key and value of each entry, in order of keys; ValueError where the file is damaged."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(size - _FOOTER_BYTES)
        footer = memoryview(file.read())
        metaindex_place, at = _read_place(footer, 0)
        _read_block(file, metaindex_place, size)  # TensorFlow leaves it empty
        index_place, _ = _read_place(footer, at)
        for _, place in _read_entries(_read_block(file, index_place, size)):
            yield from _read_entries(_read_block(file, _read_place(place, 0)[0], size))


def has_checksum(data: memoryview, masked: int) -> bool:
    """Whether `masked` is the CRC-32C of `data` as it is stored.

    It is rotated and moved by a constant, so that a checksum of data that holds checksums is
    no special number.
    """
    crc = google_crc32c.value(bytes(data))
    return bool(masked == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _read_place(data: memoryview, at: int) -> tuple[tuple[int, int], int]:
    """(offset, bytes) of a block, and the place after them."""
    offset, at = read_varint(data, at)
    length, at = read_varint(data, at)
    return (offset, length), at


def _read_block(file: BinaryIO, place: tuple[int, int], file_size: int) -> memoryview:
    offset, length = place
    if offset + length + _TRAILER_BYTES > file_size:
        raise ValueError(f"a block of {length} bytes at {offset} lies outside of the file")
    file.seek(offset)
    data = memoryview(file.read(length + _TRAILER_BYTES))
    compression, masked = struct.unpack("<BI", data[length:])
    if not has_checksum(data[: length + 1], masked):
        raise ValueError(f"the checksum of the block at {offset} is not that of its bytes")
    if compression != _NO_COMPRESSION:
        raise ValueError(f"the block at {offset} is compressed, which no checkpoint is")
    return data[:length]


def _read_entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The pairs of a block; a key leaves out what it shares with the one before it."""
    (num_restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 * (num_restarts + 1)
    if end < 0:
        raise ValueError("a block is shorter than its own table of contents")
    key, at = b"", 0
    while at < end:
        num_shared, at = read_varint(block, at)
        num_own, at = read_varint(block, at)
        value_bytes, at = read_varint(block, at)
        start = at + num_own
        if num_shared > len(key) or start + value_bytes > end:
            raise ValueError("an entry of a block is cut off")
        key = key[:num_shared] + bytes(block[at:start])
        at = start + value_bytes
        yield key, block[start:at]
