"""Containers that state their own length: is the file as long as it says?"""

import struct
from pathlib import Path

_UNKNOWN_RIFF = (0, 0xFFFF_FFFF)


def find_truncation(path: Path, head: bytes) -> str | None:
    """A sentence when an AVI, WAV, Matroska or MP4 file is shorter than its headers state."""
    size = path.stat().st_size
    stated: int | None = None
    if head[:4] == b"RIFF":
        stated = _riff_size(head)
    elif head.startswith(b"\x1a\x45\xdf\xa3"):
        stated = _matroska_size(head)
    elif head[4:8] == b"ftyp":
        stated = _mp4_size(path, size)
    if stated is None or stated <= size:
        return None
    return f"the file is cut off: {size:,} bytes, its headers state {stated:,}"


def _riff_size(head: bytes) -> int | None:
    (stated,) = struct.unpack("<I", head[4:8])
    # Writers that could not seek back leave a place holder.
    return None if stated in _UNKNOWN_RIFF or stated > 0xFFFF_F000 else stated + 8


def _matroska_size(head: bytes) -> int | None:
    at = 4
    size, length = _vint(head, at)
    if size is None:
        return None
    at += length + size
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return None
    segment, length = _vint(head, at + 4)
    return None if segment is None else at + 4 + length + segment


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """An EBML length and its number of bytes; None for "unknown"."""
    if at >= len(data) or data[at] == 0:
        return None, 1
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), length


def _mp4_size(path: Path, size: int) -> int | None:
    at = 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            header = file.read(16)
            length, kind = struct.unpack(">I4s", header[:8])
            if length == 1 and len(header) == 16:
                (length,) = struct.unpack(">Q", header[8:])
            if length < 8 or not kind.isalnum():
                # 0 means "to the end of the file"; anything else is not a box.
                return None
            at += length
    return at if at > size else None
