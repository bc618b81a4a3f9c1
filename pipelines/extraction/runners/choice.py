"""Which runner a job asks for."""

from collections.abc import Callable

from vlpipe.pipelines.extraction.planning import Plan
from vlpipe.pipelines.extraction.runners.runner import Runner


def open_runner(plan: Plan, *, notify: Callable[[str], None]) -> Runner:
    """The runner of the plan's job, to be closed by the caller.

    notify: told what a person should know of it, such as the address of a dashboard.
    """
    if plan.job.dask is None:
        from vlpipe.pipelines.extraction.runners.local_runner import LocalRunner

        return LocalRunner(plan)
    from vlpipe.pipelines.extraction.runners.dask_runner import DaskRunner

    return DaskRunner(plan, notify=notify)
