"""Care for a store as a Prefect flow: one task over the core in `store_care`."""

from typing import Any

from vlpipe.pipelines.settings import apply_offline_settings, apply_torch_settings

apply_offline_settings()
apply_torch_settings()

from prefect import flow, get_run_logger  # noqa: E402 - reads its settings when imported
from prefect.artifacts import create_markdown_artifact  # noqa: E402

from vlpipe.pipelines.prefect_parts.progress import ProgressArtifact  # noqa: E402
from vlpipe.pipelines.prefect_parts.retries import (  # noqa: E402
    retried_task,
    stop_if_it_keeps_crashing,
)
from vlpipe.pipelines.store_care import (  # noqa: E402
    StoreCareJob,
    StoreCareReport,
    care_for_store,
)

_MOST_NAMED = 200


@retried_task()
def verify_and_compact(job: StoreCareJob) -> StoreCareReport:
    """The report on the store."""
    bar = ProgressArtifact("store-care-progress", f"parts of {job.store} verified")
    return care_for_store(job, progress=bar.show)


@flow(name="care", persist_result=True, result_serializer="json")
def care(job: StoreCareJob) -> dict[str, Any]:
    """Verifies a store; compacts it and collects garbage if it is sound; the entry point of
    deployments. Raises StoreDamaged, so that the run fails and is told of, if it is not.

    job: the same value that `vlpipe store care` builds from its options.
    """
    stop_if_it_keeps_crashing()
    report = verify_and_compact(job)
    get_run_logger().info(
        "%s version %d: %d problems, %d parts into %d, %d bytes removed",
        report.store, report.version, len(report.problems), report.parts_before,
        report.parts_after, report.removed_bytes,
    )  # fmt: skip
    create_markdown_artifact(
        markdown=report_markdown(report), key="store-care-summary", description=report.store
    )
    report.raise_if_damaged()
    return report.to_json()


def report_markdown(report: StoreCareReport) -> str:
    """What was found and done, as Markdown."""
    facts = {
        "sound": "yes" if report.is_sound else "NO",
        "videos, once per feature": report.num_videos,
        "bytes compared": f"{report.compared_bytes:,}",
        "parts rewritten": f"{report.parts_before} into {report.parts_after}",
        "removed": f"{report.num_removed} items, {report.removed_bytes:,} bytes",
        "free bytes": "-" if report.free_bytes is None else f"{report.free_bytes:,}",
    }
    lines = [f"# {report.store}, version {report.version}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    named = (("Damaged", report.problems), ("Repaired", report.repaired))
    for what, sentences in named:
        if sentences:
            lines += ["", f"## {what}", "", *(f"- {text}" for text in sentences[:_MOST_NAMED])]
    if report.lost:
        lines += ["", "## To be extracted again", ""]
        lines += [f"- `{video}` of {feature}" for feature, video in report.lost[:_MOST_NAMED]]
    return "\n".join(lines)
