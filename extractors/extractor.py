"""What every extractor is: a request to the decoder, samples of one video, a network over batches.

An extractor turns one decoded stream, or the rows of other extractors, into *samples* (one input
of the network each, with the time span that it describes), runs its network on batches of samples
that may come from many videos, and hands back the rows of each sample. It knows nothing of stores
or flows; `one_pass.py` wires extractors together, `vlpipe.pipelines` runs them over collections.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BeforeValidator
from torch import Tensor, nn

from vlpipe.extractors.device import open_device
from vlpipe.extractors.extractor_spec import ExtractorConfig, ExtractorSpec, Output, Source
from vlpipe.extractors.media import MediaInfo, MediaRequest
from vlpipe.extractors.networks.folded_norm import fold_norms
from vlpipe.extractors.precision import run_at
from vlpipe.extractors.samples import Sample, Sampler
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint
from vlpipe.stores.features import Features, canonical_json

# What a file that holds an extractor needs of this package.
__all__ = ["Extractor", "ExtractorConfig", "ExtractorSpec", "Inferred", "Names", "Output", "Source"]

# All threads of a process draw from one generator; workers of several devices build at a time.
_DRAWING = threading.Lock()

T = TypeVar("T")

Names = Annotated[
    tuple[T, ...], BeforeValidator(lambda v: v.split(",") if isinstance(v, str) else v)
]
"""Several names of a kind; one alone, or several with commas, may be given as a text."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """The rows of N samples.

    rows: by feature, [R, *row_shape], float32 or the dtype of the output. spans: float64 [R, 2]
    seconds. counts: int64 [N], how many of the R rows each sample made, in order. uses: int64 [N],
    for how many inputs the result of each sample stands; None is 1 for all.
    """

    rows: Mapping[str, npt.NDArray[Any]]
    spans: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    uses: npt.NDArray[np.int64] | None = None

    def of_samples(self, first: int, last: int) -> "Inferred":
        """The rows of samples first to last - 1."""
        start = int(self.counts[:first].sum())
        stop = start + int(self.counts[first:last].sum())
        return Inferred(
            {feature: rows[start:stop] for feature, rows in self.rows.items()},
            self.spans[start:stop],
            self.counts[first:last],
            None if self.uses is None else self.uses[first:last],
        )


class Extractor(ABC):
    """A network, and how media becomes its input. Subclasses register with `@register(name)`."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised whenever a change of code changes the numbers; part of the provenance."""

    draw: ClassVar[int] = 1
    """Raised whenever untrained weights are drawn otherwise; part of their provenance alone."""

    Config: ClassVar[type[ExtractorConfig]]
    batch_size: int = 16
    """Samples in every call of the network; see `infer`."""

    gpu_batch_size: ClassVar[int | None] = None
    """The same on a GPU, where calls of little work cost more than they do (default: no other)."""

    rows_keep_span: ClassVar[bool] = False
    """Whether each row has the span of its sample, and samples of a video differ in theirs: then
    rows that are in a store can serve readers again (`vlpipe.pipelines.extraction.replay`)."""

    has_registered_parts: ClassVar[bool] = False
    """Whether any file of the folder may register parts of it, such as detectors: then it is not to
    be used before all of them were imported."""

    foreign_settings: ClassVar[frozenset[str]] = frozenset()
    """Settings of published checkpoints that are about another use of the network than this."""

    memory_format: ClassVar[torch.memory_format] = torch.contiguous_format
    """How the weights of 2-D convolutions lie in memory; activations follow them."""

    folds_norms: ClassVar[bool] = False
    """Whether inference can have each BatchNorm as a part of the convolution before it; says that
    the network pairs them as `networks/folded_norm.py` expects."""

    is_compilable: ClassVar[bool] = True
    """Whether `torch.compile` can have the network: not if its output sizes follow the data."""

    gflop_per_sample: ClassVar[float]
    """Multiply and add counted as two; the planner weighs batches of videos with it."""

    description: ClassVar[str]
    """One line for listings: network, paper, what a row is."""

    def __init__(self, spec: ExtractorSpec) -> None:
        self.spec = spec
        self.device = open_device(spec.device)
        if self.device.type != "cpu" and self.gpu_batch_size is not None:
            self.batch_size = self.gpu_batch_size
        self.network = self._make_network()
        self._source_extractors: dict[str, Extractor] = {}

    def _make_network(self) -> nn.Module:
        source = self.spec.weights
        with _DRAWING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(source.seed)
            network = self.build_network(self.spec.config)
            if source.is_untrained:
                self.initialise_untrained(network)
        if not source.is_untrained:
            self.load(network, {role: Checkpoint.read(p) for role, p in source.files.items()})
        network = network.to(self.device).eval().requires_grad_(False)
        network.to(memory_format=self.memory_format)
        return network

    @classmethod
    @abstractmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        """The checkpoints its authors published, by role; the first of a role is the default."""

    @classmethod
    def required_roles(cls, config: ExtractorConfig) -> tuple[str, ...]:
        """The roles that this configuration needs a checkpoint for (default: all of them)."""
        del config
        return tuple(cls.published_checkpoints())

    @classmethod
    def sources(cls, config: ExtractorConfig) -> Mapping[str, Source]:
        """The extractors whose rows it reads, by the role that they have for it."""
        del config
        return {}

    @classmethod
    @abstractmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest | None:
        """The frames or the sound that it wants from the decoder; None if it has sources alone."""

    @classmethod
    @abstractmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        """The features that it makes."""

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        """Samples in a second of media, for estimates."""
        fps = getattr(config, "fps", None)
        return float(fps) if fps else 25.0

    @classmethod
    @abstractmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        """The network on the CPU with its constructor's initial weights."""

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        """Draws weights whose activations stay within range; the seed is set by the caller."""
        del network

    @classmethod
    @abstractmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Fills the network from checkpoints in their published layouts, by role."""

    @classmethod
    def check_checkpoint(cls, role: str, checkpoint: Checkpoint) -> None:
        """Raises WeightsRejected if the checkpoint is not one of that role."""
        cls.load(cls.build_network(cls.Config()), {role: checkpoint})

    @abstractmethod
    def sampler(self, info: MediaInfo) -> Sampler:
        """A fresh sampler for one video."""

    @abstractmethod
    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        """The network's input on the device, from samples stacked along a new first axis."""

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        """Why a video that could be read has no rows, such as `no_audio`; None if it has some."""
        del info
        return "too_short" if num_rows == 0 else None

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """The rows of N samples, N >= 0, whose data have equal shapes: one row each.

        The network always sees `batch_size` samples: a shorter batch is filled up with its last
        sample and the surplus rows are dropped. With a constant shape the libraries below take the
        same kernels, so a row has the same bits whatever else shares its batch, and an interrupted
        run can equal an undisturbed one. An extractor whose samples make any other number of rows
        overrides this, and keeps to that rule.
        """
        rows: dict[str, list[npt.NDArray[Any]]] = {
            o.feature: [np.zeros((0, *o.row_shape), np.float32)] for o in self.spec.outputs
        }
        for start in range(0, len(samples), self.batch_size):
            part = [sample.data for sample in samples[start : start + self.batch_size]]
            filled = part + [part[-1]] * (self.batch_size - len(part))
            result = self.run_network(self.to_input(np.stack(filled)))
            for output in self.spec.outputs:
                values = result[output.key][: len(part)]
                rows[output.feature].append(values.float().cpu().numpy())
        return Inferred(
            {feature: np.concatenate(parts) for feature, parts in rows.items()},
            np.array([sample.span for sample in samples], np.float64).reshape(-1, 2),
            np.ones(len(samples), np.int64),
        )

    def inference_form(self) -> nn.Module:
        """What runs in place of `network`: the same numbers but for rounding, in less time.

        It is made when the first batch comes and may share memory with `network`.
        """
        return fold_norms(self.network) if self.folds_norms else self.network

    @cached_property
    def _forward(self) -> Callable[..., Any]:
        network = self.inference_form()
        return torch.compile(network) if self.spec.is_compiled else network

    def run_network(self, *x: Tensor) -> dict[str, Tensor]:
        """What the network makes of its inputs on the device, at the precision of the spec."""
        forward = self._forward  # made outside of inference mode, whose tensors can do less
        with torch.inference_mode(), run_at(self.spec.precision, self.device):
            return cast(dict[str, Tensor], forward(*x))

    def source_extractor(self, spec: ExtractorSpec) -> "Extractor":
        """The extractor of a source, built when first asked for and kept."""
        key = canonical_json([spec.provenance(), [output.key for output in spec.outputs]])
        if key not in self._source_extractors:
            self._source_extractors[key] = spec.build()
        return self._source_extractors[key]

    def extract(self, path: str | Path) -> dict[str, Features]:
        """The features of one media file by name, with its sources made on the way.

        Floating-point rows are float32. Raises MediaError when the file cannot be used,
        NonFiniteFeatures when the network gives NaN or infinity.
        """
        from vlpipe.extractors.one_file import extract_file

        return extract_file(self, path)
