"""What is asked of models: one file per task, its examples, text, loss, decoding and figures.

The names below load on first use: tasks import torch, which takes seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlpipe.models.tasks.registry import find_task, list_tasks, register_task
    from vlpipe.models.tasks.task import Batch, Clip, Record, Shown, Task, TaskSettings

__all__ = [
    "Batch",
    "Clip",
    "Record",
    "Shown",
    "Task",
    "TaskSettings",
    "find_task",
    "list_tasks",
    "register_task",
]

_IN_REGISTRY = ("find_task", "list_tasks", "register_task")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = "registry" if name in _IN_REGISTRY else "task"
    return getattr(import_module(f"{__name__}.{module}"), name)
