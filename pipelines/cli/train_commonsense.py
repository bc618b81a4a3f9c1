"""`vlpipe train-commonsense`: VC R-CNN learns from images whose objects are annotated."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlpipe.pipelines.cli.interruption import (
    INTERRUPTED_EXIT_CODE,
    resuming,
    stop_training_on_interrupt,
)
from vlpipe.pipelines.cli.output import AsJson, print_facts, print_json, remark
from vlpipe.pipelines.cli.training_options import resumed_device
from vlpipe.pipelines.cli.training_progress import training_bar
from vlpipe.pipelines.prefect_server import configured_server
from vlpipe.stores.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from vlpipe.pipelines.commonsense_training.job import CommonsenseJob
    from vlpipe.pipelines.commonsense_training.loop import CommonsenseObserver
    from vlpipe.pipelines.commonsense_training.train import CommonsenseOutcome
    from vlpipe.pipelines.training.state import Progress

EXAMPLE = (
    "Examples:  vlpipe train-commonsense --instances instances_train2014.json --images train2014 "
    "--weights R-101.pkl   vlpipe train-commonsense --resume runs/vc_rcnn"
)
_LINE_EVERY_S = 30.0


def train_commonsense(
    instances: Annotated[
        Path | None, typer.Option(help="Annotations in the form of COCO's instances_*.json.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="The folder that their file names count from.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="What to start from: MSRA's R-50.pkl or R-101.pkl, a checkpoint of VC R-CNN, or "
            "`untrained`.",
            metavar="FILE",
        ),
    ] = None,
    dictionary: Annotated[
        Path | None,
        typer.Option(help="Such as dic_coco.npy (default: computed from the data)."),
    ] = None,
    prior: Annotated[Path | None, typer.Option(help="Such as stat_prob.npy.")] = None,
    dictionary_names: Annotated[
        Path | None, typer.Option(help="The class of each row of the dictionary, a line each.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the run.")] = Path("runs/vc_rcnn"),
    config: Annotated[Path | None, typer.Option(help="Settings in a TOML file.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as batch_size=4."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Carry this run on from its last checkpoint.")
    ] = None,
    prefect: Annotated[
        bool | None,
        typer.Option(
            "--prefect/--no-prefect",
            help="Run as a Prefect flow (default: if PREFECT_API_URL is set).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train VC R-CNN, and write a checkpoint that the extractor commonsense loads."""
    if resume is not None:
        given = (instances, images, weights, dictionary, prior, dictionary_names, config)
        if any(value is not None for value in given):
            raise UsageError("--resume takes everything from the run; leave the rest out")
        _finish(_resume(resume, settings or ()), as_json=as_json)
    from vlpipe.pipelines.commonsense_training.job import parse_commonsense_settings, parse_job

    for name, value in (("instances", instances), ("images", images), ("weights", weights)):
        if value is None:
            raise UsageError(f"--{name} is missing", hint="vlpipe train-commonsense --help")
    job = parse_job(
        instances=instances,
        images=images,
        weights=weights,
        dictionary=dictionary,
        prior=prior,
        dictionary_names=dictionary_names,
        out=out,
        settings=parse_commonsense_settings(config, settings or ()),
    )
    is_flow = prefect if prefect is not None else configured_server() is not None
    _finish(_train(job, is_flow=is_flow), as_json=as_json)


def _train(job: "CommonsenseJob", *, is_flow: bool) -> "CommonsenseOutcome":
    stop = threading.Event()
    is_plain = job.settings.devices > 1
    with (
        stop_training_on_interrupt(stop, "train-commonsense", job.out),
        show_training(is_plain=is_plain) as observer,
    ):
        if is_flow:
            from vlpipe.pipelines.train_commonsense_flow import run_commonsense_as_flow

            return run_commonsense_as_flow(job, observer=observer, stop=stop)
        from vlpipe.pipelines.commonsense_training.train import run_commonsense_training

        return run_commonsense_training(job, observer=observer, stop=stop)


def _resume(run: Path, settings: Sequence[str]) -> "CommonsenseOutcome":
    from vlpipe.pipelines.commonsense_training.train import (
        open_commonsense,
        resume_commonsense_training,
    )
    from vlpipe.pipelines.training.run_folder import RunFolder

    device = resumed_device(settings)
    stop = threading.Event()
    is_plain = open_commonsense(RunFolder(run))[0].settings.devices > 1
    with (
        stop_training_on_interrupt(stop, "train-commonsense", run),
        show_training(is_plain=is_plain) as observer,
    ):
        return resume_commonsense_training(run, device=device, observer=observer, stop=stop)


def _finish(outcome: "CommonsenseOutcome", *, as_json: bool) -> None:
    """Prints what came out and ends the command."""
    if as_json:
        print_json(outcome.to_json())
    elif not outcome.was_interrupted:
        print_facts(
            [
                ("run", outcome.run),
                ("steps", outcome.step),
                *((name, f"{value:.4g}") for name, value in outcome.figures.items()),
                *(("checkpoint", path) for path in outcome.checkpoints),
            ]
        )
        remark(f"use it with --features commonsense --weights vc_rcnn={outcome.checkpoints[-1]}")
    if outcome.was_interrupted:
        remark(f"interrupted; {resuming('train-commonsense', outcome.run)}")
    raise typer.Exit(INTERRUPTED_EXIT_CODE if outcome.was_interrupted else 0)


@contextmanager
def show_training(*, is_plain: bool = False) -> Iterator["CommonsenseObserver"]:
    """An observer that draws bars when stderr is a terminal, and writes plain lines if not.

    is_plain: lines in any case; these can be sent to another process.
    """
    if is_plain or not sys.stderr.isatty():
        yield CommonsenseLines()
        return
    with training_bar() as bar:
        yield _Drawn(bar)


class CommonsenseLines:
    """Plain lines: how it begins, and every half minute."""

    def __init__(self) -> None:
        self._figures = ""
        self._last_line = float("-inf")

    def on_confounders(self, done: int, total: int) -> None:
        if self._is_due() or done == total:
            remark(f"dictionary: {done} of {total} images")

    def on_start(self, num_images: int, total: int, progress: "Progress") -> None:
        begun = f", from step {progress.step}" if progress.step else ""
        remark(f"VC R-CNN: {num_images} images, {total} steps{begun}")

    def on_step(self, step: int, total: int) -> None:
        if self._is_due() or step == total:
            remark(f"step {step} of {total}{self._figures}")

    def on_figures(self, row: dict[str, float]) -> None:
        self._figures = f", {figures_line(row)}"

    def _is_due(self) -> bool:
        is_due = time.monotonic() - self._last_line >= _LINE_EVERY_S
        if is_due:
            self._last_line = time.monotonic()
        return is_due


class _Drawn:
    def __init__(self, bar: "Bar") -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def on_confounders(self, done: int, total: int) -> None:
        self._bar.update(self._task("dictionary", total), completed=done)

    def on_start(self, num_images: int, total: int, progress: "Progress") -> None:
        del num_images
        self._bar.update(self._task("VC R-CNN", total), completed=progress.step)

    def on_step(self, step: int, total: int) -> None:
        self._bar.update(self._task("VC R-CNN", total), completed=step)

    def on_figures(self, row: dict[str, float]) -> None:
        task = self._tasks.get("VC R-CNN")
        if task is not None:
            self._bar.update(task, figures=figures_line(row))

    def _task(self, name: str, total: int) -> "TaskID":
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total, figures="")
        return self._tasks[name]


def figures_line(row: dict[str, float]) -> str:
    """Loss, its context part, and accuracy in a line."""
    return (
        f"loss {row['loss']:.4g}, of the context {row['loss_context']:.4g}, "
        f"own labels {row['accuracy']:.0%}"
    )
