"""CRC-32C, the checksum of everything at rest."""

from typing import Any

import google_crc32c
import numpy.typing as npt


def crc32c(data: "bytes | npt.NDArray[Any]") -> int:
    """CRC-32C of the bytes of `data`; an array must be C-contiguous."""
    # The extension takes only buffers that nobody can resize: bytes and arrays, not memoryviews.
    return int(google_crc32c.value(data))


def crc32c_hex(data: bytes) -> str:
    """CRC-32C as the eight hex digits that stand in JSON files."""
    return f"{crc32c(data):08x}"


def extend_crc32c(crc: int, data: "bytes | npt.NDArray[Any]") -> int:
    """CRC-32C of what `crc` is the checksum of, followed by `data`."""
    return int(google_crc32c.extend(crc, data))
