"""What a user asks of a training of VC R-CNN, as one validated value that travels as JSON."""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from pydantic import model_validator as validator

from vlpipe.stores.errors import UsageError
from vlpipe.stores.problems import problems_of


class CommonsenseSettings(BaseModel):
    """How VC R-CNN is trained; the defaults are those of its authors for one device.

    depth: of the residual network, 50 or 101. causal_width: of the two projections of the causal
        head. shorter_edge, longer_edge: pixels of the images.
    flip: how often an image is mirrored. min_objects: images with fewer are left out.
    batch_size: images a device and step. learning_rate: of weights; biases learn twice as fast and
        have no weight_decay. With n times the images a step in all, n times the rate and an n-th of
        the iterations is the usual recipe.
    iterations: steps in all. lower_at: steps after which the rate is a tenth. For the first
        warmup_iterations it rises from warmup_factor of itself.
    seed: of fresh weights, of the order of the images and of flips.
    workers: processes that load images. checkpoint_every_s: seconds between checkpoints.
    device: `cpu`, `cuda` or `auto`. devices: how many of them, each a process.
    deterministic: only algorithms that give the same bits each time, where there are any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    depth: Literal[50, 101] = 101
    causal_width: PositiveInt = 1024
    shorter_edge: int = Field(default=800, ge=32, le=4096)
    longer_edge: int = Field(default=1333, ge=32, le=8192)
    flip: float = Field(default=0.5, ge=0, le=1)
    min_objects: int = Field(default=2, ge=1)
    batch_size: PositiveInt = 2
    learning_rate: float = Field(default=0.0025, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    iterations: PositiveInt = 720_000
    lower_at: tuple[PositiveInt, ...] = (480_000, 640_000)
    warmup_iterations: NonNegativeInt = 500
    warmup_factor: float = Field(default=1 / 3, gt=0, le=1)
    seed: NonNegativeInt = 0
    workers: NonNegativeInt = 0
    checkpoint_every_s: float = Field(default=600.0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: PositiveInt = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    deterministic: bool = True

    @validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.shorter_edge > self.longer_edge:
            raise ValueError(f"shorter_edge exceeds longer_edge, which is {self.longer_edge}")
        return self

    def rate(self, step: int) -> float:
        """The learning rate of weights at a step, counted from 0."""
        lowered = self.learning_rate * 0.1 ** sum(step >= at for at in self.lower_at)
        if step >= self.warmup_iterations:
            return lowered
        share = step / self.warmup_iterations
        return lowered * (self.warmup_factor * (1 - share) + share)


class CommonsenseJob(BaseModel):
    """What is trained on, where it starts, and where it goes.

    instances: annotations in COCO's form. images: the folder that their file names count from.
    weights: a checkpoint to start from (see `train_commonsense_weights`), or `untrained`.
    dictionary, prior: .npy files in the form of `dic_coco.npy` and `stat_prob.npy`; without them
        both are computed from the data. dictionary_names: a text file with the name of the class
        of each row of the dictionary, a line each; without it row k is that of label k.
    out: the folder of the run; it is made, and must be empty or absent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    instances: Path
    images: Path
    weights: str
    out: Path
    dictionary: Path | None = None
    prior: Path | None = None
    dictionary_names: Path | None = None
    settings: CommonsenseSettings = CommonsenseSettings()

    @validator(mode="after")
    def _files_fit(self) -> Self:
        if (self.dictionary is None) != (self.prior is None):
            raise ValueError("dictionary and prior are given both or neither")
        if self.dictionary_names is not None and self.dictionary is None:
            raise ValueError("dictionary_names without a dictionary")
        return self

    def with_absolute_paths(self) -> "CommonsenseJob":
        """The same job, independent of the current folder."""
        names = ("instances", "images", "out", "dictionary", "prior", "dictionary_names")
        given = {name: getattr(self, name) for name in names}
        weights = self.weights
        if Path(weights).exists():
            weights = str(Path(weights).absolute())
        return self.model_copy(
            update={name: path and path.absolute() for name, path in given.items()}
            | {"weights": weights}
        )


def parse_job(**values: Any) -> CommonsenseJob:  # noqa: ANN401 - validated here
    """The job of these values; UsageError where they do not fit together."""
    try:
        return CommonsenseJob.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"training of VC R-CNN: {problems_of(error)}") from error


def parse_commonsense_settings(
    config: Path | None = None, changes: Iterable[str] = ()
) -> CommonsenseSettings:
    """The settings of a TOML file, with `key=value` changes on top; values are read as JSON.

    Raises UsageError for what is not a setting, or not a value of it.
    """
    values: dict[str, Any] = {} if config is None else _read_toml(config)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{change!r} is no setting", hint="--set key=value")
        try:
            values[key.strip()] = json.loads(text)
        except ValueError:
            values[key.strip()] = text
    try:
        return CommonsenseSettings.model_validate(values)
    except ValidationError as error:
        source = "" if config is None else f", from {config} and --set"
        raise UsageError(
            f"settings of the training{source}: {problems_of(error)}",
            hint=f"the settings: {', '.join(CommonsenseSettings.model_fields)}",
        ) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"the configuration {path} cannot be read: {error}") from error
