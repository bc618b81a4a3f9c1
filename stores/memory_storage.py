"""A store in the memory of this process: for tests and short experiments."""

import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vlpipe.stores.storage import Bytes, Request


class MemoryStorage:
    """Objects by name. `named` gives the same place for the same name, within one process."""

    _places: ClassVar[dict[str, "MemoryStorage"]] = {}

    def __init__(self, name: str) -> None:
        self._name = name
        self.is_single_writer = False  # no matter: `create` is one step here
        self._objects: dict[str, tuple[bytes, float]] = {}

    @classmethod
    def named(cls, name: str) -> "MemoryStorage":
        return cls._places.setdefault(name, cls(name))

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    @property
    def local_folder(self) -> str | None:
        return None

    def read(self, name: str) -> bytes:
        try:
            return self._objects[name][0]
        except KeyError:
            raise FileNotFoundError(f"{self.url}/{name}") from None

    def map(self, name: str) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self.read(name), np.uint8)

    def open(self, name: str) -> "MemoryObject":
        return MemoryObject(self.map(name))

    def read_ranges(self, requests: Sequence[Request]) -> list[int]:
        return [file.read_into(offset, *targets) for file, offset, targets in requests]

    def size(self, name: str) -> int | None:
        found = self._objects.get(name)
        return None if found is None else len(found[0])

    def modified(self, name: str) -> float | None:
        found = self._objects.get(name)
        return None if found is None else found[1]

    def now(self) -> float:
        return time.time()

    def age_s(self, name: str) -> float | None:
        written = self.modified(name)
        return None if written is None else self.now() - written

    def names(self, folder: str) -> list[str]:
        prefix = f"{folder}/" if folder else ""
        below = (name[len(prefix) :] for name in list(self._objects) if name.startswith(prefix))
        return sorted({name.partition("/")[0] for name in below})

    def prepare(self) -> None:
        pass

    def write(self, name: str, data: Bytes) -> None:
        self._objects[name] = (_as_bytes(data), self.now())

    def stream(self, name: str, reserve_bytes: int) -> "MemoryStream":
        return MemoryStream(self, name, reserve_bytes)

    def sync(self, names: Sequence[str]) -> None:
        pass

    def create(self, name: str, data: bytes) -> bool:
        # setdefault is one step of the interpreter, so two threads cannot both win.
        return self._objects.setdefault(name, (data, self.now()))[0] == data

    def replace(self, name: str, data: bytes) -> None:
        self.write(name, data)

    def remove(self, name: str) -> None:
        self._objects.pop(name, None)
        for other in [other for other in list(self._objects) if other.startswith(f"{name}/")]:
            self._objects.pop(other, None)


class MemoryObject:
    """An object open for reading: the bytes as they were when it was opened."""

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self._data = data
        self.size = len(data)

    def read_into(self, offset: int, *targets: npt.NDArray[Any]) -> int:
        first = offset
        for target in targets:
            found = self._data[offset : offset + target.nbytes]
            target.reshape(-1).view(np.uint8)[: len(found)] = found
            offset += len(found)
        return offset - first

    def read_once(self, targets: Sequence[npt.NDArray[Any]], offset: int) -> int:
        return self.read_into(offset, *targets)


class MemoryStream:
    """An object that grows at its end and appears when it is closed."""

    def __init__(self, storage: MemoryStorage, name: str, reserve_bytes: int) -> None:
        self._storage = storage
        self._name = name
        self._data = bytearray(reserve_bytes)

    def write(self, data: Bytes) -> None:
        self._data += _as_bytes(data)

    def close(self, head: bytes) -> None:
        self._data[: len(head)] = head
        self._storage.write(self._name, bytes(self._data))

    def abandon(self) -> None:
        self._data.clear()


def _as_bytes(data: bytes | npt.NDArray[Any]) -> bytes:
    return data if isinstance(data, bytes) else data.tobytes()
