"""Things of one kind by name, each registered by a file of one folder: adding one adds a file."""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from typing import Generic, TypeVar

from vlpipe.stores.errors import UsageError

T = TypeVar("T", bound=type)


class Registry(Generic[T]):
    """Classes that files register when they are imported, which happens when they are asked for.

    kind: the word for one of them. package: the dotted name of the folder; files that begin with
    `_` hold what others share. hint: what to do about a name that is not known; by default it lists
    those that are.
    """

    def __init__(self, kind: str, package: str, hint: str | None = None) -> None:
        self._kind = kind
        self._package = package
        self._hint = hint
        self._known: dict[str, T] = {}

    def add(self, name: str, found: T) -> None:
        """Makes a class known by a name; ValueError if the name is taken."""
        if name in self._known:
            raise ValueError(
                f"{self._kind} {name!r} is registered twice: {self._known[name].__module__} and "
                f"{found.__module__}"
            )
        self._known[name] = found

    def all(self) -> dict[str, T]:
        """All of them, by name in sorted order. Imports every file."""
        for file in self._files():
            importlib.import_module(f"{self._package}.{file}")
        return dict(sorted(self._known.items()))

    def find(self, name: str) -> T:
        """The class of that name; UsageError names the nearest ones if there is none.

        Where a file has the very name, it alone is imported: others may load large libraries.
        """
        if name not in self._known and name in self._files():
            importlib.import_module(f"{self._package}.{name}")
        if name in self._known:
            return self._known[name]
        known = self.all()
        if name not in known:
            hint = self._hint or f"the {self._kind}s: {', '.join(known)}"
            raise unknown_name(self._kind, name, known, hint=hint)
        return known[name]

    def _files(self) -> list[str]:
        folder = importlib.import_module(self._package).__path__
        found = pkgutil.iter_modules(folder)
        return [file.name for file in found if not file.ispkg and not file.name.startswith("_")]


def unknown_name(kind: str, name: str, choices: Iterable[str], *, hint: str) -> UsageError:
    """The error for a name that is not among the choices; it says which are nearest."""
    near = difflib.get_close_matches(name, list(choices), n=3, cutoff=0.5)
    nearest = f"; nearest: {', '.join(near)}" if near else ""
    return UsageError(f"there is no {kind} {name!r}{nearest}", hint=hint)
