"""What a store tells about a feature."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.generation import GenerationState
from vlpipe.stores.row_file import row_size_bytes
from vlpipe.stores.state import State
from vlpipe.stores.stored_dtypes import stored_dtype


@dataclass(frozen=True)
class FeatureInfo:
    """One feature generation at one version of the store.

    time_units: unit of the spans of rows. num_bytes: of the live rows, without spans.
    is_untrained: whether the rows come from random weights.
    """

    name: str
    generation: str
    dtype: str
    row_shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    time_units: str
    provenance: Mapping[str, Any]
    definition: FeatureDefinition
    num_videos: int
    num_rows: int
    num_bytes: int
    num_failed: int
    is_active: bool
    is_untrained: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row; the first axis of a video's array, time, is not in it."""
        return self.row_shape


def feature_info(state: State, generation: GenerationState) -> FeatureInfo:
    definition = generation.definition
    num_videos, num_rows = generation.counts
    row_bytes = row_size_bytes(stored_dtype(definition.dtype), definition.row_shape)
    return FeatureInfo(
        name=definition.name,
        generation=generation.generation,
        dtype=definition.dtype,
        row_shape=definition.row_shape,
        dimensions=definition.dimensions,
        time_units="seconds",
        provenance=definition.provenance,
        definition=definition,
        num_videos=num_videos,
        num_rows=num_rows,
        num_bytes=num_rows * row_bytes,
        num_failed=sum(1 for key, _ in state.failures.items() if key[:2] == generation.key),
        is_active=state.active.get(definition.name) == generation.generation,
        is_untrained=definition.is_untrained,
    )
