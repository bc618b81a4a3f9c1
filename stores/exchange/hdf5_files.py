"""HDF5 files while they are written: under another name, checked, synced, then renamed."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlpipe.stores.errors import StoreUnwritable
from vlpipe.stores.features import canonical_json
from vlpipe.stores.foreign_hdf5 import import_h5py


class Hdf5File:
    """A new HDF5 file. `handle` is the open h5py.File, until `finish` or `abandon`.

    A process that is killed leaves a file that begins with `.tmp-`; the next export of the same
    writes it again.
    """

    def __init__(self, path: Path, attributes: Mapping[str, Any]) -> None:
        self.path = path
        self._temporary = path.with_name(f".tmp-{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.unlink(missing_ok=True)
            self.handle: Any = import_h5py().File(self._temporary, "w", locking=False)
        except OSError as error:
            raise unwritable(path, error) from error
        for name, value in attributes.items():
            text = value if isinstance(value, str) else canonical_json(value)
            self.handle.attrs[name] = text

    def finish(self) -> Path:
        """Gives the file its name; StoreUnwritable when the disk does not take it."""
        try:
            self.handle.close()
            sync_file(self._temporary)
            self._temporary.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise unwritable(self.path, error) from error
        return self.path

    def abandon(self) -> None:
        # Closing flushes, which fails again on a full disk.
        try:
            self.handle.close()
        except (OSError, RuntimeError):
            pass
        finally:
            self._temporary.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    sync_file(path)


def unwritable(path: Path, error: OSError) -> StoreUnwritable:
    """The error of a file that cannot be written."""
    return StoreUnwritable(
        f"{path} cannot be written: {error.strerror or error}",
        hint="check permissions and free space, then run the same command again",
    )
