"""Extraction without an orchestrator: plan, run batch after batch, commit each.

The command line and the Prefect flow are thin shells over this module, and all of them write the
same store, so that each carries on what another began.
"""

import threading
import time
from collections.abc import Sequence

from vlpipe.pipelines.extraction.batches import Batch
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.extraction.observer import Observer, Silent
from vlpipe.pipelines.extraction.planning import Plan, make_plan
from vlpipe.pipelines.extraction.receipts import BatchReceipt, ExtractionSummary, summarise
from vlpipe.pipelines.extraction.runners import open_runner, run_batches
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import StoreNotFound, UsageError


def plan_extraction(job: ExtractionJob) -> Plan:
    """The work of the job against its store, which need not exist yet; nothing is written."""
    try:
        store = FeatureStore.open(job.store)
    except StoreNotFound:
        return make_plan(job, None)
    with store:
        return make_plan(job, store)


def quarantine_problems(plan: Plan, store: FeatureStore) -> None:
    """Commits the videos that cannot be tried at all to the quarantine; UsageError where nothing
    can be committed."""
    store.check_writable()
    if not plan.problems:
        return
    definitions = [d for spec in plan.specs for d in plan.definitions[spec.name]]
    with store.writer(definitions) as writer:
        for problem in plan.problems:
            writer.fail(problem.id, None, problem.kind, problem.message)


def run_extraction(
    job: ExtractionJob,
    *,
    observer: Observer | None = None,
    stop: threading.Event | None = None,
) -> ExtractionSummary:
    """The summary of the whole job, batch after batch on the runner that it names.

    stop: once set, videos in flight are finished and committed and the rest is left for the next
        run of the same job.
    """
    observer = observer or Silent()
    stop = stop or threading.Event()
    started = time.monotonic()
    plan = plan_extraction(job)
    observer.on_plan(plan)

    with open_runner(plan, notify=observer.on_notice) as runner:

        def run_batch(batch: Batch) -> BatchReceipt:
            receipt = runner.run(batch, observer=observer, stop=stop)
            observer.on_batch(receipt)
            return receipt

        quarantine_problems(plan, runner.store)
        receipts = run_batches(runner, plan.batches, run_batch, stop=stop)
        return conclude(
            plan,
            receipts,
            runner.store,
            wall_s=time.monotonic() - started,
            was_stopped=stop.is_set(),
        )


def conclude(
    plan: Plan,
    receipts: Sequence[BatchReceipt],
    store: FeatureStore,
    *,
    wall_s: float,
    was_stopped: bool = False,
) -> ExtractionSummary:
    """The summary, after readers were let go over to what is complete now."""
    store.refresh()
    activated, inactive = _activate_complete(plan, receipts, store)
    summary = summarise(plan, receipts, version=store.version, wall_s=wall_s)
    return summary.model_copy(
        update={
            "activated": activated,
            "inactive": inactive,
            "was_interrupted": was_stopped and summary.not_reached > 0,
        }
    )


def _activate_complete(
    plan: Plan, receipts: Sequence[BatchReceipt], store: FeatureStore
) -> tuple[dict[str, str], dict[str, str]]:
    """Lets readers of a feature go over to its new generation once that covers the old one.

    Returns the features for which it did, and those for which it did not, with the reason: until
    then a reader gets the old generation, and the new one by `NAME@GENERATION`. Only a generation
    that this run added to is considered, so that jobs with different settings do not take turns
    (or any, where readers get none at all), and random numbers never replace features of trained
    weights.
    """
    activated: dict[str, str] = {}
    inactive: dict[str, str] = {}
    grown = {feature for r in receipts for video in r.stored for feature in video.rows}
    for definition in (d for ds in plan.definitions.values() for d in ds):
        active = store.features.get(definition.name)
        if active is None:
            is_due = definition.name in store.feature_names
        else:
            is_due = definition.name in grown and active.generation != definition.generation
        if not is_due:
            continue
        if active is not None and definition.is_untrained and not active.is_untrained:
            inactive[definition.name] = (
                f"readers go on to get generation {active.generation}, of trained weights; this "
                f"untrained one is {definition.name}@{definition.generation}"
            )
            continue
        try:
            store.activate(definition.name, definition.generation)
        except UsageError as error:
            inactive[definition.name] = error.message
        else:
            activated[definition.name] = f"readers now get generation {definition.generation}" + (
                f" instead of {active.generation}" if active else ""
            )
    return activated, inactive
