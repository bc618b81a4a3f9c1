"""What is at rest: the feature store, and the dataset catalogues in `vlpipe.stores.datasets`."""

from vlpipe.stores.batch_rows import BatchRows
from vlpipe.stores.feature_store import FeatureStore
from vlpipe.stores.features import FeatureDefinition, Features
from vlpipe.stores.history import LogEntry
from vlpipe.stores.information import FeatureInfo
from vlpipe.stores.reader import FeatureReader
from vlpipe.stores.status import VideoStatus
from vlpipe.stores.writer import FeatureWriter, Receipt

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
