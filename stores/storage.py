"""What the store asks of the place that it lies in, and which address means which place.

Names are relative to the store and use `/`. An implementation must give read-after-write
consistency for new names and an atomic `create`; nothing else in the store needs a lock.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import UsageError

Bytes = bytes | npt.NDArray[Any]


class ReplyLost(Exception):
    """The storage cannot say whether an object was created: a time-out, a cut connection."""


class RangeReader(Protocol):
    """One object, open for reading; dropping the last reference closes it."""

    @property
    def size(self) -> int: ...

    def read_into(self, offset: int, *targets: npt.NDArray[Any]) -> int:
        """How many bytes from `offset` on were read into the C-contiguous `targets`, one after the
        other: fewer than they hold only at the end."""
        ...

    def read_once(self, targets: Sequence[npt.NDArray[Any]], offset: int, /) -> int:
        """The same in one step, which may read less."""
        ...


Request = tuple[RangeReader, int, Sequence[npt.NDArray[Any]]]  # object, offset, targets


class ObjectStream(Protocol):
    """A new object that grows at its end; its first bytes are settled last."""

    def write(self, data: Bytes) -> None: ...

    def close(self, head: bytes) -> None:
        """Puts `head` over the reserved first bytes and closes the object."""
        ...

    def abandon(self) -> None:
        """Closes without finishing; never raises."""
        ...


class Storage(Protocol):
    """A place for objects under names. Failed writes raise `StoreUnwritable` with the name."""

    is_single_writer: bool  # whether `create` may look first and then write: see `create_alone`

    @property
    def url(self) -> str:
        """The address that `open_storage` turns into this place again."""
        ...

    @property
    def local_folder(self) -> str | None:
        """Absolute path of the store if it is a folder of this machine."""
        ...

    def read(self, name: str) -> bytes:
        """The whole object; FileNotFoundError when there is none."""
        ...

    def map(self, name: str) -> npt.NDArray[np.uint8]:
        """The whole object as a read-only array, without copying where that is possible."""
        ...

    def open(self, name: str) -> RangeReader: ...

    def read_ranges(self, requests: Sequence[Request]) -> list[int]:
        """`read_into` for each request, all under way at once where the place gains by it."""
        ...

    def size(self, name: str) -> int | None: ...

    def modified(self, name: str) -> float | None:
        """When the object was written, in seconds by the clock of the storage; None if absent."""
        ...

    def now(self) -> float:
        """The clock of the storage, comparable with `modified`."""
        ...

    def age_s(self, name: str) -> float | None:
        """Seconds by that clock since the object was written; None if absent.

        For objects of one's own: a place may tell the time by making the object young again.
        """
        ...

    def names(self, folder: str) -> list[str]:
        """Sorted names directly below a folder; empty when there is no such folder."""
        ...

    def prepare(self) -> None:
        """Makes the place of the store itself; existing is fine."""
        ...

    def write(self, name: str, data: Bytes) -> None:
        """Writes a new object under a name that nobody else uses; durable only after `sync`."""
        ...

    def stream(self, name: str, reserve_bytes: int) -> ObjectStream:
        """A new object that begins with `reserve_bytes` zeros, under a name nobody else uses."""
        ...

    def sync(self, names: Sequence[str]) -> None:
        """Returns when these objects and the folders above them survive a loss of power."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Whether `data` is now the object of that name; False if another has it.

        Atomic and durable, never overwrites. An object with the very same bytes counts as ours,
        because every caller's bytes are either unique to it or the same for all.
        """
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Writes or overwrites, atomically. For hints only."""
        ...

    def remove(self, name: str) -> None:
        """Removes an object, or a folder with all that is in it; absent is fine."""
        ...


def create_alone(storage: Storage, name: str, data: bytes) -> bool:
    """`Storage.create` for a place that cannot do it in one step: looks, writes, and looks again.

    Right only while no other process writes: of two at once, one may overwrite the other's object.
    """
    with suppress(FileNotFoundError):
        return storage.read(name) == data
    storage.replace(name, data)
    storage.sync([name])
    return storage.read(name) == data


def open_storage(url: str | Path, *, durability: str = "power") -> Storage:
    """The place that an address names: a path, `file://PATH`, `s3://BUCKET/PATH` or
    `memory://NAME`.

    durability: "power" (what is committed survives a loss of power) or "process" (it survives
        the death of the process only; faster).
    """
    if durability not in ("power", "process"):
        raise ValueError(f"durability {durability!r} is unknown, expected 'power' or 'process'")
    path = local_path(url)
    if path is not None:
        from vlpipe.stores.local_storage import LocalStorage

        return LocalStorage(path, is_power_safe=durability == "power")
    scheme, _, rest = str(url).partition("://")
    if scheme == "memory":
        from vlpipe.stores.memory_storage import MemoryStorage

        return MemoryStorage.named(rest)
    if scheme == "s3":
        from vlpipe.stores.s3_storage import S3Storage

        return S3Storage(rest)
    raise UsageError(
        f"store address {str(url)!r} has the scheme {scheme!r}; known are a plain path, "
        "file://, s3:// and memory://",
        hint="give a folder of this machine, or one that is mounted on it",
    )


def local_path(url: str | Path) -> Path | None:
    """The absolute path that an address names, by itself or after `file://`; None for others."""
    scheme, separator, rest = str(url).partition("://")
    if not separator or isinstance(url, Path):
        path = Path(url)
    elif scheme == "file":
        path = Path(rest)
    else:
        return None
    return path.expanduser().absolute()
