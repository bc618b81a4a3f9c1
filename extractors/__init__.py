"""Media to features: decoding, one file per extractor, their registry, published weights.

The names below load on first use: the extractors import torch, which takes seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlpipe.extractors.extractor import Extractor, ExtractorSpec
    from vlpipe.extractors.registry import (
        configure_extractor,
        create_extractor,
        list_extractors,
        register,
    )

__all__ = [
    "Extractor",
    "ExtractorSpec",
    "configure_extractor",
    "create_extractor",
    "list_extractors",
    "register",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "extractor" if name in ("Extractor", "ExtractorSpec") else "registry"
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{module}"), name)
