"""What a feature is: the rows of one video, and the definition that gives them their identity."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import UsageError

FEATURE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def canonical_json(value: Any) -> str:  # noqa: ANN401 - anything that json accepts
    """One text for equal values: sorted keys, no spaces, UTF-8; NaN and infinities are refused."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


@dataclass(frozen=True, slots=True)
class Features:
    """The rows of one feature of one video.

    rows: [T, *row_shape], first axis time.
    spans: [T, 2] float64, the half-open interval [start_s, end_s) that each row describes, in
        seconds since the start of the media file.
    """

    rows: npt.NDArray[Any]
    spans: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.spans.shape != (len(self.rows), 2):
            raise ValueError(
                f"spans have shape {self.spans.shape}, expected ({len(self.rows)}, 2) for "
                f"{len(self.rows)} rows"
            )


@dataclass(frozen=True)
class FeatureDefinition:
    """Name, row layout and provenance of one feature; equal definitions are one generation.

    dtype: name of the stored dtype (float16, float32, float64, bfloat16, uint8 ... int64).
    row_shape: shape of one row, without the time axis.
    dimensions: names of the axes of `row_shape`, one each.
    provenance: JSON of all that the values depend on: extractor and its version, weights,
        resolved configuration, decoder and sampling, precision and device class. It is part of
        the identity; host names and times are not and do not belong here.
    """

    name: str
    dtype: str
    row_shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not FEATURE_NAME.fullmatch(self.name):
            raise UsageError(
                f"feature name {self.name!r} is not valid: expected {FEATURE_NAME.pattern}"
            )
        if len(self.dimensions) != len(self.row_shape):
            raise ValueError(
                f"{self.name}: {self.dimensions} do not name the axes {self.row_shape}"
            )

    def __hash__(self) -> int:
        return hash((self.name, self.dtype, self.row_shape))  # provenance is a mutable mapping

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the canonical JSON of the definition."""
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()

    @property
    def generation(self) -> str:
        """First 12 hex digits of the fingerprint: the folder name and the `@` suffix."""
        return self.fingerprint[:12]

    @property
    def is_untrained(self) -> bool:
        """Whether the rows come from random weights, their own or those of a source."""
        return _is_untrained(self.provenance)

    @property
    def weights(self) -> str:
        """`untrained`, `checkpoint`, or `-` where no network of ours made the rows."""
        if self.is_untrained:
            return "untrained"
        return "checkpoint" if _has_checkpoint(self.provenance) else "-"

    def to_json(self) -> dict[str, Any]:
        """The definition as JSON; `from_json` is its inverse."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "row_shape": list(self.row_shape),
            "dimensions": list(self.dimensions),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FeatureDefinition":
        return cls(
            name=value["name"],
            dtype=value["dtype"],
            row_shape=tuple(value["row_shape"]),
            dimensions=tuple(value["dimensions"]),
            provenance=value["provenance"],
        )


def _has_checkpoint(provenance: Mapping[str, Any]) -> bool:
    weights, sources = provenance.get("weights"), provenance.get("sources")
    if isinstance(weights, Mapping) and weights.get("sha256"):
        return True
    return isinstance(sources, Mapping) and any(map(_has_checkpoint, sources.values()))


def _is_untrained(provenance: Mapping[str, Any]) -> bool:
    weights = provenance.get("weights")
    if isinstance(weights, Mapping) and weights.get("untrained"):
        return True
    sources = provenance.get("sources")
    return isinstance(sources, Mapping) and any(map(_is_untrained, sources.values()))
