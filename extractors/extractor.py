"""What every extractor is: a request to the decoder, samples of one video, a network over batches.

An extractor turns one decoded stream into *samples* (one input of the network each, with the time
span that it describes), runs its network on batches of samples that may come from many videos,
and hands back one row per sample and output. It knows nothing of stores, flows or other
extractors; `vlpipe.pipelines` brings them together.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from torch import Tensor, nn

from vlpipe.extractors.device import open_device
from vlpipe.extractors.errors import NonFiniteFeatures, WeightsMissing
from vlpipe.extractors.media import (
    DecodePool,
    MediaInfo,
    MediaRequest,
)
from vlpipe.extractors.media.requests import request_to_json
from vlpipe.extractors.precision import Precision, run_at
from vlpipe.extractors.samples import Sample, Sampler
from vlpipe.extractors.weights import Checkpoint, PublishedCheckpoint, WeightsSource
from vlpipe.stores.errors import UsageError
from vlpipe.stores.features import FeatureDefinition, Features


class ExtractorConfig(BaseModel):
    """Settings of an extractor: part of the provenance, since they change the numbers.

    The one exception is a field called `outputs`, which only chooses what is kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


T = TypeVar("T")

Names = Annotated[
    tuple[T, ...], BeforeValidator(lambda v: v.split(",") if isinstance(v, str) else v)
]
"""Several names of a kind; one alone, or several with commas, may be given as a text."""


@dataclass(frozen=True, slots=True)
class Output:
    """One feature that an extractor makes.

    feature: name in the store. key: name in the dict that the network returns.
    row_shape, dimensions: shape of a row and the names of its axes.
    """

    feature: str
    key: str
    row_shape: tuple[int, ...]
    dimensions: tuple[str, ...]


@dataclass(frozen=True)
class ExtractorSpec:
    """An extractor chosen and configured, without its network: cheap to make, plan with and send.

    weights: which checkpoint each role uses, or untrained.
    precision: `fp32`, `bf16` or `fp16`. device: a torch device such as `cpu` or `cuda:0`.
    store_dtype: of the rows at rest, `float16` or `float32`; `Extractor.extract` gives float32.
    """

    extractor: type["Extractor"]
    config: ExtractorConfig
    weights: WeightsSource
    precision: Precision = "fp32"
    device: str = "cpu"
    store_dtype: str = "float16"

    @property
    def name(self) -> str:
        return self.extractor.name

    @property
    def request(self) -> MediaRequest:
        """What the extractor asks of the decoder."""
        return self.extractor.media_request(self.config)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The features that the extractor makes with this configuration."""
        return self.extractor.declare_outputs(self.config)

    def provenance(self) -> dict[str, Any]:
        """All that the numbers depend on, as JSON (see `FeatureDefinition.provenance`)."""
        return {
            "extractor": {"name": self.name, "version": self.extractor.version},
            "config": self.config.model_dump(mode="json", exclude={"outputs"}),
            "weights": self.weights.to_json(),
            "media": {"decoder": "auto", "request": request_to_json(self.request)},
            "precision": self.precision,
            "device": torch.device(self.device).type,
        }

    def definitions(self) -> tuple[FeatureDefinition, ...]:
        """The store's definition of each output, in the order of `outputs`."""
        provenance = self.provenance()
        return tuple(
            FeatureDefinition(
                name=output.feature,
                dtype=self.store_dtype,
                row_shape=output.row_shape,
                dimensions=output.dimensions,
                provenance={**provenance, "output": output.key},
            )
            for output in self.outputs
        )

    def build(self) -> "Extractor":
        """The extractor with its network on the device, in evaluation mode.

        Raises WeightsMissing or WeightsRejected, and EnvironmentLacks when the device is absent.
        """
        return self.extractor(self)


class Extractor(ABC):
    """A network, and how media becomes its input. Subclasses register with `@register(name)`."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised whenever a change of code changes the numbers; part of the provenance."""

    Config: ClassVar[type[ExtractorConfig]]
    batch_size: ClassVar[int] = 16
    """Samples in every call of the network; see `infer`."""

    gflop_per_sample: ClassVar[float]
    """Multiply and add counted as two; the planner weighs batches of videos with it."""

    description: ClassVar[str]
    """One line for listings: network, paper, what a row is."""

    def __init__(self, spec: ExtractorSpec) -> None:
        self.spec = spec
        self.device = open_device(spec.device)
        self.network = self._make_network()

    def _make_network(self) -> nn.Module:
        source = self.spec.weights
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(source.seed)
            network = self.build_network(self.spec.config)
            if source.is_untrained:
                self.initialise_untrained(network)
        if not source.is_untrained:
            self.load(network, {role: Checkpoint.read(p) for role, p in source.files.items()})
        return network.to(self.device).eval().requires_grad_(False)

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
    @abstractmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        """The frames or the sound that it wants from the decoder."""

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

    def infer(self, samples: Sequence[npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """One float32 row [N, *row_shape] per sample, for each output by feature name.

        samples: N arrays of equal shape. The network always sees `batch_size` samples: a shorter
        batch is filled up with its last sample and the surplus rows are dropped. With a constant
        shape the libraries below take the same kernels, so a row has the same bits whatever else
        shares its batch, and an interrupted run can equal an undisturbed one.
        """
        rows: dict[str, list[npt.NDArray[Any]]] = {o.feature: [] for o in self.spec.outputs}
        for start in range(0, len(samples), self.batch_size):
            part = list(samples[start : start + self.batch_size])
            filled = part + [part[-1]] * (self.batch_size - len(part))
            with torch.inference_mode(), run_at(self.spec.precision, self.device):
                result = self.network(self.to_input(np.stack(filled)))
            for output in self.spec.outputs:
                values = result[output.key][: len(part)]
                rows[output.feature].append(values.float().cpu().numpy())
        return {
            output.feature: np.concatenate(rows[output.feature])
            if rows[output.feature]
            else np.zeros((0, *output.row_shape), np.float32)
            for output in self.spec.outputs
        }

    def extract(self, path: str | Path) -> dict[str, Features]:
        """The float32 features of one media file, by feature name.

        Raises MediaError when the file cannot be used, NonFiniteFeatures when the network gives
        NaN or infinity.
        """
        spans: list[tuple[float, float]] = []
        rows: dict[str, list[npt.NDArray[Any]]] = {o.feature: [] for o in self.spec.outputs}
        waiting: list[npt.NDArray[Any]] = []

        def take(samples: Sequence[Sample], *, flush: bool = False) -> None:
            for sample in samples:
                waiting.append(sample.data)
                spans.append(sample.span)
            while len(waiting) >= self.batch_size or (flush and waiting):
                batch = waiting[: self.batch_size]
                del waiting[: self.batch_size]
                for feature, values in self.infer(batch).items():
                    rows[feature].append(values)

        with DecodePool(workers=1) as pool, pool.open(path, [self.spec.request]) as stream:
            sampler = self.sampler(stream.info)
            for block in stream:
                take(sampler.push(block))
            take(sampler.finish(), flush=True)

        made: dict[str, Features] = {}
        for output in self.spec.outputs:
            parts = rows[output.feature] or [np.zeros((0, *output.row_shape), np.float32)]
            values = np.concatenate(parts)
            if not np.isfinite(values).all():
                raise NonFiniteFeatures(
                    f"{path}: {self.name} at {self.spec.precision} gave NaN or infinite values "
                    f"in {output.feature}",
                    hint="extract with --precision fp32, or check the checkpoint",
                )
            made[output.feature] = Features(values, np.array(spans, np.float64).reshape(-1, 2))
        return made


def parse_config(
    extractor: type[Extractor], settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> ExtractorConfig:
    """The validated configuration: `settings` over `defaults` over the extractor's own defaults."""
    try:
        config = extractor.Config.model_validate({**defaults, **settings})
        extractor.media_request(config)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']} (found {e['input']!r})"
            for e in error.errors()
        )
        known = ", ".join(extractor.Config.model_fields)
        raise UsageError(
            f"configuration of extractor {extractor.name}: {problems}",
            hint=f"settings of {extractor.name}: {known}",
        ) from None
    except ValueError as error:
        raise UsageError(f"configuration of extractor {extractor.name}: {error}") from None
    return config


def choose_weights(
    extractor: type[Extractor], config: ExtractorConfig, source: WeightsSource
) -> WeightsSource:
    """`source` limited to the roles in use; WeightsMissing names what is absent and its origin."""
    if source.is_untrained:
        return source
    roles = extractor.required_roles(config)
    for role in roles:
        if role not in source.files:
            published = extractor.published_checkpoints()[role]
            raise WeightsMissing(
                f"extractor {extractor.name} needs the checkpoint {role!r}, and none is given or "
                "added. Published: "
                + "; ".join(f"{p.name} ({p.filename}, {p.licence}, {p.url})" for p in published),
                hint=f"get the file, then `vlpipe weights add {published[0].name} FILE`, or "
                f"--weights {role}=FILE; `--weights untrained` runs on random numbers and marks "
                "the features so",
            )
    return dataclasses.replace(source, files={r: source.files[r] for r in roles})
