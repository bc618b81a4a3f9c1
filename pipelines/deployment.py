"""Registers extractions with a Prefect server."""

from contextlib import suppress

from pydantic import ValidationError

from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.prefect_server import configured_server, require_server
from vlpipe.pipelines.settings import apply_offline_settings
from vlpipe.stores.errors import EnvironmentLacks, UsageError

ENTRY_POINT = "vlpipe.pipelines.extract_flow.extract"


def deploy_extraction(
    job: ExtractionJob, *, work_pool: str, name: str | None = None, cron: str | None = None
) -> str:
    """The full name of the deployment that now runs this job, on its schedule if one is given.

    Paths become absolute: a worker runs in a folder of its own. The job is checked here, so that
    a wrong option does not wait for the first night to fail.
    Raises EnvironmentLacks when no server is configured or none answers.
    """
    server = configured_server()
    if server is None:
        raise EnvironmentLacks(
            "a deployment needs a Prefect server, and PREFECT_API_URL is not set",
            hint="`prefect server start`, then PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    apply_offline_settings()
    job = job.with_absolute_paths()
    job.specs()
    job.collect()

    require_server(server)
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.deployments.runner import RunnerDeployment
    from prefect.exceptions import ObjectAlreadyExists

    deployment_name = name or job.source_name
    try:
        deployment = RunnerDeployment.from_entrypoint(
            ENTRY_POINT,
            name=deployment_name,
            parameters={"job": job.model_dump(mode="json")},
            cron=cron,
            tags=[f"dataset:{job.source_name}", "stage:extract"],
            concurrency_limit=1,
            work_pool_name=work_pool,
        )
    except ValidationError as error:
        problems = "; ".join(found["msg"] for found in error.errors())
        raise UsageError(f"deployment {deployment_name!r}: {problems}") from error
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=work_pool, type="process"))
    deployment.apply()
    return f"extract/{deployment_name}"
