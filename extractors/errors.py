"""Errors about media and weights; the root and the tree are in `vlpipe.stores.errors`.

VlpipeError
├── MediaError (1)              one media file cannot be used; `kind` goes to the quarantine
├── NonFiniteFeatures (1)       a network gave NaN or infinity for one video
└── EnvironmentLacks (3)
    └── WeightsMissing          no checkpoint given, or not present
UsageError (2)
└── WeightsRejected             a checkpoint is not safe to read, or not of this network
"""

from typing import Literal, get_args

from vlpipe.stores.errors import EnvironmentLacks, UsageError, VlpipeError

MediaErrorKind = Literal[
    "missing",  # no such file
    "unreadable",  # permission, I/O error, or a folder, pipe or device instead of a file
    "empty",  # zero bytes
    "not_media",  # something else: text, an HTML page, an image, random bytes
    "format_refused",  # a format that is not read on purpose, such as a playlist
    "no_video",  # frames were asked for and there is only sound
    "damaged",  # cut off or broken: fewer pictures than promised, or errors of the decoder
    "too_large",  # beyond the limits on pixels, frames, duration or memory
    "timeout",  # decoding took too long
    "crashed",  # the decoding process died
]
MEDIA_ERROR_KINDS: tuple[MediaErrorKind, ...] = get_args(MediaErrorKind)


class MediaError(VlpipeError):
    """One media file cannot be used.

    kind: a short word for tables and for deciding what to try again: see `MediaErrorKind`.
    """

    def __init__(self, kind: MediaErrorKind, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class NonFiniteFeatures(VlpipeError):
    """A network gave NaN or infinite values for a video."""


class WeightsMissing(EnvironmentLacks):
    """An extractor needs a checkpoint that was not given or is not present."""


class WeightsRejected(UsageError):
    """A checkpoint is unsafe to load, damaged, or does not belong to the network."""
