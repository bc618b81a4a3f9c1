"""The extraction as a Prefect flow: one task a batch, over the core in `extraction`.

The store, not Prefect's state, says what is done: a run that was killed is carried on by the next
run of the same job, from here or from the command line.
"""

import threading
import time

from vlpipe.pipelines.settings import apply_offline_settings, apply_torch_settings

apply_offline_settings()
apply_torch_settings()

from prefect import flow, get_run_logger  # noqa: E402 - reads its settings when imported
from prefect.artifacts import create_markdown_artifact, create_table_artifact  # noqa: E402

from vlpipe.pipelines.extraction.batches import Batch  # noqa: E402
from vlpipe.pipelines.extraction.extract import (  # noqa: E402
    conclude,
    plan_extraction,
    quarantine_problems,
)
from vlpipe.pipelines.extraction.job import ExtractionJob  # noqa: E402
from vlpipe.pipelines.extraction.observer import Observer, Silent  # noqa: E402
from vlpipe.pipelines.extraction.receipts import BatchReceipt, ExtractionSummary  # noqa: E402
from vlpipe.pipelines.extraction.runners import Runner, open_runner, run_batches  # noqa: E402
from vlpipe.pipelines.prefect_parts.extraction_progress import ExtractionBar  # noqa: E402
from vlpipe.pipelines.prefect_parts.observed_run import run_observed  # noqa: E402
from vlpipe.pipelines.prefect_parts.retries import (  # noqa: E402
    retried_task,
    stop_if_it_keeps_crashing,
)


@retried_task("batch-{batch.id}")
def extract_batch(
    batch: Batch, runner: Runner, observer: Observer, stop: threading.Event
) -> BatchReceipt:
    """The receipt of one committed batch."""
    receipt = runner.run(batch, observer=observer, stop=stop)
    observer.on_batch(receipt)
    return receipt


def run_as_flow(
    job: ExtractionJob, *, observer: Observer | None = None, stop: threading.Event | None = None
) -> ExtractionSummary:
    """The summary of the job, run as a Prefect flow that calls back to this process.

    Raises EnvironmentLacks when a server is configured and does not answer.
    """
    watched, interrupted = observer or Silent(), stop or threading.Event()
    return run_observed(
        lambda given: _extract(given, watched, interrupted),
        job,
        name="extract",
        run_name=f"extract-{job.source_name}",
    )


@flow(name="extract", persist_result=True, result_serializer="json")
def extract(job: ExtractionJob) -> ExtractionSummary:
    """Extracts a dataset's features into a store; the entry point of deployments.

    job: the same value that `vlpipe extract` builds from its options.
    """
    stop_if_it_keeps_crashing()
    return _extract(job, ExtractionBar(), threading.Event())


def _extract(job: ExtractionJob, observer: Observer, stop: threading.Event) -> ExtractionSummary:
    started = time.monotonic()
    log = get_run_logger()
    plan = plan_extraction(job)
    observer.on_plan(plan)
    log.info(
        "%s: %d of %d videos to do in %d batches",
        job.source_name, plan.num_tasks, len(plan.selected), len(plan.batches),
    )  # fmt: skip

    def notify(text: str) -> None:
        log.info(text)
        observer.on_notice(text)

    with open_runner(plan, notify=notify) as runner:
        quarantine_problems(plan, runner.store)
        receipts = run_batches(
            runner,
            plan.batches,
            lambda batch: extract_batch(batch, runner, observer, stop),
            stop=stop,
        )
        summary = conclude(
            plan,
            receipts,
            runner.store,
            wall_s=time.monotonic() - started,
            was_stopped=stop.is_set(),
        )
    create_markdown_artifact(
        markdown=summary_markdown(summary),
        key="extraction-summary",
        description=f"{summary.dataset} into {summary.store}",
    )
    if summary.features:
        create_table_artifact(
            table=[{"feature": name, **facts} for name, facts in summary.features.items()],
            key="extraction-features",
            description=f"{summary.store}, version {summary.version}",
        )
    return summary


def summary_markdown(summary: ExtractionSummary) -> str:
    """The summary as a Markdown table and a list of failures."""
    counts = {
        "videos selected": summary.selected,
        "extracted now": summary.extracted,
        "stored before": summary.stored_before,
        "failed now": len({failure.id for failure in summary.failed}),
        "in quarantine before": len(summary.failed_before),
        "named, not on disk": len(summary.missing),
        "not reached": summary.not_reached,
    }
    counts |= {
        f"frames that {name} computed, of {reuse.used}": reuse.computed
        for name, reuse in summary.reuse.items()
    }
    lines = [f"# {summary.dataset}: store version {summary.version}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in counts.items()]
    lines += ["", "| feature | generation | new rows | weights |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {f['generation']} | {f['rows']} | {f['weights']} |"
        for name, f in summary.features.items()
    ]
    if summary.failed:
        lines += ["", "## Failed", ""]
        lines += [f"- `{f.id}` ({f.kind}): {f.message}" for f in summary.failed[:200]]
    return "\n".join(lines)
