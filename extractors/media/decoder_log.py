"""What the decoders' C libraries say on standard error, caught inside the child."""

import os
import re
import sys

_MAX_LINES = 12
_MAX_UNCLAIMED = 200
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
        self._unclaimed: list[str] = []

    def reset(self) -> None:
        """Forgets all lines, those not yet read too."""
        self._read()
        self.lines.clear()
        self._unclaimed.clear()

    def first_from(self, *sources: str) -> str | None:
        """The first line since the last call from one of the named demuxers and decoders, if any.

        It and all others are kept in `lines`, twelve at most. The libraries run at the level of
        errors, at which an undamaged file writes nothing.
        """
        return next(iter(self._claim(sources)), None)

    def forget(self, *sources: str) -> None:
        """Skips what the named ones have written since the last call."""
        for line in self._claim(sources):
            if line in self.lines:
                self.lines.remove(line)

    def _claim(self, sources: tuple[str, ...]) -> list[str]:
        # Lines of others stay for those who ask about them: pictures and sound are interleaved.
        self._read()
        starts = tuple(f"[{name}]" for name in sources)
        claimed = [line for line in self._unclaimed if line.startswith(starts)]
        if claimed:
            self._unclaimed = [line for line in self._unclaimed if not line.startswith(starts)]
        return claimed

    def _read(self) -> None:
        data = b""
        while True:
            try:
                data = (data + os.read(self._read_fd, 65536))[-65536:]
            except BlockingIOError:
                break
        for raw in data.decode("utf-8", "replace").split("\n"):
            line = _ADDRESS.sub("", raw).strip()
            if line and line not in self._unclaimed:
                self._unclaimed = [*self._unclaimed[-_MAX_UNCLAIMED:], line]
            if line and line not in self.lines and len(self.lines) < _MAX_LINES:
                self.lines.append(line)
