"""Families: extractors that are made for a name on demand, known as `FAMILY:NAME`."""

import importlib
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import ModuleType
from typing import ClassVar

from vlpipe.extractors.extractor import Extractor
from vlpipe.stores.errors import EnvironmentLacks

_MAX_FEATURE_NAME = 64


class ExtractorFamily(ABC):
    """Makes extractors for the names of a library. Subclasses register with `@register_family`.

    Nothing of the library is imported before one of its names is asked for.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    """One line for listings: what its extractors make, and of whose networks."""

    where_listed: ClassVar[str]
    """For errors: where its names can be looked up."""

    @classmethod
    @abstractmethod
    def members(cls) -> Sequence[str]:
        """The names that it knows; EnvironmentLacks if its library is not installed."""

    @classmethod
    @abstractmethod
    def make(cls, member: str) -> type[Extractor]:
        """The extractor for one of `members`, complete but for its `name`.

        Raises EnvironmentLacks if its library is not installed, UsageError for a network that
        makes no features here.
        """

    @classmethod
    def member_of_checkpoint(cls, checkpoint: str) -> str:
        """The member that publishes the checkpoint `FAMILY:checkpoint` (default: the same name)."""
        return checkpoint


def import_library(module: str, extra: str, needed_for: str) -> ModuleType:
    """The module of an optional library; EnvironmentLacks says how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise EnvironmentLacks(
            f"{needed_for} needs the library {module}, which is not installed",
            hint=f'pip install "vlpipe[{extra}]"',
        ) from None


def feature_name_of(name: str) -> str:
    """The name of an extractor as that of a feature: `timm:resnet50.a1_in1k` in lower case with
    underscores; what is longer than 64 characters ends in a checksum of the whole."""
    feature = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if len(feature) <= _MAX_FEATURE_NAME:
        return feature
    checksum = f"_{zlib.crc32(name.encode()):08x}"
    return feature[: _MAX_FEATURE_NAME - len(checksum)] + checksum
