"""Registers deployments, their work pools and the automations; doing it again changes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from vlpipe.pipelines.deployment_plan import (
    ENTRY_POINTS,
    DeploymentPlan,
    Plan,
    PoolChoice,
    Schedule,
    Stage,
    WorkPool,
)
from vlpipe.pipelines.prefect_server import configured_server, require_server
from vlpipe.pipelines.settings import apply_offline_settings

apply_offline_settings()

from prefect.client.orchestration import SyncPrefectClient, get_client  # noqa: E402
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate  # noqa: E402
from prefect.client.schemas.schedules import CronSchedule  # noqa: E402
from prefect.deployments.runner import RunnerDeployment  # noqa: E402
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound  # noqa: E402
from prefect.runner.storage import LocalStorage  # noqa: E402

from vlpipe.pipelines.prefect_parts.automations import (  # noqa: E402
    REQUIRED,
    TAG,
    put_automations,
)
from vlpipe.stores.errors import EnvironmentLacks, UsageError  # noqa: E402
from vlpipe.stores.problems import problems_of  # noqa: E402


@dataclass(frozen=True)
class Registered:
    """Full names of what the server has now."""

    deployments: tuple[str, ...]
    work_pools: tuple[str, ...]
    automations: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "deployments": list(self.deployments),
            "work_pools": list(self.work_pools),
            "automations": list(self.automations),
        }


def register_plan(plan: Plan, notify: str | None = None) -> Registered:
    """Registers all of a plan with the server at PREFECT_API_URL.

    notify: TYPE/NAME of the notification block that failures are told through.
    Raises EnvironmentLacks when no server is configured or none answers, UsageError for what
    Prefect refuses, such as a wrong schedule.
    """
    with _client() as client:
        for pool in plan.pools:
            _put_pool(client, pool)
        for deployment in plan.deployments:
            _prefect_deployment(deployment).apply()
        automations = put_automations(client, notify)
    return Registered(
        tuple(deployment.full_name for deployment in plan.deployments),
        tuple(pool.name for pool in plan.pools),
        tuple(automations),
    )


def register_job(
    stage: Stage,
    job: BaseModel,
    *,
    name: str,
    work_pool: str,
    cron: str | None = None,
    notify: str | None = None,
) -> str:
    """Registers one job on its own, with a schedule if one is given; its full name comes back."""
    deployment = DeploymentPlan(
        name=name,
        entrypoint=ENTRY_POINTS[stage],
        parameters={"job": job.model_dump(mode="json")},
        schedules=() if cron is None else (Schedule(cron=cron),),
        work_pool=PoolChoice(name=work_pool),
    )
    register_plan(Plan((WorkPool(name=work_pool),), (deployment,)), notify)
    return deployment.full_name


def require_configured_server() -> str:
    """The address at PREFECT_API_URL; EnvironmentLacks if there is none."""
    server = configured_server()
    if server is None:
        raise EnvironmentLacks(
            "a deployment needs a Prefect server, and PREFECT_API_URL is not set",
            hint="`prefect server start`, then PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    return server


@contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    require_server(require_configured_server())
    with get_client(sync_client=True) as client:
        yield client


def _put_pool(client: SyncPrefectClient, pool: WorkPool) -> None:
    """A process pool of that name, with that limit if one is given."""
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(
            WorkPoolCreate(name=pool.name, type="process", concurrency_limit=pool.concurrency_limit)
        )
        return
    if pool.concurrency_limit is not None:
        change = WorkPoolUpdate(concurrency_limit=pool.concurrency_limit)
        client.update_work_pool(pool.name, change)


class _Installed(LocalStorage):
    """The code is where the worker's Python finds it.

    Without a step that says so each run would copy the folder in which it was deployed, with all
    the media and stores there, into a temporary one.
    """

    def __init__(self) -> None:
        super().__init__(".")

    def to_pull_step(self) -> dict[str, Any]:
        # The worker's own folder: paths in our parameters are absolute.
        return {"prefect.deployments.steps.set_working_directory": {"directory": "."}}


def _prefect_deployment(plan: DeploymentPlan) -> RunnerDeployment:
    try:
        deployment = RunnerDeployment.from_entrypoint(
            plan.entrypoint,
            name=plan.name,
            description=plan.description,
            parameters={"job": plan.job.model_dump(mode="json")},
            schedules=[
                {
                    "schedule": CronSchedule(cron=schedule.cron, timezone=schedule.timezone),
                    "active": schedule.active,
                }
                for schedule in plan.schedules
            ],
            tags=_tags(plan),
            concurrency_limit=plan.concurrency_limit,
            work_pool_name=plan.work_pool.name,
            work_queue_name=plan.work_pool.work_queue_name,
            job_variables=plan.work_pool.job_variables,
        )
    except ValidationError as error:
        raise UsageError(f"deployment {plan.name!r}: {problems_of(error)}") from error
    deployment.storage = _Installed()
    return deployment


def _tags(plan: DeploymentPlan) -> list[str]:
    of_job = [f"stage:{plan.stage}"]
    dataset = getattr(plan.job, "source_name", None) or getattr(plan.job, "dataset", None)
    if dataset is not None:
        of_job.insert(0, f"dataset:{dataset}")
    return list(dict.fromkeys([TAG, *of_job, *plan.tags]))


@dataclass(frozen=True)
class ServerState:
    """What a server lacks. pools: of our deployments, with what is wrong with each, or None.
    automations: names of those that are missing or switched off."""

    deployments: tuple[str, ...]
    pools: dict[str, str | None]
    automations: tuple[str, ...]


def read_server_state() -> ServerState:
    """What the server at PREFECT_API_URL has of ours, and what it lacks."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    with _client() as client:
        tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
        deployments = client.read_deployments(deployment_filter=tagged)
        pools = dict.fromkeys(d.work_pool_name for d in deployments if d.work_pool_name)
        missing = [
            name
            for name in REQUIRED
            if not any(found.enabled for found in client.read_automations_by_name(name))
        ]
        return ServerState(
            tuple(d.name for d in deployments),
            {name: _pool_problem(client, name) for name in pools},
            tuple(missing),
        )


def _pool_problem(client: SyncPrefectClient, name: str) -> str | None:
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        return "does not exist"
    if pool.is_paused:
        return "is paused"
    workers = client.read_workers_for_work_pool(name)
    return None if any(worker.status == "ONLINE" for worker in workers) else "has no worker"
