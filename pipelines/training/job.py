"""What a user asks of a training, as one validated value that travels as JSON."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from vlpipe.stores.errors import UsageError
from vlpipe.stores.problems import problems_of

if TYPE_CHECKING:
    from vlpipe.models import Model, ModelConfig

_LEFT_OUT = "none"


class TrainingSettings(BaseModel):
    """How a network is trained. What is None follows the paper of the model.

    model, task: the settings of the model and of the task, by name. features: slot of the model
        to the feature of the store that fills it; `none` leaves an optional one out.
    seed: of the weights, the order of the examples, dropout, and the validation examples.
    epochs, batch_size, learning_rate: batch_size is examples a device and step.
    weight_decay: decoupled from the gradient (AdamW; Loshchilov and Hutter, 2019).
    accumulate: batches whose gradients make one step.
    schedule: `constant`, `cosine` over all epochs, `step` (a tenth at epochs 10, 20, 30, 40), or
        `plateau` (a tenth after 3 epochs in which the validation figure has not improved), the
        last three from a fifth of the rate over the first warmup_epochs.
    validation_share: of the training examples, where the dataset has no validation split.
    validation_by: drawn by `example` as the papers do, though a video may then have questions on
        both sides, or by `video`, so that none has.
    patience: training stops after so many epochs without a better validation figure; None: never.
    gradient_clip: greatest norm of the gradient; None: as it is.
    word_vectors: a file of GloVe's or word2vec's text format; None: as initialised.
    init_from: a run or a checkpoint whose entries of equal name and shape are taken over; of a run
        also the vectors of the words that both have.
    workers: processes that load examples. cache_mb: of prepared videos, kept in memory by each.
    checkpoint_every_s: seconds between checkpoints within an epoch; each epoch ends with one.
    device: `cpu`, `cuda` or `auto`. devices: how many of them, each a process.
    deterministic: only algorithms that give the same bits each time, where there are any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: dict[str, Any] = {}
    task: dict[str, Any] = {}
    features: dict[str, str] = {}
    seed: NonNegativeInt = 999
    epochs: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    accumulate: PositiveInt = 1
    schedule: Literal["constant", "cosine", "step", "plateau"] = "constant"
    warmup_epochs: NonNegativeInt = 5
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    validation_by: Literal["example", "video"] = "example"
    patience: PositiveInt | None = None
    gradient_clip: float | None = Field(default=None, gt=0)
    word_vectors: Path | None = None
    init_from: Path | None = None
    workers: NonNegativeInt = 0
    cache_mb: NonNegativeInt = 1024
    checkpoint_every_s: float = Field(default=600.0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: PositiveInt = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    deterministic: bool = True

    def resolved(self, model: "type[Model]", task: str) -> "TrainingSettings":
        """The same with what was left open taken from the model's paper."""
        fallback = {"epochs": 100, "batch_size": 32, "learning_rate": 1e-4}
        wanted = fallback | dict(model.training_defaults)
        update = {name: wanted[name] for name in wanted if getattr(self, name) is None}
        of_task = dict(model.task_defaults.get(task, {})) | self.task
        return self.model_copy(update=update | {"task": of_task})

    def slots(self, model: "type[Model]", config: "ModelConfig") -> dict[str, str]:
        """Slot of a model of that configuration -> feature of the store; UsageError for a slot that
        it has not, and for a missing one that it needs."""
        for slot in self.features:
            if slot not in model.slots:
                raise UsageError(
                    f"model {model.name!r} has no slot {slot!r} for features",
                    hint=f"its slots: {', '.join(model.slots)}",
                )
        chosen = {}
        for slot, wanted in model.slots_in_use(config).items():
            feature = self.features.get(slot, wanted.feature)
            if feature != _LEFT_OUT:
                chosen[slot] = feature
            elif not wanted.is_optional:
                raise UsageError(f"model {model.name!r} needs a feature for its slot {slot!r}")
        return chosen


class TrainingJob(BaseModel):
    """Which model learns which task, from which annotations and features, and where it goes.

    dataset, root: a registered dataset and its folder. store: address of the feature store.
    out: the folder of the run; it is made, and must be empty or absent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    task: str
    dataset: str
    root: Path
    store: str
    out: Path
    settings: TrainingSettings = TrainingSettings()


def parse_settings(config: Path | None = None, changes: Iterable[str] = ()) -> TrainingSettings:
    """The settings of a TOML file, with `key=value` changes on top.

    Keys of tables are written with dots: `model.hidden=128`. A value is read as JSON, and as a text
    if it is none. Raises UsageError for what is not a setting, or not a value of it.
    """
    values: dict[str, Any] = {} if config is None else _read_toml(config)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{change!r} is no setting", hint="--set key=value")
        _put(values, key.strip().split("."), _value(text), change)
    try:
        return TrainingSettings.model_validate(values)
    except ValidationError as error:
        source = "" if config is None else f", from {config} and --set"
        raise UsageError(
            f"settings of the training{source}: {problems_of(error)}",
            hint=f"the settings: {', '.join(TrainingSettings.model_fields)}",
        ) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the configuration {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the configuration {path} is not TOML: {error}") from error


def _put(values: dict[str, Any], path: list[str], value: object, change: str) -> None:
    *tables, name = path
    for table in tables:
        inner = values.setdefault(table, {})
        if not isinstance(inner, Mapping):
            raise UsageError(f"{change!r}: {table!r} is not a table of settings")
        values = values[table]
    values[name] = value


def _value(text: str) -> object:
    if text.lower() in ("none", "null"):
        return None if text.lower() == "null" else _LEFT_OUT
    try:
        return json.loads(text)
    except ValueError:
        return text
