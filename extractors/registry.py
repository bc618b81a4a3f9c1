"""The extractors by name: each file of this folder that registers one is found by itself."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import vlpipe.extractors
from vlpipe.extractors.device import parse_device
from vlpipe.extractors.extractor import Extractor, ExtractorSpec, choose_weights, parse_config
from vlpipe.extractors.precision import parse_precision
from vlpipe.extractors.weights import PublishedCheckpoint, WeightsFolder, parse_source
from vlpipe.stores.errors import UsageError

_registered: dict[str, type[Extractor]] = {}

E = TypeVar("E", bound=type[Extractor])


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


@cache
def _discover() -> Mapping[str, type[Extractor]]:
    for module in pkgutil.iter_modules(vlpipe.extractors.__path__, "vlpipe.extractors."):
        if not module.ispkg:
            importlib.import_module(module.name)
    return MappingProxyType(dict(sorted(_registered.items())))


def list_extractors() -> list[str]:
    """The names of all extractors, sorted."""
    return list(_discover())


def find_extractor(name: str) -> type[Extractor]:
    """The extractor of that name; UsageError lists the nearest names."""
    known = _discover()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        raise UsageError(
            f"there is no extractor {name!r}" + (f"; nearest: {', '.join(near)}" if near else ""),
            hint="`vlpipe extractors ls` lists all",
        )
    return known[name]


def list_checkpoints() -> dict[str, tuple[PublishedCheckpoint, str, list[type[Extractor]]]]:
    """All published checkpoints by name, with their role and the extractors that read them."""
    found: dict[str, tuple[PublishedCheckpoint, str, list[type[Extractor]]]] = {}
    for extractor in _discover().values():
        for role, checkpoints in extractor.published_checkpoints().items():
            for checkpoint in checkpoints:
                found.setdefault(checkpoint.name, (checkpoint, role, []))[2].append(extractor)
    return found


def configure_extractor(
    name: str,
    *,
    weights: str | Path | Mapping[str, str | Path] | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    store_dtype: str = "float16",
    **settings: Any,  # noqa: ANN401 - the fields of the extractor's Config, validated by it
) -> ExtractorSpec:
    """An extractor with its configuration and weights settled, its network not yet built.

    weights: a file, the name of a published checkpoint, a mapping from role to either, or
        `untrained`. None takes what `vlpipe weights add` has added.
    Raises UsageError for an unknown name or setting, WeightsMissing without a checkpoint.
    """
    extractor = find_extractor(name)
    source, defaults = parse_source(weights, extractor.published_checkpoints(), WeightsFolder())
    config = parse_config(extractor, settings, defaults)
    parse_device(device)
    return ExtractorSpec(
        extractor,
        config,
        choose_weights(extractor, config, source),
        parse_precision(precision),
        device,
        store_dtype,
    )


def create_extractor(
    name: str,
    *,
    weights: str | Path | Mapping[str, str | Path] | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    **settings: Any,  # noqa: ANN401 - as in configure_extractor
) -> Extractor:
    """An extractor ready to use: `extract(path)` gives features, `network(x)` a dict of tensors.

    The arguments are those of `configure_extractor`.
    """
    return configure_extractor(
        name, weights=weights, device=device, precision=precision, **settings
    ).build()
