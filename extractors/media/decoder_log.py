"""What the decoders' C libraries say on standard error, caught inside the child."""

import os
import re
import sys

_MAX_LINES = 12
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")


class DecoderLog:
    """Takes over file descriptor 2 of this process and hands out its lines."""

    def __init__(self) -> None:
        self._read_fd, write_fd = os.pipe()
        # A decoder must never wait for us to read its complaints: what does not fit is lost.
        os.set_blocking(write_fd, False)
        os.set_blocking(self._read_fd, False)
        sys.stderr.flush()
        os.dup2(write_fd, 2)
        os.close(write_fd)
        self._pending = b""

    def drain(self) -> list[str]:
        """The lines since the last call, without addresses and repeats, at most twelve."""
        while True:
            try:
                data = os.read(self._read_fd, 65536)
            except BlockingIOError:
                break
            self._pending = (self._pending + data)[-65536:]
        text, self._pending = self._pending.decode("utf-8", "replace"), b""
        lines = (_ADDRESS.sub("", line).strip() for line in text.splitlines())
        return list(dict.fromkeys(line for line in lines if line))[:_MAX_LINES]
