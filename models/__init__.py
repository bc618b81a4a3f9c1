"""Features to answers: one file per paper, what they are built of, the tasks they solve, metrics.

    model (one file here)     a network alone: named tensors in, a dict of named tensors out; says
                              which features it wants (`slots`) and how the rows of one video
                              become its tensors (`prepare`)
    task (`models/tasks/`)    what is asked: examples from annotations, text to ids, collating,
                              loss, decoding, the official metrics, the benchmark's file format
    run (`vlpipe.pipelines`)  model x task x dataset x store: the training loop knows neither

A model that solves several tasks gets the task's name when it is built; a task never knows which
model answers. docs/models.md shows how the next ones fit. The names below load on first use: the
models import torch, which takes seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlpipe.models.feature_slot import FeatureSlot
    from vlpipe.models.model import Model, ModelConfig, PublishedResult
    from vlpipe.models.registry import (
        create_model,
        find_model,
        list_models,
        load_published,
        register,
    )

__all__ = [
    "FeatureSlot",
    "Model",
    "ModelConfig",
    "PublishedResult",
    "create_model",
    "find_model",
    "list_models",
    "load_published",
    "register",
]

_IN_MODEL = ("FeatureSlot", "Model", "ModelConfig", "PublishedResult")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = "model" if name in _IN_MODEL else "registry"
    return getattr(import_module(f"{__name__}.{module}"), name)
