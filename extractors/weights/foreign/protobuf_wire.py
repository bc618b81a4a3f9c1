"""The wire format of protocol buffers: fields of a message by number, without its schema."""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}

Field = int | memoryview


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """The unsigned number at that place, and the place after it; ValueError where there is none."""
    value = 0
    for k in range(10):
        if at + k >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at + k]
        value |= (byte & 0x7F) << 7 * k
        if byte < 0x80:
            return value, at + k + 1
    raise ValueError("a number has more than 64 bits")


def read_fields(message: memoryview) -> Iterator[tuple[int, Field]]:
    """Number and content of each field, in order: unsigned numbers, or the bytes of anything else.

    Raises ValueError for bytes that are no message.
    """
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, at = read_varint(message, at)
            yield number, value
            continue
        if wire_type == _BYTES:
            size, at = read_varint(message, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise ValueError(f"a field of wire type {wire_type}")
        if at + size > len(message):
            raise ValueError("a field is cut off")
        yield number, message[at : at + size]
        at += size
