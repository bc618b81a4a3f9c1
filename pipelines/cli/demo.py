"""`vlpipe demo`: the whole way on a made-up dataset, ending in a report."""

from pathlib import Path
from typing import Annotated

import typer

from vlpipe.pipelines.cli.output import AsJson, print_json

EXAMPLE = "Example:  vlpipe demo --out vlpipe-demo"


def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("vlpipe-demo"),
    clips: Annotated[int, typer.Option(help="GIFs in the dataset.", min=8)] = 400,
    seed: Annotated[int, typer.Option(help="Another seed, other clips.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a small dataset, extract its features, train on its questions, write report.html."""
    import threading

    from vlpipe.pipelines.cli.interruption import stop_on_interrupt
    from vlpipe.pipelines.cli.progress import show_progress
    from vlpipe.pipelines.cli.training_progress import show_training
    from vlpipe.pipelines.demo.run_demo import run_demo

    stop = threading.Event()
    with stop_on_interrupt(stop), show_progress() as observer, show_training() as training:
        outcome = run_demo(
            out, clips=clips, seed=seed, observer=observer, training_observer=training, stop=stop
        )
    if as_json:
        print_json(
            {
                "report": str(outcome.report),
                "store": outcome.store,
                "runs": [str(run) for run in outcome.runs],
                "extractions": [s.model_dump(mode="json") for s in outcome.summaries],
            }
        )
    elif not outcome.was_interrupted:
        typer.echo(f"store:  {outcome.store}\nreport: {outcome.report}")
    raise typer.Exit(130 if outcome.was_interrupted else 0)
