"""The tasks by name: each file of this folder that registers one is found by itself."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from vlpipe.models.tasks.task import Task, TaskSettings
from vlpipe.stores.errors import UsageError
from vlpipe.stores.problems import problems_of
from vlpipe.stores.registry import Registry

_tasks: Registry[type[Task[Any]]] = Registry("task", "vlpipe.models.tasks")

T = TypeVar("T", bound=type[Task[Any]])


def register_task(name: str) -> Callable[[T], T]:
    """Class decorator: makes a task known by that name; a name is given only once."""

    def enter(task: T) -> T:
        _tasks.add(name, task)  # first: what is refused keeps its name
        task.name = name
        return task

    return enter


def list_tasks() -> list[str]:
    """The names of all tasks, sorted."""
    return list(_tasks.all())


def find_task(name: str) -> type[Task[Any]]:
    """The task of that name; UsageError lists the nearest names."""
    return _tasks.find(name)


def parse_task_settings(task: type[Task[Any]], settings: Mapping[str, Any]) -> TaskSettings:
    """The validated settings of a task; UsageError names each wrong one and lists all."""
    try:
        return task.Settings(**settings)
    except ValidationError as error:
        known = ", ".join(task.Settings.model_fields) or "none"
        raise UsageError(
            f"task {task.name!r}: {problems_of(error)}", hint=f"its settings: {known}"
        ) from error
