"""`vlpipe train`: a model learns a task from a store's features and a dataset's annotations."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlpipe.pipelines.cli import training_options
from vlpipe.pipelines.cli.interruption import (
    INTERRUPTED_EXIT_CODE,
    KEEPING_THE_STEP,
    SAME_COMMAND,
    resuming,
    stop_on_interrupt,
    stop_training_on_interrupt,
)
from vlpipe.pipelines.cli.output import AsJson, print_facts, print_json, print_table, remark
from vlpipe.pipelines.prefect_server import configured_server
from vlpipe.stores.errors import UsageError

if TYPE_CHECKING:
    from vlpipe.pipelines.training.job import TrainingJob
    from vlpipe.pipelines.training.sweep import Sweep
    from vlpipe.pipelines.training.train import TrainingOutcome

EXAMPLE = (
    "Examples:  vlpipe train masn --task count --dataset tgif --root TGIF --store FEATURES   "
    "vlpipe train --resume runs/masn-count-tgif"
)


def train(
    model: training_options.Model = None,
    task: training_options.Task = None,
    dataset: training_options.Dataset = None,
    root: training_options.Root = None,
    store: training_options.Store = "vlpipe-store",
    out: Annotated[
        Path | None,
        typer.Option(help="The folder of the run (default: runs/MODEL-TASK-DATASET)."),
    ] = None,
    config: training_options.Config = None,
    settings: training_options.Settings = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="One run for each, into OUT/seed-N.", metavar="N,N,..."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Carry this run on from its last checkpoint.")
    ] = None,
    prefect: training_options.Prefect = None,
    as_json: AsJson = False,
) -> None:
    """Train a model, evaluate it, and write checkpoints, predictions and report.html."""
    if resume is not None:
        if any(value is not None for value in (model, task, dataset, root, config, out, seeds)):
            raise UsageError("--resume takes everything from the run; leave the rest out")
        _finish(_resume(resume, settings or ()), as_json=as_json)
    job = training_options.build_training_job(
        model=model, task=task, dataset=dataset, root=root, store=store, out=out, config=config,
        settings=settings,
    )  # fmt: skip
    if seeds is not None:
        _finish_sweep(_sweep(job, seeds), as_json=as_json)
    is_flow = prefect if prefect is not None else configured_server() is not None
    _finish(_train(job, is_flow=is_flow), as_json=as_json)


def _train(job: "TrainingJob", *, is_flow: bool) -> "TrainingOutcome":
    from vlpipe.pipelines.cli.training_progress import show_training

    stop = threading.Event()
    is_plain = job.settings.devices > 1
    with (
        stop_training_on_interrupt(stop, "train", job.out),
        show_training(is_plain=is_plain) as observer,
    ):
        if is_flow:
            from vlpipe.pipelines.train_flow import run_as_flow

            return run_as_flow(job, observer=observer, stop=stop)
        from vlpipe.pipelines.training.train import run_training

        return run_training(job, observer=observer, stop=stop)


def _resume(run: Path, settings: Sequence[str]) -> "TrainingOutcome":
    from vlpipe.pipelines.cli.training_progress import show_training
    from vlpipe.pipelines.training.run_folder import RunFolder
    from vlpipe.pipelines.training.train import resume_training

    device = training_options.resumed_device(settings)
    stop = threading.Event()
    is_plain = RunFolder(run).job().settings.devices > 1
    with (
        stop_training_on_interrupt(stop, "train", run),
        show_training(is_plain=is_plain) as observer,
    ):
        return resume_training(run, device=device, observer=observer, stop=stop)


def _sweep(job: "TrainingJob", seeds: str) -> "Sweep":
    from vlpipe.pipelines.cli.training_progress import show_training
    from vlpipe.pipelines.training.sweep import run_sweep

    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError as error:
        raise UsageError(f"--seeds {seeds!r} are no numbers", hint="--seeds 1,2,3") from error
    stop = threading.Event()
    is_plain = job.settings.devices > 1
    with (
        stop_on_interrupt(stop, finishing=KEEPING_THE_STEP),
        show_training(is_plain=is_plain) as observer,
    ):
        return run_sweep(job, numbers, observer=observer, stop=stop)


def _finish(outcome: "TrainingOutcome", *, as_json: bool) -> None:
    """Prints what came out and ends the command."""
    if as_json:
        print_json(outcome.to_json())
    elif not outcome.was_interrupted:
        print_table(
            ("split", "figure", "value", "without video"),
            [
                (split, name, f"{value:.2f}", f"{found.baseline.get(name, float('nan')):.2f}")
                for split, found in outcome.evaluated.items()
                for name, value in found.metrics.items()
            ],
        )
        print_facts([("run", outcome.run), ("report", outcome.run / "report.html")])
        from vlpipe.pipelines.training.run_folder import RunFolder

        for note in RunFolder(outcome.run).task().notes():
            remark(f"note: {note}")
    if outcome.was_interrupted:
        remark(f"interrupted; {resuming('train', outcome.run)}")
    raise typer.Exit(INTERRUPTED_EXIT_CODE if outcome.was_interrupted else 0)


def _finish_sweep(sweep: "Sweep", *, as_json: bool) -> None:
    if as_json:
        print_json(sweep.to_json())
    else:
        print_table(
            ("split", "figure", "mean", "deviation", "runs"),
            [
                (split, name, f"{f['mean']:.2f}", f"{f['std']:.2f}", len(sweep.outcomes))
                for split, figures in sweep.figures.items()
                for name, f in figures.items()
            ],
        )
    if sweep.was_interrupted:
        remark(f"interrupted; {SAME_COMMAND}")
    raise typer.Exit(INTERRUPTED_EXIT_CODE if sweep.was_interrupted else 0)
