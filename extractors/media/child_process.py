"""The parent's hold on one decoding child: start, talk, wait with a limit, kill the whole group."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path
from typing import Any

import vlpipe
from vlpipe.extractors.media import wire
from vlpipe.extractors.media.limits import signal_name
from vlpipe.stores.errors import EnvironmentLacks

_START_S = 120.0
_PIPE_BYTES = 1 << 20
# Credentials and tokens of the parent stay with the parent.
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG")


class ChildProcess:
    """One running child. Not thread-safe; belongs to one stream at a time."""

    def __init__(self, memory_bytes: int) -> None:
        # Only what is said before the child takes its descriptor 2 over ends up here.
        self._startup_log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the child)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "vlpipe.extractors.media.worker", str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._startup_log,
            bufsize=0,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to_child = self._process.stdin.fileno()
        self.from_child = self._process.stdout.fileno()
        with suppress(OSError):
            fcntl(self.from_child, F_SETPIPE_SZ, _PIPE_BYTES)
        self.num_jobs = 0
        self._is_ready = False

    @property
    def pid(self) -> int:
        """Process id, equal to the id of the process group."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Returns when the child has loaded its libraries; raises EnvironmentLacks if it cannot."""
        if self._is_ready:
            return
        try:
            header, _ = wire.receive_header(self.from_child, wire.Clock(_START_S))
        except (wire.WireClosed, wire.WireTimeout, wire.WireDamaged) as error:
            self.kill()
            self._startup_log.seek(0)
            said = self._startup_log.read()[-2000:].decode("utf-8", "replace").strip()
            raise EnvironmentLacks(
                f"the decoding process {self.ending()}: {said or type(error).__name__}",
                hint="vlpipe doctor",
            ) from None
        assert header["kind"] == "ready"
        self._is_ready = True

    def send(self, message: dict[str, Any]) -> None:
        """Hands the child a job, or tells it to stop one. Raises wire.WireClosed."""
        wire.send(self._to_child, message)

    def is_alive(self) -> bool:
        """Whether the child could take another job."""
        if self._process.returncode is not None:
            return False
        # WNOWAIT leaves the dead child's number, and so that of its group, taken until `kill`.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def ending(self) -> str:
        """How the child ended, in words."""
        return signal_name(self._process.returncode)

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def wait_end(self) -> None:
        """Returns when a child that closed its pipe is gone; ends it if it lingers."""
        deadline = time.monotonic() + 1.0
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.kill()

    def kill(self) -> None:
        """Ends the child and all that it may have started; returns when it is gone."""
        # Before wait(), so that the number of the group cannot belong to anyone else yet.
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def close(self) -> None:
        """As `kill`; also forgets what the child said at its start."""
        self.kill()
        self._startup_log.close()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    package_root = str(Path(vlpipe.__file__).absolute().parent.parent)
    path = [package_root, *filter(None, [kept.get("PYTHONPATH")])]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # One arena: with many, freed blocks of frames are not reused by other threads.
        "MALLOC_ARENA_MAX": "2",
    }
