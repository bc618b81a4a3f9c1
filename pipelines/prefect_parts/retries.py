"""What is tried again: a full disk or a lost mount may get better, a wrong option does not."""

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.tasks import Task

from vlpipe.stores.errors import EnvironmentLacks, StoreUnwritable

RETRY_DELAYS_S: list[float] = [10, 60]
MOST_STARTS = 4


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
