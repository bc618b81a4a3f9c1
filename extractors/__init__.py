"""Media to features: decoding, one file per extractor, their registry, published weights.

The names below load on first use: the extractors import torch, which takes seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlpipe.extractors.configuration import configure_extractor, create_extractor
    from vlpipe.extractors.extractor import Extractor, ExtractorSpec
    from vlpipe.extractors.registry import list_extractors, register

_MODULES = {
    "Extractor": "extractor",
    "ExtractorSpec": "extractor",
    "configure_extractor": "configuration",
    "create_extractor": "configuration",
    "list_extractors": "registry",
    "register": "registry",
}

__all__ = [
    "Extractor",
    "ExtractorSpec",
    "configure_extractor",
    "create_extractor",
    "list_extractors",
    "register",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
