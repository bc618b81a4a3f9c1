"""`vlpipe deploy`: Prefect deployments, for the UI, the API and schedules."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlpipe.pipelines.cli import job_options
from vlpipe.pipelines.cli.output import AsJson, print_json, print_table, remark
from vlpipe.stores.errors import UsageError

if TYPE_CHECKING:
    from vlpipe.pipelines.extraction.job import ExtractionJob

EXAMPLE = (
    "Examples:  vlpipe deploy --file deployments.yaml --notify slack-webhook/alerts   "
    "vlpipe deploy --dataset tgif --root TGIF --store /data/store "
    '--features resnet152,vggish --cron "0 3 * * *"'
)


def deploy(
    paths: job_options.Paths = None,
    features: job_options.Features = None,
    preset: job_options.For = None,
    dataset: job_options.Dataset = None,
    root: job_options.Root = None,
    store: job_options.Store = "vlpipe-store",
    split: job_options.Split = None,
    limit: job_options.Limit = None,
    weights: job_options.Weights = None,
    settings: job_options.Settings = None,
    device: job_options.Device = "cpu",
    precision: job_options.PrecisionOption = job_options.Precision.FP32,
    compile_networks: job_options.Compile = False,
    store_dtype: job_options.StoreDtypeOption = job_options.StoreDtype.FLOAT16,
    damaged_media: job_options.DamagedMediaOption = job_options.DamagedMedia.STRICT,
    decode_workers: job_options.DecodeWorkers = 0,
    retry_failed: job_options.RetryFailed = False,
    work_pool: Annotated[
        str | None,
        typer.Option(
            help="A process work pool, made if it does not exist (default: local, or what FILE "
            "says).",
            metavar="NAME",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the deployment (default: the dataset's).")
    ] = None,
    cron: Annotated[
        str | None, typer.Option(help="When it runs by itself.", metavar='"M H D M W"')
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Register what this file describes (docs/operations.md)."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Of FILE only these, by flow, name or FLOW/NAME.", metavar="NAME,..."),
    ] = None,
    notify: Annotated[
        str | None,
        typer.Option(
            help="Tell about failures through this notification block of the server.",
            metavar="TYPE/NAME",
        ),
    ] = None,
    print_file: Annotated[
        bool, typer.Option("--print-file", help="Print the file that comes with vlpipe, to edit.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register deployments with the Prefect API at PREFECT_API_URL, schedules included.

    With videos and features: their extraction. Otherwise all that a file describes: ingestion,
    extraction, retraining, care for the store; without --file that of the demo. The automations
    that notice dead runs and start them again come along. Repeating it changes nothing.
    """
    if print_file:
        from vlpipe.pipelines.deployment_plan import PACKAGED_PLAN

        typer.echo(PACKAGED_PLAN.read_text(encoding="utf-8"), nl=False)
        return
    if not (paths or features or preset or dataset):
        _deploy_file(file, only, work_pool, notify, as_json=as_json)
        return
    if file is not None or only:
        raise UsageError("videos and features are given, and a file: one of them is enough")
    job = job_options.build_job(
        paths=paths,
        features=features,
        preset=preset,
        weights=weights,
        settings=settings,
        dataset=dataset,
        root=root,
        store=store,
        split=split,
        limit=limit,
        device=device,
        precision=precision.value,
        compile=compile_networks,
        store_dtype=store_dtype.value,
        retry_failed=retry_failed,
        decode_workers=decode_workers,
        damaged_media=damaged_media.value,
    )
    _deploy_extraction(job, name, work_pool or "local", cron, notify, as_json=as_json)


def _deploy_extraction(
    job: "ExtractionJob",
    name: str | None,
    work_pool: str,
    cron: str | None,
    notify: str | None,
    *,
    as_json: bool,
) -> None:
    from vlpipe.pipelines.prefect_parts.registration import register_job, require_configured_server

    require_configured_server()
    # Here, so that a wrong option does not wait for the first night to fail.
    job.specs()
    job.collect()
    full_name = register_job(
        "extract", job, name=name or job.source_name, work_pool=work_pool, cron=cron, notify=notify
    )
    if as_json:
        print_json({"deployment": full_name, "work_pool": work_pool, "cron": cron})
    else:
        typer.echo(
            f"{full_name} in work pool {work_pool}"
            + (f", schedule {cron}" if cron else "")
            + f"\nworker:  prefect worker start --pool {work_pool}"
            + f"\nrun now: prefect deployment run {full_name}"
        )


def _deploy_file(
    file: Path | None,
    only: list[str] | None,
    work_pool: str | None,
    notify: str | None,
    *,
    as_json: bool,
) -> None:
    from vlpipe.pipelines.deployment_plan import PACKAGED_PLAN, read_plan
    from vlpipe.pipelines.prefect_parts.registration import register_plan

    names = [name.strip() for text in only or () for name in text.split(",") if name.strip()]
    plan = read_plan(file or PACKAGED_PLAN, names)
    if work_pool is not None:
        plan = plan.in_pool(work_pool)
    found = register_plan(plan, notify)
    if as_json:
        print_json(found.to_json())
    else:
        print_table(
            ("deployment", "work pool", "schedule"),
            [
                (
                    d.full_name,
                    d.work_pool.name,
                    ", ".join(s.cron + ("" if s.active else " (off)") for s in d.schedules) or None,
                )
                for d in plan.deployments
            ],
        )
        for pool in found.work_pools:
            typer.echo(f"worker:  prefect worker start --pool {pool}")
        typer.echo(f"run now: prefect deployment run {found.deployments[0]}")
    for text in plan.remarks:
        remark(text)
