"""A training as a Prefect flow: one task a run, over the core in `training`.

The run's folder, not Prefect's state, says how far it is: a retry, like `vlpipe train --resume`,
carries the run on from its last checkpoint.
"""

import threading

from vlpipe.pipelines.settings import apply_offline_settings, apply_thread_settings

apply_offline_settings()
apply_thread_settings()

from prefect import flow, get_run_logger, task  # noqa: E402 - reads its settings when imported
from prefect.artifacts import create_markdown_artifact  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from vlpipe.pipelines.prefect_parts.retries import (  # noqa: E402
    RETRY_DELAYS_S,
    is_infrastructure_error,
    stop_if_it_keeps_crashing,
)
from vlpipe.pipelines.prefect_parts.training_progress import TrainingBar  # noqa: E402
from vlpipe.pipelines.prefect_server import configured_server, require_server  # noqa: E402
from vlpipe.pipelines.training.job import TrainingJob  # noqa: E402
from vlpipe.pipelines.training.loop import Silent, TrainingObserver  # noqa: E402
from vlpipe.pipelines.training.run_folder import RunFolder  # noqa: E402
from vlpipe.pipelines.training.train import (  # noqa: E402
    TrainingOutcome,
    resume_training,
    run_training,
)


@task(
    task_run_name="train-{job.model}-{job.task}",
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_jitter_factor=0.5,
    retry_condition_fn=is_infrastructure_error,
    cache_policy=NO_CACHE,
    persist_result=False,
)
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
    server = configured_server()
    if server is not None:
        require_server(server)
    watched, interrupted = observer or Silent(), stop or threading.Event()

    @flow(name="train", flow_run_name=f"train-{job.model}-{job.task}", validate_parameters=False)
    def observed_train(job: TrainingJob) -> TrainingOutcome:
        return _train(job, watched, interrupted)

    outcome: TrainingOutcome = observed_train(job)
    return outcome


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
