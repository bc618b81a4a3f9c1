"""The errors that vlpipe raises for what users, files and machines do.

    VlpipeError                     root; `exit_code` is what the command line returns
    ├── UsageError (2)              wrong option, name or configuration
    │   ├── AnnotationError         an annotation file of a dataset is missing or malformed
    │   ├── StoreNotFound           no store at that address
    │   ├── FeatureMissing          the store has no such feature (also a KeyError)
    │   ├── VideoMissing            the store has no rows of that video (also a KeyError)
    │   ├── SnapshotGone            the files of an old version of the store were collected
    │   └── RowsRefused             rows that may not be stored (also a ValueError)
    ├── EnvironmentLacks (3)        GPU, disk space, weights or a library is missing
    │   ├── StoreUnwritable         the store cannot be written: permission, disk full, I/O error
    │   └── StoreTooNew             the store needs a newer vlpipe
    └── StoreDamaged (4)            bytes at rest are not what was committed

Errors about media and weights derive from these in `vlpipe.extractors.errors`.
A message says what was found and where, and what was expected; `hint` says what to do next.
"""

from typing import ClassVar

# Where a file cannot be created only if it is absent.
SINGLE_WRITER_HINT = (
    "or, if one process at a time writes to it, make it by "
    "FeatureStore.create(..., single_writer=True)"
)


class VlpipeError(Exception):
    """Root of all errors meant for users. `hint` is a command or option to try next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(VlpipeError):
    """A wrong option, name or configuration."""

    exit_code = 2


class AnnotationError(UsageError):
    """An annotation file of a dataset is missing, or not in the format of its publisher."""


class StoreNotFound(UsageError):
    """There is no feature store at the given address."""


class FeatureMissing(UsageError, KeyError):
    """The store has no feature of that name."""

    __str__ = VlpipeError.__str__


class VideoMissing(UsageError, KeyError):
    """The store has no rows of that video: never written, failed, or deleted."""

    __str__ = VlpipeError.__str__


class SnapshotGone(UsageError):
    """The files of an old version of the store were collected."""


class RowsRefused(UsageError, ValueError):
    """Rows that may not be stored: not finite, of another shape, or too large for the dtype."""

    __str__ = VlpipeError.__str__


class EnvironmentLacks(VlpipeError):
    """The machine lacks something: a GPU, disk space, weights, a library."""

    exit_code = 3


class StoreUnwritable(EnvironmentLacks):
    """The store cannot be written: permission lost, disk full, or an I/O error."""


class StoreTooNew(EnvironmentLacks):
    """The store was written by a newer vlpipe, in a form that this one does not know."""

    def __init__(self, message: str, *, hint: str | None = "pip install --upgrade vlpipe") -> None:
        super().__init__(message, hint=hint)


class StoreDamaged(VlpipeError):
    """Bytes at rest are not the bytes that were committed."""

    exit_code = 4
