"""What is at rest: the feature store, and the dataset catalogues in `vlpipe.stores.datasets`.

The names below load on first use: `vlpipe --help` needs the errors alone, and NumPy takes longer
than all the rest of it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlpipe.stores.batch_rows import BatchRows
    from vlpipe.stores.feature_store import FeatureStore
    from vlpipe.stores.features import FeatureDefinition, Features
    from vlpipe.stores.history import LogEntry
    from vlpipe.stores.information import FeatureInfo
    from vlpipe.stores.reader import FeatureReader
    from vlpipe.stores.status import VideoStatus
    from vlpipe.stores.writer import FeatureWriter, Receipt

_MODULES = {
    "BatchRows": "batch_rows",
    "FeatureDefinition": "features",
    "FeatureInfo": "information",
    "FeatureReader": "reader",
    "FeatureStore": "feature_store",
    "FeatureWriter": "writer",
    "Features": "features",
    "LogEntry": "history",
    "Receipt": "writer",
    "VideoStatus": "status",
}

__all__ = [
    "BatchRows",
    "FeatureDefinition",
    "FeatureInfo",
    "FeatureReader",
    "FeatureStore",
    "FeatureWriter",
    "Features",
    "LogEntry",
    "Receipt",
    "VideoStatus",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
