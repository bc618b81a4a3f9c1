"""Mappings whose lower layer is read from a checkpoint when it is first needed."""

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Layered(Generic[K, V]):
    """A mapping: what a checkpoint says, read when first needed, under what changed since."""

    def __init__(self, load: Callable[[], dict[K, V]] = dict, num_below: int = 0) -> None:
        self._base = _Late(load)
        self._num_below = num_below  # known without reading; 0 saves reading
        self._changes: dict[K, V | None] = {}

    def copy(self) -> "Layered[K, V]":
        other: Layered[K, V] = Layered(num_below=self._num_below)
        other._base = self._base
        other._changes = self._changes.copy()
        return other

    def get(self, key: K) -> V | None:
        return self._changes[key] if key in self._changes else self._below().get(key)

    def set(self, key: K, value: V) -> None:
        self._changes[key] = value

    def forget(self, keys: Iterable[K]) -> None:
        if self._num_below:
            self._changes.update(zip(keys, repeat(None), strict=False))
        elif self._changes:
            for key in keys:
                self._changes.pop(key, None)

    def items(self) -> Iterator[tuple[K, V]]:
        for key, value in self._below().items():
            if key not in self._changes:
                yield key, value
        for key, changed in self._changes.items():
            if changed is not None:
                yield key, changed

    def forget_all(self, predicate: Callable[[K], bool]) -> None:
        self.forget([key for key, _ in self.items() if predicate(key)])

    def __bool__(self) -> bool:
        return bool(self._num_below or self._changes)

    def _below(self) -> dict[K, V]:
        return self._base.get() if self._num_below else {}


class _Late(Generic[K, V]):
    """A dictionary that is read once, when first asked for, by all states that share it."""

    def __init__(self, load: Callable[[], dict[K, V]]) -> None:
        self._load = load
        self._value: dict[K, V] | None = None

    def get(self) -> dict[K, V]:
        if self._value is None:
            self._value = self._load()
        return self._value
