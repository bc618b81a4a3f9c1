"""What lies in the folders of a store, whether the ledger names it or not."""

from collections.abc import Iterator

from vlpipe.stores.layout import CHECKPOINTS, DATA, LOG, NODE_FILE, PINS, TAGS, TEMPORARY_PREFIX
from vlpipe.stores.storage import Storage


def find_parts(storage: Storage) -> list[str]:
    """The folders of all parts, finished or not, named by the ledger or not."""
    return [
        f"{DATA}/{feature}/{generation}/{part}"
        for feature in _subfolders(storage, DATA)
        for generation in _subfolders(storage, f"{DATA}/{feature}")
        for part in _subfolders(storage, f"{DATA}/{feature}/{generation}")
    ]


def find_leftovers(storage: Storage) -> list[str]:
    """Temporary files of writers that are at work or were killed."""
    folders = ["", LOG, CHECKPOINTS, TAGS, PINS, DATA]
    folders += [f"{CHECKPOINTS}/{name}" for name in storage.names(CHECKPOINTS)]
    features = [f"{DATA}/{name}" for name in _subfolders(storage, DATA)]
    folders += features
    folders += [f"{f}/{name}" for f in features for name in _subfolders(storage, f)]
    return [
        f"{folder}/{name}" if folder else name
        for folder in folders
        for name in storage.names(folder)
        if name.startswith(TEMPORARY_PREFIX)
    ]


def files_below(storage: Storage, name: str) -> Iterator[str]:
    """All objects at or below a name."""
    names = storage.names(name)
    if names:
        for below in names:
            yield from files_below(storage, f"{name}/{below}")
    else:
        yield name


def _subfolders(storage: Storage, folder: str) -> list[str]:
    return [
        name
        for name in storage.names(folder)
        if name != NODE_FILE and not name.startswith(TEMPORARY_PREFIX)
    ]
