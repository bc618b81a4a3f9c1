"""What is tried again: a full disk or a lost mount may get better, a wrong option does not."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.tasks import Task

from vlpipe.stores.errors import EnvironmentLacks, StoreUnwritable

RETRY_DELAYS_S: list[float] = [10, 60]
MOST_STARTS = 4

P = ParamSpec("P")
R = TypeVar("R")


def retried_task(run_name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Decorator: a Prefect task that is tried again where that can help.

    run_name: of its runs, with places for their parameters; by default Prefect makes one. Prefect
        keeps no results: the store or the run's folder says what is done.
    """
    return task(
        task_run_name=run_name,
        retries=len(RETRY_DELAYS_S),
        retry_delay_seconds=RETRY_DELAYS_S,
        retry_jitter_factor=0.5,
        retry_condition_fn=is_infrastructure_error,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def is_infrastructure_error(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again can help."""
    del task, run
    error = state.result(raise_on_failure=False)
    return isinstance(error, StoreUnwritable | OSError)


def stop_if_it_keeps_crashing() -> None:
    """Raises EnvironmentLacks in a run that was taken up again and again.

    An automation starts crashed runs anew (see `automations`). One that takes its worker down each
    time, by using up the memory for example, is not to do that for ever.
    """
    count = flow_run.run_count
    if isinstance(count, int) and count > MOST_STARTS:
        raise EnvironmentLacks(
            f"this run was started {count - 1} times and crashed each time",
            hint="see the worker's log; a new run of the deployment begins to count anew",
        )
