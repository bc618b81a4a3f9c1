"""A job of this process as a flow run, so that a Prefect server shows it beside deployed ones."""

from collections.abc import Callable
from typing import TypeVar

from prefect import flow

from vlpipe.pipelines.prefect_server import configured_server, require_server

J = TypeVar("J")
R = TypeVar("R")


def run_observed(work: Callable[[J], R], job: J, *, name: str, run_name: str | None = None) -> R:
    """What `work` makes of the job, in a flow `name` whose run is called `run_name` or by Prefect.

    `work` may hold on to what no other process has, such as an observer of the command line.

    Raises EnvironmentLacks when a server is configured and does not answer.
    """
    server = configured_server()
    if server is not None:
        require_server(server)

    @flow(name=name, flow_run_name=run_name, validate_parameters=False)
    def observed(job: J) -> R:
        return work(job)

    result: R = observed(job)
    return result
