"""Messages between parent and child: a length-prefixed JSON header, then raw bytes.

No pickle: the child has read untrusted bytes and might be under their control.
"""

import json
import os
import select
import struct
import time
from collections.abc import Sequence
from typing import Any

_PREFIX = struct.Struct("<4sIQ")
_MAGIC = b"vlm1"
_MAX_HEADER_BYTES = 8 << 20

Buffer = bytes | bytearray | memoryview


class WireClosed(Exception):
    """The other side has closed the pipe."""


class WireTimeout(Exception):
    """The other side said nothing within the time given."""


class WireDamaged(Exception):
    """What arrived is not a message of this protocol."""


class Clock:
    """A budget of seconds of which only waiting for the other side is spent."""

    def __init__(self, seconds: float) -> None:
        self.left_s = seconds

    def wait(self, fd: int) -> None:
        """Returns when `fd` can be read; raises WireTimeout when the budget is spent."""
        started = time.monotonic()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        is_ready = poll.poll(max(0.0, self.left_s) * 1000)
        self.left_s -= time.monotonic() - started
        if not is_ready:
            raise WireTimeout


def send(fd: int, header: dict[str, Any], payload: Sequence[Buffer] = ()) -> None:
    """Writes one message; blocks while the pipe is full. Raises WireClosed."""
    head = json.dumps(header).encode("ascii")
    views = [memoryview(part).cast("B") for part in payload]
    prefix = _PREFIX.pack(_MAGIC, len(head), sum(len(view) for view in views))
    try:
        for view in (memoryview(prefix + head), *views):
            sent = 0
            while sent < len(view):
                sent += os.write(fd, view[sent:])
    except BrokenPipeError as error:
        raise WireClosed from error


def receive_header(fd: int, clock: Clock | None = None) -> tuple[dict[str, Any], int]:
    """The next header and the number of payload bytes that follow it."""
    prefix = bytearray(_PREFIX.size)
    receive_into(fd, memoryview(prefix), clock)
    magic, head_bytes, payload_bytes = _PREFIX.unpack(prefix)
    if magic != _MAGIC or head_bytes > _MAX_HEADER_BYTES:
        raise WireDamaged("no message header")
    head = bytearray(head_bytes)
    receive_into(fd, memoryview(head), clock)
    try:
        header = json.loads(head)
    except ValueError as error:
        raise WireDamaged(f"header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise WireDamaged("header is not an object")
    return header, payload_bytes


def receive_into(fd: int, view: memoryview, clock: Clock | None = None) -> None:
    """Fills `view`; raises WireClosed, or WireTimeout when the clock runs out."""
    filled = 0
    while filled < len(view):
        if clock is not None:
            clock.wait(fd)
        count = os.readv(fd, [view[filled:]])
        if count == 0:
            raise WireClosed
        filled += count
