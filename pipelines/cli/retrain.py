"""`vlpipe retrain`: a training that is repeated when its data have changed."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlpipe.pipelines.cli import training_options
from vlpipe.pipelines.cli.interruption import (
    INTERRUPTED_EXIT_CODE,
    KEEPING_THE_STEP,
    stop_on_interrupt,
)
from vlpipe.pipelines.cli.output import AsJson, print_facts, print_json, remark
from vlpipe.pipelines.prefect_server import configured_server

if TYPE_CHECKING:
    from vlpipe.pipelines.training.retraining import Retraining, RetrainingJob

EXAMPLE = (
    "Example:  vlpipe retrain masn --task count --dataset tgif --root TGIF --store FEATURES "
    "--out runs/count   (then: vlpipe ask clip.gif QUESTION --run runs/count/current)"
)


def retrain(
    model: training_options.Model = None,
    task: training_options.Task = None,
    dataset: training_options.Dataset = None,
    root: training_options.Root = None,
    store: training_options.Store = "vlpipe-store",
    out: Annotated[
        Path | None,
        typer.Option(help="The folder of the runs (default: runs/MODEL-TASK-DATASET)."),
    ] = None,
    config: training_options.Config = None,
    settings: training_options.Settings = None,
    min_gain: Annotated[
        float,
        typer.Option(min=0, help="Promote only a run that is better by more than this."),
    ] = 0.0,
    force: Annotated[
        bool, typer.Option("--force", help="Train although nothing has changed.")
    ] = False,
    prefect: training_options.Prefect = None,
    as_json: AsJson = False,
) -> None:
    """Train if the features or annotations have changed; use the new run if it is better."""
    from vlpipe.pipelines.training.retraining import RetrainingJob

    job = training_options.build_training_job(
        model=model, task=task, dataset=dataset, root=root, store=store, out=out, config=config,
        settings=settings,
    )  # fmt: skip
    repeated = RetrainingJob(**job.model_dump(), min_gain=min_gain, force=force)
    is_flow = prefect if prefect is not None else configured_server() is not None
    found = _retrain(repeated, is_flow=is_flow)
    if as_json:
        print_json(found.to_json())
    else:
        facts = [("verdict", found.verdict), ("why", found.reason), ("current run", found.current)]
        print_facts(facts if found.run is None else [*facts, ("trained run", found.run)])
        for change in found.changes:
            remark(f"changed: {change}")
    raise typer.Exit(INTERRUPTED_EXIT_CODE if found.verdict == "interrupted" else 0)


def _retrain(job: "RetrainingJob", *, is_flow: bool) -> "Retraining":
    from vlpipe.pipelines.cli.training_progress import show_training

    if is_flow:
        from vlpipe.pipelines.retrain_flow import run_as_flow as run
    else:
        from vlpipe.pipelines.training.retraining import retrain as run
    stop = threading.Event()
    is_plain = job.settings.devices > 1
    with (
        stop_on_interrupt(stop, finishing=KEEPING_THE_STEP),
        show_training(is_plain=is_plain) as observer,
    ):
        return run(job, observer=observer, stop=stop)
