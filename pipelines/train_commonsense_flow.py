"""A training of VC R-CNN as a Prefect flow: one task, over the core in `train_commonsense`.

The run's folder, not Prefect's state, says how far it is: a retry carries the run on from its last
checkpoint.
"""

import threading

from vlpipe.pipelines.settings import apply_offline_settings, apply_thread_settings

apply_offline_settings()
apply_thread_settings()

from prefect import flow, get_run_logger, task  # noqa: E402 - reads its settings when imported
from prefect.artifacts import create_markdown_artifact  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from vlpipe.pipelines.commonsense_training.job import CommonsenseJob  # noqa: E402
from vlpipe.pipelines.commonsense_training.loop import CommonsenseObserver, Unwatched  # noqa: E402
from vlpipe.pipelines.commonsense_training.train import (  # noqa: E402
    CommonsenseOutcome,
    resume_commonsense_training,
    run_commonsense_training,
)
from vlpipe.pipelines.prefect_parts.retries import (  # noqa: E402
    RETRY_DELAYS_S,
    is_infrastructure_error,
    stop_if_it_keeps_crashing,
)
from vlpipe.pipelines.prefect_server import configured_server, require_server  # noqa: E402
from vlpipe.pipelines.training.run_folder import RunFolder  # noqa: E402


@task(
    task_run_name="train-vc-rcnn",
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_jitter_factor=0.5,
    retry_condition_fn=is_infrastructure_error,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def train_commonsense_run(
    job: CommonsenseJob, observer: CommonsenseObserver, stop: threading.Event
) -> CommonsenseOutcome:
    """The outcome of one run, carried on if it has begun."""
    if RunFolder(job.out).facts.exists():
        return resume_commonsense_training(job.out, observer=observer, stop=stop)
    return run_commonsense_training(job, observer=observer, stop=stop)


def run_commonsense_as_flow(
    job: CommonsenseJob,
    *,
    observer: CommonsenseObserver | None = None,
    stop: threading.Event | None = None,
) -> CommonsenseOutcome:
    """The outcome of the job, run as a Prefect flow that calls back to this process.

    Raises EnvironmentLacks when a server is configured and does not answer.
    """
    server = configured_server()
    if server is not None:
        require_server(server)
    watched, interrupted = observer or Unwatched(), stop or threading.Event()

    @flow(name="train-commonsense", validate_parameters=False)
    def observed_train(job: CommonsenseJob) -> CommonsenseOutcome:
        return _train(job, watched, interrupted)

    outcome: CommonsenseOutcome = observed_train(job)
    return outcome


@flow(name="train-commonsense", persist_result=True, result_serializer="json")
def train_commonsense(job: CommonsenseJob) -> dict[str, object]:
    """Trains VC R-CNN; the entry point of deployments. A run that is there already is carried on.

    job: the same value that `vlpipe train-commonsense` builds from its options.
    """
    stop_if_it_keeps_crashing()
    return _train(job, Unwatched(), threading.Event()).to_json()


def _train(
    job: CommonsenseJob, observer: CommonsenseObserver, stop: threading.Event
) -> CommonsenseOutcome:
    log = get_run_logger()
    log.info("VC R-CNN learns from %s into %s", job.instances, job.out)
    outcome = train_commonsense_run(job, observer, stop)
    create_markdown_artifact(
        markdown=outcome_markdown(outcome),
        key="commonsense-training-summary",
        description=f"VC R-CNN on {job.instances.name}",
    )
    return outcome


def outcome_markdown(outcome: CommonsenseOutcome) -> str:
    """The last figures of a run, as Markdown."""
    lines = [f"# {outcome.run}", "", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value:.4g} |" for name, value in outcome.figures.items()]
    if outcome.was_interrupted:
        lines.append("\nInterrupted: running it again carries on.")
    return "\n".join(lines)
