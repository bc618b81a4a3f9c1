"""The extractors by name: each file of this folder that registers one is found by itself.

A family registers a prefix instead of a name: `timm:resnet50` is made when it is asked for.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import TypeVar

import vlpipe.extractors
from vlpipe.extractors.extractor import Extractor
from vlpipe.extractors.family import ExtractorFamily
from vlpipe.extractors.weights.checkpoint import PublishedCheckpoint
from vlpipe.stores.errors import UsageError

_registered: dict[str, type[Extractor]] = {}
_families: dict[str, type[ExtractorFamily]] = {}

E = TypeVar("E", bound=type[Extractor])
F = TypeVar("F", bound=type[ExtractorFamily])


def register(name: str) -> Callable[[E], E]:
    """Class decorator: makes an extractor known by that name; a name is given only once."""

    def enter(extractor: E) -> E:
        if name in _registered:
            raise ValueError(
                f"extractor {name!r} is registered twice: {_registered[name].__module__} and "
                f"{extractor.__module__}"
            )
        extractor.name = name
        _registered[name] = extractor
        return extractor

    return enter


def register_family(name: str) -> Callable[[F], F]:
    """Class decorator: makes the members of a family known as `name:MEMBER`."""

    def enter(family: F) -> F:
        if name in _families:
            raise ValueError(
                f"family {name!r} is registered twice: {_families[name].__module__} and "
                f"{family.__module__}"
            )
        family.name = name
        _families[name] = family
        return family

    return enter


@cache
def _discover() -> Mapping[str, type[Extractor]]:
    for module in pkgutil.iter_modules(vlpipe.extractors.__path__, "vlpipe.extractors."):
        if not module.ispkg:
            importlib.import_module(module.name)
    return MappingProxyType(dict(sorted(_registered.items())))


def list_extractors() -> list[str]:
    """The names of all extractors, sorted; the members of families are not among them."""
    return list(_discover())


def list_families() -> list[type[ExtractorFamily]]:
    """The families of extractors, by name."""
    _discover()
    return [_families[name] for name in sorted(_families)]


def find_extractor(name: str) -> type[Extractor]:
    """The extractor of that name, which may be `FAMILY:MEMBER`.

    Raises UsageError, with the nearest names, if there is none, and EnvironmentLacks if the
    library of its family is not installed.
    """
    known = _discover()
    family, is_member, member = name.partition(":")
    if is_member and family in _families:
        return _make_member(family, member)
    if name not in known:
        in_families = [f"{prefix}:{member}" for prefix in _families] if is_member else []
        raise _unknown(name, [*known, *in_families], hint="`vlpipe extractors ls` lists all")
    return known[name]


@cache
def _make_member(family: str, member: str) -> type[Extractor]:
    maker = _families[family]
    members = maker.members()
    if member not in members:
        choices = [f"{family}:{known}" for known in members]
        raise _unknown(f"{family}:{member}", choices, hint=maker.where_listed)
    extractor = maker.make(member)
    extractor.name = f"{family}:{member}"
    return extractor


def _unknown(name: str, choices: Sequence[str], *, hint: str) -> UsageError:
    near = difflib.get_close_matches(name, choices, n=3)
    return UsageError(
        f"there is no extractor {name!r}" + (f"; nearest: {', '.join(near)}" if near else ""),
        hint=hint,
    )


def find_checkpoint(name: str) -> tuple[PublishedCheckpoint, str, list[type[Extractor]]] | None:
    """As `list_checkpoints`, of one checkpoint, which may be that of a family's member."""
    _discover()
    prefix, is_member, rest = name.partition(":")
    if not is_member or prefix not in _families:
        return list_checkpoints().get(name)
    extractor = find_extractor(f"{prefix}:{_families[prefix].member_of_checkpoint(rest)}")
    for role, checkpoints in extractor.published_checkpoints().items():
        for checkpoint in checkpoints:
            if checkpoint.name == name:
                return checkpoint, role, [extractor]
    return None


def list_checkpoints() -> dict[str, tuple[PublishedCheckpoint, str, list[type[Extractor]]]]:
    """All published checkpoints by name, with their role and the extractors that read them.

    Those of families are not among them.
    """
    found: dict[str, tuple[PublishedCheckpoint, str, list[type[Extractor]]]] = {}
    for extractor in _discover().values():
        for role, checkpoints in extractor.published_checkpoints().items():
            for checkpoint in checkpoints:
                found.setdefault(checkpoint.name, (checkpoint, role, []))[2].append(extractor)
    return found
