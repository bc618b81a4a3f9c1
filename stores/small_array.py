"""The bytes of the small arrays of a part: one Zarr chunk each, with a checksum at its end.

Numbers have the codecs [bytes little, crc32c], texts [vlen-utf8, crc32c]: the number of texts as
u32, then each as u32 length and UTF-8.
"""

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.checksum import crc32c
from vlpipe.stores.errors import StoreDamaged

_U32 = struct.Struct("<I")


def encode_numbers(values: npt.ArrayLike, dtype: str) -> bytes:
    return _with_checksum(np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes())


def encode_texts(values: Sequence[str]) -> bytes:
    texts = [value.encode() for value in values]
    sizes = map(_U32.pack, map(len, texts))
    pieces = chain.from_iterable(zip(sizes, texts, strict=True))
    return _with_checksum(_U32.pack(len(texts)) + b"".join(pieces))


def decode_numbers(data: bytes, dtype: str, where: str) -> npt.NDArray[Any]:
    """The array; StoreDamaged naming `where` when the checksum does not match."""
    body = _checked(data, where)
    values = np.dtype(dtype).newbyteorder("<")
    if len(body) % values.itemsize:
        raise StoreDamaged(f"{where} has {len(body)} bytes, not a whole number of {dtype}")
    return np.frombuffer(body, values)


def decode_texts(data: bytes, where: str) -> list[str]:
    """The texts; StoreDamaged naming `where` when the checksum does not match."""
    body = _checked(data, where)
    try:
        (count,) = _U32.unpack_from(body)
        values, offset = [], _U32.size
        for _ in range(count):
            (length,) = _U32.unpack_from(body, offset)
            offset += _U32.size + length
            values.append(body[offset - length : offset].decode())
    except (struct.error, UnicodeDecodeError) as error:
        raise StoreDamaged(f"{where} is not a list of texts: {error}") from error
    return values


def _with_checksum(data: bytes) -> bytes:
    return data + _U32.pack(crc32c(data))


def _checked(data: bytes, where: str) -> bytes:
    body, stored = data[:-4], data[-4:]
    if len(stored) < 4 or _U32.unpack(stored)[0] != crc32c(body):
        raise StoreDamaged(f"{where}: the checksum of its {len(data)} bytes does not match")
    return body
