"""A training as a Prefect flow: one task a run, over the core in `training`.

The run's folder, not Prefect's state, says how far it is: a retry, like `vlpipe train --resume`,
carries the run on from its last checkpoint.
"""

import threading

from vlpipe.pipelines.settings import apply_offline_settings, apply_torch_settings

apply_offline_settings()
apply_torch_settings()

from prefect import flow, get_run_logger  # noqa: E402 - reads its settings when imported
from prefect.artifacts import create_markdown_artifact  # noqa: E402

from vlpipe.pipelines.prefect_parts.observed_run import run_observed  # noqa: E402
from vlpipe.pipelines.prefect_parts.retries import (  # noqa: E402
    retried_task,
    stop_if_it_keeps_crashing,
)
from vlpipe.pipelines.prefect_parts.training_progress import TrainingBar  # noqa: E402
from vlpipe.pipelines.training.job import TrainingJob  # noqa: E402
from vlpipe.pipelines.training.loop import Silent, TrainingObserver  # noqa: E402
from vlpipe.pipelines.training.run_folder import RunFolder  # noqa: E402
from vlpipe.pipelines.training.train import (  # noqa: E402
    TrainingOutcome,
    resume_training,
    run_training,
)


@retried_task("train-{job.model}-{job.task}")
def train_run(
    job: TrainingJob, observer: TrainingObserver, stop: threading.Event
) -> TrainingOutcome:
    """The outcome of one run, carried on if it has begun."""
    if RunFolder(job.out).facts.exists():
        return resume_training(job.out, observer=observer, stop=stop)
    return run_training(job, observer=observer, stop=stop)


def run_as_flow(
    job: TrainingJob,
    *,
    observer: TrainingObserver | None = None,
    stop: threading.Event | None = None,
) -> TrainingOutcome:
    """The outcome of the job, run as a Prefect flow that calls back to this process.

    Raises EnvironmentLacks when a server is configured and does not answer.
    """
    watched, interrupted = observer or Silent(), stop or threading.Event()
    return run_observed(
        lambda given: _train(given, watched, interrupted),
        job,
        name="train",
        run_name=f"train-{job.model}-{job.task}",
    )


@flow(name="train", persist_result=True, result_serializer="json")
def train(job: TrainingJob) -> dict[str, object]:
    """Trains and evaluates a model; the entry point of deployments. A run that is there already is
    carried on.

    job: the same value that `vlpipe train` builds from its options.
    """
    stop_if_it_keeps_crashing()
    # With several devices training runs in processes that no flow run is about.
    is_alone = job.settings.devices == 1
    bar = TrainingBar("training-progress", f"epochs of {job.model} {job.task}")
    return _train(job, bar if is_alone else Silent(), threading.Event()).to_json()


def _train(job: TrainingJob, observer: TrainingObserver, stop: threading.Event) -> TrainingOutcome:
    log = get_run_logger()
    log.info("%s learns %s of %s into %s", job.model, job.task, job.dataset, job.out)
    outcome = train_run(job, observer, stop)
    create_markdown_artifact(
        markdown=outcome_markdown(outcome, RunFolder(job.out)),
        key="training-summary",
        description=f"{job.model} {job.task} of {job.dataset}",
    )
    return outcome


def outcome_markdown(outcome: TrainingOutcome, run: RunFolder) -> str:
    """The figures of a run and the snapshot it read, as Markdown."""
    store = run.read_facts()["store"]
    lines = [
        f"# {outcome.run}",
        "",
        f"Store {store['url']}, version {store['version']}",
        "",
        "| split | figure | value | without video |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {split} | {name} | {value:.2f} | {found.baseline.get(name, float('nan')):.2f} |"
        for split, found in outcome.evaluated.items()
        for name, value in found.metrics.items()
    ]
    if outcome.was_interrupted:
        lines.append("\nInterrupted: running it again carries on.")
    return "\n".join(lines)
