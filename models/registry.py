"""The models by name: each file of this folder that registers one is found by itself."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from vlpipe.models.model import Model, ModelConfig
from vlpipe.stores.errors import UsageError
from vlpipe.stores.problems import problems_of
from vlpipe.stores.registry import Registry

_models: Registry[type[Model]] = Registry("model", "vlpipe.models", "`vlpipe models ls` lists all")

M = TypeVar("M", bound=type[Model])


def register(name: str) -> Callable[[M], M]:
    """Class decorator: makes a model known by that name; a name is given only once."""

    def enter(model: M) -> M:
        _models.add(name, model)  # first: what is refused keeps its name
        model.name = name
        return model

    return enter


def list_models() -> list[str]:
    """The names of all models, sorted."""
    return list(_models.all())


def find_model(name: str) -> type[Model]:
    """The class of that name; UsageError lists the nearest names."""
    return _models.find(name)


def parse_config(model: type[Model], settings: Mapping[str, Any]) -> ModelConfig:
    """The validated settings of a model; UsageError names each wrong one and lists all."""
    try:
        return model.Config(**settings)
    except ValidationError as error:
        raise UsageError(
            f"model {model.name!r}: {problems_of(error)}",
            hint=f"its settings: {', '.join(model.Config.model_fields)}",
        ) from error


def create_model(
    name: str,
    *,
    task: str,
    **settings: Any,  # noqa: ANN401 - the fields of the model's Config, validated by it
) -> Model:
    """A model with fresh weights from torch's random generator, on the CPU, in training mode.

    task: one of the tasks that the model solves; settings: the fields of its `Config`.
    Raises UsageError for an unknown name, task or setting.
    """
    model = find_model(name)
    if task not in model.tasks:
        raise UsageError(
            f"model {name!r} does not solve the task {task!r}",
            hint=f"its tasks: {', '.join(model.tasks)}",
        )
    return model(parse_config(model, settings), task)


def load_published(model: Model, source: str | Path | Mapping[str, Any]) -> Model:
    """The same model, filled from a checkpoint in the layout of its paper's own code.

    source: a file (see `read_state_dict` for the formats), or a mapping from entry to tensor or
        NumPy array.
    """
    if isinstance(source, str | Path):
        from vlpipe.models.published_files import read_state_dict

        model.load_published(read_state_dict(Path(source)))
    else:
        model.load_published({key: _tensor(value) for key, value in source.items()})
    return model


def _tensor(value: Any) -> Tensor:  # noqa: ANN401 - a tensor, an array or a number
    return value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value))
