"""The extractors by name: each file of this folder that registers one is found by itself.

A family registers a prefix instead of a name: `timm:resnet50` is made when it is asked for.
"""

from collections.abc import Callable
from functools import cache
from typing import TypeVar

from vlpipe.extractors.extractor import Extractor
from vlpipe.extractors.family import ExtractorFamily
from vlpipe.extractors.weights.checkpoint import PublishedCheckpoint
from vlpipe.stores.registry import Registry, unknown_name

_HINT = "`vlpipe extractors ls` lists all"

_extractors: Registry[type[Extractor]] = Registry("extractor", "vlpipe.extractors", _HINT)
_families: Registry[type[ExtractorFamily]] = Registry("family", "vlpipe.extractors", _HINT)

E = TypeVar("E", bound=type[Extractor])
F = TypeVar("F", bound=type[ExtractorFamily])


def register(name: str) -> Callable[[E], E]:
    """Class decorator: makes an extractor known by that name; a name is given only once."""

    def enter(extractor: E) -> E:
        _extractors.add(name, extractor)  # first: what is refused keeps its name
        extractor.name = name
        return extractor

    return enter


def register_family(name: str) -> Callable[[F], F]:
    """Class decorator: makes the members of a family known as `name:MEMBER`."""

    def enter(family: F) -> F:
        _families.add(name, family)  # first: what is refused keeps its name
        family.name = name
        return family

    return enter


def list_extractors() -> list[str]:
    """The names of all extractors, sorted; the members of families are not among them."""
    return list(_extractors.all())


def list_families() -> list[type[ExtractorFamily]]:
    """The families of extractors, by name."""
    return list(_families.all().values())


def find_extractor(name: str) -> type[Extractor]:
    """The extractor of that name, which may be `FAMILY:MEMBER`.

    Raises UsageError, with the nearest names, if there is none, and EnvironmentLacks if the
    library of its family is not installed.
    """
    family, is_member, member = name.partition(":")
    if not is_member:
        extractor = _extractors.find(name)
        if extractor.has_registered_parts:
            _extractors.all()
        return extractor
    if family in _families.all():
        return _make_member(family, member)
    choices = [*_extractors.all(), *(f"{prefix}:{member}" for prefix in _families.all())]
    raise unknown_name("extractor", name, choices, hint=_HINT)


@cache
def _make_member(family: str, member: str) -> type[Extractor]:
    maker = _families.find(family)
    members = maker.members()
    if member not in members:
        choices = [f"{family}:{known}" for known in members]
        raise unknown_name("extractor", f"{family}:{member}", choices, hint=maker.where_listed)
    extractor = maker.make(member)
    extractor.name = f"{family}:{member}"
    return extractor


def find_checkpoint(name: str) -> tuple[PublishedCheckpoint, str, list[type[Extractor]]] | None:
    """As `list_checkpoints`, of one checkpoint, which may be that of a family's member."""
    prefix, is_member, rest = name.partition(":")
    families = _families.all()
    if not is_member or prefix not in families:
        return list_checkpoints().get(name)
    extractor = find_extractor(f"{prefix}:{families[prefix].member_of_checkpoint(rest)}")
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
    for extractor in _extractors.all().values():
        for role, checkpoints in extractor.published_checkpoints().items():
            for checkpoint in checkpoints:
                found.setdefault(checkpoint.name, (checkpoint, role, []))[2].append(extractor)
    return found
