"""Making a store, and recognising one."""

import uuid

from vlpipe.stores import zarr_metadata
from vlpipe.stores.errors import (
    SINGLE_WRITER_HINT,
    StoreDamaged,
    StoreNotFound,
    StoreTooNew,
    StoreUnwritable,
    UsageError,
)
from vlpipe.stores.layout import (
    CHECKPOINTS,
    DATA,
    FORMAT_NAME,
    FORMAT_VERSION,
    LOG,
    NODE_FILE,
    STORE_FILE,
    TEMPORARY_PREFIX,
    new_temporary_name,
    now_utc,
)
from vlpipe.stores.sealed_json import seal, unseal
from vlpipe.stores.storage import Storage

# What a creation that was killed may have left.
_OWN_NAMES = frozenset({LOG, CHECKPOINTS, DATA, "refs"})


def create_store(storage: Storage, *, is_single_writer: bool = False) -> None:
    """Makes an empty store; UsageError when there is one, or other files, at its place.

    is_single_writer: it is noted in the store, and all who open it do without `create` in one step.
    """
    storage.prepare()
    others = [
        name
        for name in storage.names("")
        if name not in _OWN_NAMES and not name.startswith(TEMPORARY_PREFIX)
    ]
    if STORE_FILE in others:
        raise _store_exists(storage)
    if others:
        raise UsageError(
            f"{storage.url} is not empty: it holds {', '.join(others[:5])}",
            hint="give the store a folder of its own",
        )
    storage.is_single_writer = is_single_writer
    _probe(storage)
    root = zarr_metadata.encode(zarr_metadata.group())
    storage.create(f"{DATA}/{NODE_FILE}", root)
    body = {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "store_id": str(uuid.uuid4()),
        "created": now_utc(),
    }
    if is_single_writer:
        body["is_single_writer"] = True
    if not storage.create(STORE_FILE, seal(body)):
        raise _store_exists(storage)


def check_store(storage: Storage) -> None:
    """Raises StoreNotFound where there is no store, StoreTooNew for one of a later format.

    Tells `storage` if the store was made for a single writer.
    """
    try:
        data = storage.read(STORE_FILE)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreNotFound(
            f"there is no feature store at {storage.url}",
            hint="check the address; FeatureStore.create or vlpipe extract makes one",
        ) from error
    where = f"{storage.url}/{STORE_FILE}"
    body = unseal(data, where)
    if body["format"] != FORMAT_NAME:
        raise StoreDamaged(f"{where} is not the description of a feature store")
    if body["format_version"] > FORMAT_VERSION:
        raise StoreTooNew(
            f"{storage.url} has store format {body['format_version']}, this vlpipe reads up to "
            f"{FORMAT_VERSION}"
        )
    storage.is_single_writer = bool(body.get("is_single_writer", False))


def _probe(storage: Storage) -> None:
    """Commits are safe only where a second creation of the same name fails, so try that."""
    name = f"{LOG}/{new_temporary_name()}"
    try:
        is_first_in = storage.create(name, b"first")
        is_second_in = storage.create(name, b"second")
    finally:
        storage.remove(name)
    if not is_first_in or is_second_in:
        raise StoreUnwritable(
            f"{storage.url} cannot create a file only if it is absent, so that two writers would "
            "overwrite each other",
            hint=f"put the store on a local disk or another file system; {SINGLE_WRITER_HINT}",
        )


def _store_exists(storage: Storage) -> UsageError:
    return UsageError(
        f"there is a feature store at {storage.url} already",
        hint="open it: FeatureStore.open or FeatureStore.open_or_create",
    )
