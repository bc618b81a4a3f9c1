"""Temporary: names that moved to `checkpoint`, `weights_folder` and `weights_source`."""

from vlpipe.extractors.checkpoint import Checkpoint, PublishedCheckpoint, sha256_of
from vlpipe.extractors.weights_folder import AddedCheckpoint, WeightsFolder
from vlpipe.extractors.weights_source import UNTRAINED, WeightsSource, parse_source

__all__ = [
    "UNTRAINED",
    "AddedCheckpoint",
    "Checkpoint",
    "PublishedCheckpoint",
    "WeightsFolder",
    "WeightsSource",
    "parse_source",
    "sha256_of",
]
