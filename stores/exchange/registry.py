"""The layouts by name: each file of `layouts/` declares some in `LAYOUTS`."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from vlpipe.stores.exchange import layouts
from vlpipe.stores.exchange.layout import Layout
from vlpipe.stores.registry import unknown_name


@cache
def _discover() -> Mapping[str, Layout]:
    found: dict[str, Layout] = {}
    for module in pkgutil.iter_modules(layouts.__path__, f"{layouts.__name__}."):
        declared: tuple[Layout, ...] = importlib.import_module(module.name).LAYOUTS
        for layout in declared:
            if layout.name in found:
                raise ValueError(f"layout {layout.name!r} is declared twice, last in {module.name}")
            found[layout.name] = layout
    return MappingProxyType(dict(sorted(found.items())))


def list_layouts() -> list[Layout]:
    """All layouts, sorted by name."""
    return list(_discover().values())


def find_layout(name: str) -> Layout:
    """The layout of that name; UsageError lists the nearest names."""
    known = _discover()
    if name not in known:
        raise unknown_name("layout", name, known, hint="`vlpipe store layouts` lists all")
    return known[name]
