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
        self.lines: list[str] = []

    def reset(self) -> None:
        """Forgets all lines, those not yet read too."""
        self.poll()
        self.lines.clear()

    def poll(self) -> list[str]:
        """The lines since the last call, without addresses; twelve are kept in `lines`."""
        data = b""
        while True:
            try:
                data = (data + os.read(self._read_fd, 65536))[-65536:]
            except BlockingIOError:
                break
        found = [
            _ADDRESS.sub("", line).strip() for line in data.decode("utf-8", "replace").split("\n")
        ]
        found = [line for line in found if line]
        for line in found:
            if line not in self.lines and len(self.lines) < _MAX_LINES:
                self.lines.append(line)
        return found

    def forget_new(self) -> None:
        """Skips the lines since the last call."""
        kept = list(self.lines)
        self.poll()
        self.lines = kept

    def first_from(self, *sources: str) -> str | None:
        """The first new line that one of the named demuxers and decoders has written, if any.

        The libraries run at the level of errors, at which an undamaged file writes nothing.
        """
        starts = tuple(f"[{name}]" for name in sources)
        return next((line for line in self.poll() if line.startswith(starts)), None)
