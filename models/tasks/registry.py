"""The tasks by name: each file of this folder that registers one is found by itself."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

import vlpipe.models.tasks
from vlpipe.models.tasks.task import Task, TaskSettings
from vlpipe.stores.errors import UsageError

_registered: dict[str, type[Task[Any]]] = {}

T = TypeVar("T", bound=type[Task[Any]])


def register_task(name: str) -> Callable[[T], T]:
    """Class decorator: makes a task known by that name; a name is given only once."""

    def enter(task: T) -> T:
        if name in _registered:
            raise ValueError(
                f"task {name!r} is registered twice: {_registered[name].__module__} and "
                f"{task.__module__}"
            )
        task.name = name
        _registered[name] = task
        return task

    return enter


@cache
def _discover() -> Mapping[str, type[Task[Any]]]:
    for module in pkgutil.iter_modules(vlpipe.models.tasks.__path__, "vlpipe.models.tasks."):
        importlib.import_module(module.name)
    return MappingProxyType(dict(sorted(_registered.items())))


def list_tasks() -> list[str]:
    """The names of all tasks, sorted."""
    return list(_discover())


def find_task(name: str) -> type[Task[Any]]:
    """The task of that name; UsageError lists the nearest names."""
    known = _discover()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        raise UsageError(
            f"there is no task {name!r}" + (f"; nearest: {', '.join(near)}" if near else ""),
            hint=f"the tasks: {', '.join(known)}",
        )
    return known[name]


def parse_task_settings(task: type[Task[Any]], settings: Mapping[str, Any]) -> TaskSettings:
    """The validated settings of a task; UsageError names each wrong one and lists all."""
    try:
        return task.Settings(**settings)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, found['loc'])) or 'settings'}: {found['msg']}"
            for found in error.errors()
        )
        known = ", ".join(task.Settings.model_fields) or "none"
        raise UsageError(
            f"task {task.name!r}: {problems}", hint=f"its settings: {known}"
        ) from error
