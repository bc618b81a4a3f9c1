"""Retraining as a Prefect flow: one task over the core in `training.retraining`.

The folder of runs, not Prefect's state, says how far it is: a retry, like the next run, carries an
unfinished training on from its last checkpoint.
"""

import threading
from typing import Any

from vlpipe.pipelines.settings import apply_offline_settings, apply_torch_settings

apply_offline_settings()
apply_torch_settings()

from prefect import flow, get_run_logger  # noqa: E402 - reads its settings when imported
from prefect.artifacts import (  # noqa: E402
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from vlpipe.pipelines.prefect_parts.observed_run import run_observed  # noqa: E402
from vlpipe.pipelines.prefect_parts.retries import (  # noqa: E402
    retried_task,
    stop_if_it_keeps_crashing,
)
from vlpipe.pipelines.prefect_parts.training_progress import TrainingBar  # noqa: E402
from vlpipe.pipelines.training.loop import Silent, TrainingObserver  # noqa: E402
from vlpipe.pipelines.training.retraining import (  # noqa: E402
    Retraining,
    RetrainingJob,
)
from vlpipe.pipelines.training.retraining import retrain as retrain_if_due  # noqa: E402


@retried_task("retrain-{job.model}-{job.task}")
def retrain_run(
    job: RetrainingJob, observer: TrainingObserver, stop: threading.Event
) -> Retraining:
    """What the retraining came to."""
    return retrain_if_due(job, observer=observer, stop=stop)


def run_as_flow(
    job: RetrainingJob,
    *,
    observer: TrainingObserver | None = None,
    stop: threading.Event | None = None,
) -> Retraining:
    """The retraining, run as a Prefect flow that calls back to this process.

    Raises EnvironmentLacks when a server is configured and does not answer.
    """
    watched, interrupted = observer or Silent(), stop or threading.Event()
    return run_observed(
        lambda given: _retrain(given, watched, interrupted),
        job,
        name="retrain",
        run_name=f"retrain-{job.model}-{job.task}",
    )


@flow(name="retrain", persist_result=True, result_serializer="json")
def retrain(job: RetrainingJob) -> dict[str, Any]:
    """Trains if what the job reads has changed, and goes over to the new run if it is better; the
    entry point of deployments.

    job: the same value that `vlpipe retrain` builds from its options.
    """
    stop_if_it_keeps_crashing()
    # With several devices training runs in processes that no flow run is about.
    is_alone = job.settings.devices == 1
    bar = TrainingBar("retraining-progress", f"epochs of {job.model} {job.task}")
    return _retrain(job, bar if is_alone else Silent(), threading.Event()).to_json()


def _retrain(job: RetrainingJob, observer: TrainingObserver, stop: threading.Event) -> Retraining:
    found = retrain_run(job, observer, stop)
    get_run_logger().info("%s: %s", found.verdict, found.reason)
    create_markdown_artifact(
        markdown=retraining_markdown(found),
        key="retraining",
        description=f"{job.model} {job.task} of {job.dataset}: {found.verdict}",
    )
    if found.outcome is not None and found.run is not None:
        create_table_artifact(
            table=[
                {"split": split, "figure": name, "value": value,
                 "without video": evaluated.baseline.get(name)}
                for split, evaluated in found.outcome.evaluated.items()
                for name, value in evaluated.metrics.items()
            ],
            key="retraining-figures",
            description=str(found.run),
        )  # fmt: skip
        create_link_artifact(
            (found.run / "report.html").absolute().as_uri(),
            link_text=f"{found.run.name}: report",
            key="retraining-report",
        )
    return found


def retraining_markdown(found: Retraining) -> str:
    """The verdict and its reason, as Markdown."""
    lines = [f"# {found.verdict}", "", found.reason, ""]
    if found.current is not None:
        lines.append(f"In use: `{found.current}`")
    if found.run is not None:
        lines.append(f"\nTrained: `{found.run}`")
    if found.changes:
        lines += ["", "## What had changed", "", *(f"- {change}" for change in found.changes)]
    if (compared := found.comparison) is not None:
        better = "higher" if compared.is_higher_better else "lower"
        lines += [
            "", "## On the same validation examples", "",
            f"| {compared.figure} ({better} is better) | new | in use before |", "|---|---|---|",
            f"| {compared.num_examples} examples | {compared.new:.4g} | {compared.current:.4g} |",
        ]  # fmt: skip
    return "\n".join(lines)
