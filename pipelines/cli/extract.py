"""`vlpipe extract`: features of a dataset or of any media into a store."""

import threading
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from vlpipe.pipelines.cli import job_options
from vlpipe.pipelines.cli.interruption import SAME_COMMAND, stop_on_interrupt
from vlpipe.pipelines.cli.output import (
    AsJson,
    print_facts,
    print_json,
    print_table,
    readable_bytes,
    remark,
)
from vlpipe.pipelines.prefect_server import configured_server
from vlpipe.stores.errors import UsageError

if TYPE_CHECKING:
    from vlpipe.pipelines.extraction.job import ExtractionJob
    from vlpipe.pipelines.extraction.planning import Plan
    from vlpipe.pipelines.extraction.receipts import ExtractionSummary, Failure

EXAMPLE = (
    "Examples:  vlpipe extract --dataset tgif --root TGIF --features resnet152,vggish   "
    "vlpipe extract clip.mp4 more/ --features resnet18 --weights untrained --set resnet18.fps=5"
)

_MOST_NAMED = 20


class Runner(StrEnum):
    """What runs the batches."""

    LOCAL = "local"
    DASK = "dask"


class Cluster(StrEnum):
    """Where a Dask cluster is made."""

    LOCAL = "local"
    SLURM = "slurm"


def extract(
    paths: job_options.Paths = None,
    features: job_options.Features = None,
    preset: job_options.For = None,
    dataset: job_options.Dataset = None,
    root: job_options.Root = None,
    store: job_options.Store = "vlpipe-store",
    split: job_options.Split = None,
    limit: job_options.Limit = None,
    shard: job_options.Shard = None,
    weights: job_options.Weights = None,
    settings: job_options.Settings = None,
    device: job_options.Device = "cpu",
    precision: job_options.PrecisionOption = job_options.Precision.FP32,
    compile_networks: job_options.Compile = False,
    store_dtype: job_options.StoreDtypeOption = job_options.StoreDtype.FLOAT16,
    damaged_media: job_options.DamagedMediaOption = job_options.DamagedMedia.STRICT,
    decode_workers: job_options.DecodeWorkers = 0,
    retry_failed: job_options.RetryFailed = False,
    restore_deleted: Annotated[
        bool, typer.Option("--restore-deleted", help="Bring deleted videos back.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
    prefect: Annotated[
        bool | None,
        typer.Option(
            "--prefect/--no-prefect",
            help="Run as a Prefect flow (default: if PREFECT_API_URL is set).",
        ),
    ] = None,
    runner: Annotated[
        Runner,
        typer.Option(help="What runs the batches: this process and its children, or Dask."),
    ] = Runner.LOCAL,
    dask_address: Annotated[
        str | None,
        typer.Option(
            help="A Dask scheduler that runs, or its scheduler file (default: one is started).",
            metavar="tcp://HOST:PORT",
        ),
    ] = None,
    dask_cluster: Annotated[
        Cluster, typer.Option(help="Where one is started: processes here, or jobs of SLURM.")
    ] = Cluster.LOCAL,
    dask_workers: Annotated[
        int, typer.Option(min=0, help="Workers to start; 0: one for each GPU, or each core.")
    ] = 0,
    dask_threads: Annotated[
        int, typer.Option(min=0, help="Threads of a worker's networks; 0: its share of the cores.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Extract features into a store: what is stored is skipped, what was interrupted carries on."""
    dask = {
        "address": dask_address,
        "cluster": dask_cluster.value,
        "workers": dask_workers,
        "threads": dask_threads,
    }
    if runner is not Runner.DASK and (
        dask_cluster is not Cluster.LOCAL or any((dask_address, dask_workers, dask_threads))
    ):
        raise UsageError("options of Dask were given", hint="--runner dask runs on it")
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
        shard=shard,
        device=device,
        precision=precision.value,
        compile=compile_networks,
        store_dtype=store_dtype.value,
        retry_failed=retry_failed,
        restore_deleted=restore_deleted,
        decode_workers=decode_workers,
        damaged_media=damaged_media.value,
        dask=dask if runner is Runner.DASK else None,
    )
    if dry_run:
        _show_plan(job, as_json=as_json)
        return
    is_flow = prefect if prefect is not None else configured_server() is not None
    summary = _run(job, is_flow=is_flow)
    if as_json:
        print_json(summary.model_dump(mode="json"))
    else:
        show_summary(summary)
    raise typer.Exit(summary.exit_code)


def show_summary(summary: "ExtractionSummary") -> None:
    """The summary for people, on stdout."""
    for reason in summary.left_out:
        remark(f"left out: {reason}")
    if not (summary.extracted or summary.failed or summary.not_reached):
        typer.echo(f"{summary.dataset}: nothing to do; {_at_rest(summary)}")
        _name_failed_before(summary.failed_before)
        return
    failed_ids = dict.fromkeys(failure.id for failure in summary.failed)
    facts: list[tuple[str, object]] = [
        ("store", f"{summary.store} (version {summary.version})"),
        ("videos", summary.selected),
        ("  extracted now", summary.extracted),
        ("  stored before", summary.stored_before),
        ("  failed", len(failed_ids)),
    ]
    if summary.failed_before:
        facts.append(("  in quarantine", f"{len(summary.failed_before)} (--retry-failed)"))
    if summary.deleted:
        facts.append(("  deleted before", f"{summary.deleted} (--restore-deleted)"))
    if summary.missing:
        facts.append(("  not on disk", len(summary.missing)))
    if summary.not_reached:
        facts.append(("  not reached", f"{summary.not_reached} ({SAME_COMMAND})"))
    facts += [
        (f"{name} computed", f"{r.computed} of {r.used} frames ({r.share_saved:.0%} saved)")
        for name, r in summary.reuse.items()
    ]
    facts += [
        ("media", f"{summary.media_s:,.1f} s in {summary.wall_s:,.1f} s"),
        ("written", readable_bytes(summary.num_bytes)),
    ]
    print_facts(facts, title=summary.dataset)
    print_table(
        ("feature", "generation", "new rows", "weights"),
        [(name, f["generation"], f["rows"], f["weights"]) for name, f in summary.features.items()],
    )
    for name, reason in (summary.activated | summary.inactive).items():
        remark(f"{name}: {reason}")
    if summary.replaced:
        named = ", ".join(summary.replaced[:_MOST_NAMED])
        remark(f"replaced, since the file is another one than before: {named}")
    _name_failures(summary.failed)
    _name_failed_before(summary.failed_before)


def _name_failed_before(video_ids: Sequence[str]) -> None:
    for video_id in video_ids[:_MOST_NAMED]:
        remark(f"in quarantine: {video_id}")
    if len(video_ids) > _MOST_NAMED:
        remark(f"... and {len(video_ids) - _MOST_NAMED} more: vlpipe store failed STORE")


def _at_rest(summary: "ExtractionSummary") -> str:
    counts = [
        (summary.stored_before, f"stored in {summary.store} (version {summary.version})"),
        (len(summary.failed_before), "in quarantine (--retry-failed)"),
        (summary.deleted, "deleted from it (--restore-deleted)"),
        (len(summary.missing), "not on disk"),
    ]
    return ", ".join(f"{n:,} {what}" for n, what in counts if n) or "no videos were found"


def _name_failures(failures: Sequence["Failure"]) -> None:
    for failure in failures[:_MOST_NAMED]:
        remark(f"failed: {failure.id} ({failure.kind}): {failure.message}")
    if len(failures) > _MOST_NAMED:
        remark(f"... and {len(failures) - _MOST_NAMED} more: vlpipe store failed STORE")


def _run(job: "ExtractionJob", *, is_flow: bool) -> "ExtractionSummary":
    from vlpipe.pipelines.cli.progress import show_progress

    if is_flow:
        from vlpipe.pipelines.extract_flow import run_as_flow as run
    else:
        from vlpipe.pipelines.extraction.extract import run_extraction as run
    stop = threading.Event()
    with stop_on_interrupt(stop), show_progress() as observer:
        return run(job, observer=observer, stop=stop)


def _show_plan(job: "ExtractionJob", *, as_json: bool) -> None:
    from vlpipe.pipelines.extraction.extract import plan_extraction

    plan = plan_extraction(job)
    if as_json:
        print_json(plan.to_json())
        return
    print_facts(_plan_facts(plan), title=f"{job.source_name}: nothing is written")
    print_table(
        ("feature", "generation", "extractor", "row", "dtype", "weights"),
        [
            (
                d.name,
                d.generation,
                spec.name,
                " x ".join(map(str, d.row_shape)),
                d.dtype,
                d.weights,
            )
            for spec in plan.specs
            for d in plan.definitions[spec.name]
        ],
    )
    for reason in plan.left_out:
        remark(f"would be left out: {reason}")
    for problem in plan.problems[:_MOST_NAMED]:
        remark(f"cannot be tried: {problem.id!r} ({problem.kind}): {problem.message}")


def _plan_facts(plan: "Plan") -> list[tuple[str, object]]:
    return [
        ("store", plan.job.store),
        ("videos", len(plan.selected)),
        ("  to do", f"{plan.num_tasks} in {len(plan.batches)} batches"),
        ("  stored", len(plan.stored)),
        ("  deleted", len(plan.deleted)),
        ("  in quarantine", len(plan.failed_before)),
        ("  cannot be tried", len(plan.problems)),
        ("  not on disk", len(plan.missing)),
        ("rough estimate", f"{sum(b.estimated_s for b in plan.batches):,.0f} s of work"),
    ]
