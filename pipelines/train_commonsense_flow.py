"""A training of VC R-CNN as a Prefect flow: one task, over the core in `train_commonsense`.

The run's folder, not Prefect's state, says how far it is: a retry carries the run on from its last
checkpoint.
"""

import threading

from vlpipe.pipelines.settings import apply_offline_settings, apply_torch_settings

apply_offline_settings()
apply_torch_settings()

from prefect import flow, get_run_logger  # noqa: E402 - reads its settings when imported
from prefect.artifacts import create_markdown_artifact  # noqa: E402

from vlpipe.pipelines.commonsense_training.job import CommonsenseJob  # noqa: E402
from vlpipe.pipelines.commonsense_training.loop import CommonsenseObserver, Unwatched  # noqa: E402
from vlpipe.pipelines.commonsense_training.train import (  # noqa: E402
    CommonsenseOutcome,
    resume_commonsense_training,
    run_commonsense_training,
)
from vlpipe.pipelines.prefect_parts.observed_run import run_observed  # noqa: E402
from vlpipe.pipelines.prefect_parts.retries import (  # noqa: E402
    retried_task,
    stop_if_it_keeps_crashing,
)
from vlpipe.pipelines.training.run_folder import RunFolder  # noqa: E402


@retried_task("train-vc-rcnn")
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
    watched, interrupted = observer or Unwatched(), stop or threading.Event()
    return run_observed(
        lambda given: _train(given, watched, interrupted),
        job,
        name="train-commonsense",
    )


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
