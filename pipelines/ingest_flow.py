"""The ingestion of a dataset as a Prefect flow: one task over the core in `ingestion`."""

import threading
from typing import Any

from vlpipe.pipelines.settings import apply_offline_settings, apply_torch_settings

apply_offline_settings()
apply_torch_settings()

from prefect import flow, get_run_logger  # noqa: E402 - reads its settings when imported
from prefect.artifacts import create_markdown_artifact, create_table_artifact  # noqa: E402

from vlpipe.pipelines.ingestion import (  # noqa: E402
    IngestionJob,
    IngestionReport,
    ingest_dataset,
)
from vlpipe.pipelines.prefect_parts.progress import ProgressArtifact  # noqa: E402
from vlpipe.pipelines.prefect_parts.retries import (  # noqa: E402
    retried_task,
    stop_if_it_keeps_crashing,
)

_MOST_NAMED = 200


@retried_task("probe-{job.dataset}")
def probe_dataset(job: IngestionJob) -> IngestionReport:
    """The report; files that were probed before a failure are in the table already."""
    bar = ProgressArtifact("ingestion-progress", f"files of {job.dataset} probed")
    return ingest_dataset(
        job, progress=lambda done, of: bar.show(done / of), stop=threading.Event()
    )


@flow(name="ingest", persist_result=True, result_serializer="json")
def ingest(job: IngestionJob) -> dict[str, Any]:
    """Probes what is new or has changed in a copy of a dataset, and writes the table of its videos;
    the entry point of deployments. An incomplete copy is told, and is no failure of the run.

    job: the same value that `vlpipe datasets ingest` builds from its options.
    """
    stop_if_it_keeps_crashing()
    report = probe_dataset(job)
    get_run_logger().info(
        "%s: %d videos, %d probed, %d new, %d changed, %d gone, %d cannot be used",
        report.dataset, report.num_videos, report.num_probed, len(report.new),
        len(report.changed), len(report.gone), len(report.bad),
    )  # fmt: skip
    create_table_artifact(
        table=[{"split": split or "-", **facts} for split, facts in report.splits.items()],
        key="ingestion-splits",
        description=f"{report.dataset} in {report.root}; all videos: {report.table}",
    )
    create_markdown_artifact(
        markdown=report_markdown(report), key="ingestion-summary", description=report.dataset
    )
    return report.to_json()


def report_markdown(report: IngestionReport) -> str:
    """What is new, has changed, is gone, or cannot be used, as Markdown."""
    state = "complete" if report.is_complete else "not complete"
    lines = [f"# {report.dataset}: {state}", "", f"{report.num_missing} named, not on disk", ""]
    named = (("New", report.new), ("Changed", report.changed), ("Gone", report.gone))
    for what, ids in named:
        lines += ["", f"## {what}: {len(ids)}", ""]
        lines += [f"- `{video_id}`" for video_id in ids[:_MOST_NAMED]]
    lines += ["", f"## Cannot be used: {len(report.bad)}", ""]
    lines += [f"- `{i}` ({kind}): {reason}" for i, kind, reason in report.bad[:_MOST_NAMED]]
    return "\n".join(lines)
