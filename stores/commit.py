"""The commit protocol: whoever creates entry N first has it; everybody else folds it and tries
the next number. Data are written before and never again."""

import os
import socket
import time
import uuid
from collections.abc import Callable

from vlpipe import __version__
from vlpipe.stores.errors import StoreTooNew, StoreUnwritable
from vlpipe.stores.history import load_state, oldest_entry
from vlpipe.stores.layout import FORMAT_VERSION, now_utc
from vlpipe.stores.ledger import Entry, Ledger, Op, pause
from vlpipe.stores.state import State
from vlpipe.stores.storage import Storage

_PATIENCE_S = 120.0  # how long an entry may be known to exist and not be seen (stale NFS caches)


def commit(
    storage: Storage,
    state: State,
    resolve: Callable[[State], list[Op]],
    *,
    batch: str | None = None,
    run: str | None = None,
) -> State:
    """The state with our entry in it, or the newest one when `resolve` finds nothing left to do.

    resolve: given the newest state, the operations that are still to be done on it. It is asked
        again whenever another writer was faster.
    """
    ledger = Ledger(storage)
    entry_id = str(uuid.uuid4())  # one for all attempts: it tells whether one of them landed
    attempt, last_progress = 0, time.monotonic()
    while True:
        newer = state.advanced(ledger.follow(state.version, state.entry_id))
        if newer.version > state.version:
            last_progress = time.monotonic()
        state = newer
        if oldest_entry(storage) > state.version + 1:
            # The entry after ours is absent because it was collected: its number is not free.
            state = load_state(storage)
        if state.min_writer > FORMAT_VERSION:
            raise StoreTooNew(
                f"{storage.url} is to be written in format {state.min_writer}, this vlpipe writes "
                f"{FORMAT_VERSION}"
            )
        ops = resolve(state)
        if not ops:
            return state
        entry = Entry(
            version=state.version + 1,
            id=entry_id,
            prev=state.entry_id,
            time=now_utc(),
            writer=_writer(run),
            batch=batch,
            ops=ops,
        )
        if ledger.append(entry):
            return state.advanced([entry])
        if time.monotonic() - last_progress > _PATIENCE_S:
            raise StoreUnwritable(
                f"{storage.url}: entry {entry.version} exists, but could not be read for "
                f"{_PATIENCE_S:.0f} s"
            )
        pause(attempt)
        attempt += 1


def _writer(run: str | None) -> dict[str, object]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "run": run, "vlpipe": __version__}
