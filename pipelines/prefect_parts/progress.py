"""How far a flow run is, as an artifact of it that the user interface draws as a bar."""

import threading
import time
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

_EVERY_S = 5.0


class ProgressArtifact:
    """A bar that flow runs update; to be made inside a run, and safe to use from its threads.

    Each update is a call to the server, so that there is one in five seconds at most.
    """

    def __init__(self, key: str, description: str) -> None:
        # Without an event loop in this thread it is the id, and no coroutine.
        self._id = cast(
            UUID, create_progress_artifact(progress=0.0, key=key, description=description)
        )
        self._lock = threading.Lock()
        self._told = time.monotonic()
        self._shown = 0.0

    def show(self, share: float) -> None:
        """share: of the work that is done, from 0 to 1."""
        now = time.monotonic()
        with self._lock:
            if (share < 1.0 and now - self._told < _EVERY_S) or share == self._shown:
                return
            self._told, self._shown = now, share
        update_progress_artifact(self._id, progress=round(100 * min(share, 1.0), 1))
