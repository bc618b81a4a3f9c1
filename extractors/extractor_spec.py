"""An extractor chosen and configured, without its network: what it makes and depends on.

Cheap to make, to plan with and to send to another process.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from vlpipe.extractors.errors import WeightsMissing
from vlpipe.extractors.media import MediaRequest
from vlpipe.extractors.media.requests import request_to_json
from vlpipe.extractors.precision import Precision
from vlpipe.extractors.weights.source import WeightsSource
from vlpipe.stores.errors import UsageError
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.problems import problems_of

if TYPE_CHECKING:
    from vlpipe.extractors.extractor import Extractor


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
    dtype: of the rows at rest where the user has no choice, such as `int32` of labels; None takes
        the spec's `store_dtype`.
    """

    feature: str
    key: str
    row_shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Another extractor whose rows of the same video are read in the same pass.

    settings: fields of its Config that its reader relies on; they go before the user's.
    """

    extractor: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExtractorSpec:
    """An extractor chosen and configured, without its network: cheap to make, plan with and send.

    weights: which checkpoint each role uses, or untrained.
    precision: `fp32`, `bf16` or `fp16`. device: a torch device such as `cpu` or `cuda:0`.
    store_dtype: of the rows at rest, `float16` or `float32`; `Extractor.extract` gives float32.
    is_compiled: whether the network goes through `torch.compile`.
    sources: the extractors that it reads rows of, by role.
    """

    extractor: type["Extractor"]
    config: ExtractorConfig
    weights: WeightsSource
    precision: Precision = "fp32"
    device: str = "cpu"
    store_dtype: str = "float16"
    is_compiled: bool = False
    sources: Mapping[str, "ExtractorSpec"] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.extractor.name

    @property
    def request(self) -> MediaRequest | None:
        """What the extractor asks of the decoder; None if it reads its sources alone."""
        return self.extractor.media_request(self.config)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The features that the extractor makes with this configuration."""
        return self.extractor.declare_outputs(self.config)

    def provenance(self) -> dict[str, Any]:
        """All that the numbers depend on, as JSON (see `FeatureDefinition.provenance`)."""
        provenance: dict[str, Any] = {
            "extractor": {"name": self.name, "version": self.extractor.version},
            "config": self.config.model_dump(mode="json", exclude={"outputs"}),
            "weights": self.weights.to_json(),
            "precision": self.precision,
            "device": torch.device(self.device).type,
        }
        if self.weights.is_untrained and self.extractor.draw > 1:
            provenance["weights"]["draw"] = self.extractor.draw
        if self.request is not None:
            provenance["media"] = {"decoder": "auto", "request": request_to_json(self.request)}
        if self.is_compiled:
            provenance["compiler"] = "torch.compile"
        if self.sources:
            provenance["sources"] = {role: s.provenance() for role, s in self.sources.items()}
        return provenance

    def definitions(self) -> tuple[FeatureDefinition, ...]:
        """The store's definition of each output, in the order of `outputs`."""
        provenance = self.provenance()
        return tuple(
            FeatureDefinition(
                name=output.feature,
                dtype=output.dtype or self.store_dtype,
                row_shape=output.row_shape,
                dimensions=output.dimensions,
                provenance={**provenance, "output": output.key},
            )
            for output in self.outputs
        )

    def on(self, device: str) -> "ExtractorSpec":
        """The same on another device, sources included."""
        sources = {role: source.on(device) for role, source in self.sources.items()}
        return dataclasses.replace(self, device=device, sources=sources)

    def build(self) -> "Extractor":
        """The extractor with its network on the device, in evaluation mode.

        Raises WeightsMissing or WeightsRejected, and EnvironmentLacks when the device is absent.
        """
        return self.extractor(self)


def parse_config(
    extractor: type["Extractor"], settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> ExtractorConfig:
    """The validated configuration: `settings` over `defaults` over the extractor's own defaults.

    defaults: of a checkpoint; those that are foreign to the extractor are left out.
    """
    own = {k: value for k, value in defaults.items() if k not in extractor.foreign_settings}
    try:
        config = extractor.Config.model_validate({**own, **settings})
        extractor.media_request(config)
    except ValidationError as error:
        known = ", ".join(extractor.Config.model_fields)
        raise UsageError(
            f"configuration of extractor {extractor.name}: {problems_of(error)}",
            hint=f"settings of {extractor.name}: {known}",
        ) from None
    except ValueError as error:
        raise UsageError(f"configuration of extractor {extractor.name}: {error}") from None
    return config


def choose_weights(
    extractor: type["Extractor"], config: ExtractorConfig, source: WeightsSource
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
