"""Extractors without a network: their samplers make the rows, from the rows of their sources.

A sample of theirs carries its rows as context, any number of them; the usual way of samples
through batches keeps their order and hands them to readers and to the store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Inferred
from vlpipe.extractors.media import MediaRequest
from vlpipe.extractors.samples import Sample
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class MadeRows:
    """Rows that a sampler made. rows: by key of the output, [R, *row_shape]. spans: [R, 2]."""

    rows: Mapping[str, npt.NDArray[Any]]
    spans: npt.NDArray[np.float64]

    def as_sample(self, span: Span | None = None) -> Sample:
        """A sample that carries them through the batches.

        span: what they describe together; from the first start to the last end if not given.
        """
        if span is None:
            span = float(self.spans.min()), float(self.spans.max())
        return Sample(np.empty(0, np.uint8), span, self)


class RowsExtractor(Extractor):
    """Base of the extractors whose samplers hand out `MadeRows`."""

    batch_size = 64
    # Next to nothing; the planner wants a number above 0.
    gflop_per_sample: ClassVar[float] = 1e-6

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest | None:
        del config
        return None

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        del config
        return nn.Identity()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        del network, checkpoints

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(samples).to(self.device)

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """The rows that the samples carry, one sample after the other."""
        made = [cast(MadeRows, sample.context) for sample in samples]
        return gather_rows(self, made)


def gather_rows(extractor: Extractor, made: Sequence[MadeRows]) -> Inferred:
    """The rows of one sample after the other, each in float32 or the dtype of its output."""
    rows = {}
    for output in extractor.spec.outputs:
        dtype = np.dtype(output.dtype or "float32")
        none = np.zeros((0, *output.row_shape), dtype)
        rows[output.feature] = np.concatenate(
            [none, *(np.asarray(part.rows[output.key], dtype) for part in made)]
        )
    spans = np.concatenate([np.zeros((0, 2)), *(part.spans for part in made)])
    return Inferred(rows, spans, np.array([len(part.spans) for part in made], np.int64))
