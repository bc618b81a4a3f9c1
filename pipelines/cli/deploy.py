"""`vlpipe deploy`: an extraction as a Prefect deployment, for the UI, the API and schedules."""

from typing import Annotated

import typer

from vlpipe.pipelines.cli import job_options
from vlpipe.pipelines.cli.output import AsJson, print_json

EXAMPLE = (
    "Example:  vlpipe deploy --dataset tgif --root TGIF --store /data/store "
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
        str, typer.Option(help="A process work pool, made if it does not exist.", metavar="NAME")
    ] = "local",
    name: Annotated[
        str | None, typer.Option(help="Of the deployment (default: the dataset's).")
    ] = None,
    cron: Annotated[
        str | None, typer.Option(help="When it runs by itself.", metavar='"M H D M W"')
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Register an extraction with the Prefect API at PREFECT_API_URL, its schedule included."""
    from vlpipe.pipelines.deployment import deploy_extraction

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
    full_name = deploy_extraction(job, work_pool=work_pool, name=name, cron=cron)
    if as_json:
        print_json({"deployment": full_name, "work_pool": work_pool, "cron": cron})
    else:
        typer.echo(
            f"{full_name} in work pool {work_pool}"
            + (f", schedule {cron}" if cron else "")
            + f"\nworker:  prefect worker start --pool {work_pool}"
            + f"\nrun now: prefect deployment run {full_name}"
        )
