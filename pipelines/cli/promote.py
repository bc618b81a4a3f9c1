"""`vlpipe promote`: another run becomes the one in use."""

from pathlib import Path
from typing import Annotated

import typer

from vlpipe.pipelines.cli.output import AsJson, print_json

EXAMPLE = 'Example:  vlpipe promote runs/masn-count-tgif/run-0002 --reason "run-0003 is bad"'


def promote(
    run: Annotated[Path, typer.Argument(help="A finished run in a folder of vlpipe retrain.")],
    reason: Annotated[str, typer.Option(help="Kept in promotions.jsonl.")] = "by hand",
    as_json: AsJson = False,
) -> None:
    """Turn the link `current` of a folder of runs to one of them."""
    from vlpipe.pipelines.training.run_folder import RunFolder
    from vlpipe.pipelines.training.runs_folder import promote_run

    chosen = RunFolder(run.absolute())
    before = promote_run(chosen, reason)
    link = chosen.path.parent / "current"
    if as_json:
        names = None if before is None else before.name
        print_json({"current": str(link), "run": chosen.path.name, "before": names})
    else:
        instead = f" instead of {before.name}" if before is not None else ""
        typer.echo(f"{link} is {chosen.path.name} now{instead}")
