"""Errors about media and weights; the root and the tree are in `vlpipe.stores.errors`.

    VlpipeError
    ├── MediaError (1)              one media file cannot be used; `kind` goes to the quarantine
    ├── NonFiniteFeatures (1)       a network gave NaN or infinity for one video
    └── EnvironmentLacks (3)
        └── WeightsMissing          no checkpoint given, or not present
    UsageError (2)
    └── WeightsRejected             a checkpoint is not safe to read, or not of this network
"""

from vlpipe.stores.errors import EnvironmentLacks, UsageError, VlpipeError


class MediaError(VlpipeError):
    """One media file cannot be used.

    kind: a short word for tables and for deciding what to try again: `missing`, `unreadable`,
        `empty`, `not_media`, `no_video`, `damaged`, `too_large`, `timeout`, `crashed`.
    """

    def __init__(self, kind: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class NonFiniteFeatures(VlpipeError):
    """A network gave NaN or infinite values for a video."""


class WeightsMissing(EnvironmentLacks):
    """An extractor needs a checkpoint that was not given or is not present."""


class WeightsRejected(UsageError):
    """A checkpoint is unsafe to load, damaged, or does not belong to the network."""
