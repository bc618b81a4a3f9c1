"""`vlpipe ask`: a question about a video, answered by a trained run."""

from pathlib import Path
from typing import Annotated

import typer

from vlpipe.pipelines.cli.output import AsJson, print_json

EXAMPLE = 'Example:  vlpipe ask clip.gif "How many times does the cat jump ?" --run runs/count'


def ask(
    video: Annotated[str, typer.Argument(help="An id in the run's store, or a media file.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    run: Annotated[Path, typer.Option(help="The folder that vlpipe train made.")],
    choice: Annotated[
        list[str] | None,
        typer.Option(help="A candidate, for runs that choose; give each with its own --choice."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Answer a question about one video; features of a file are made on the fly."""
    from vlpipe.pipelines.answering import answer_question

    found = answer_question(run, video, question, choice or (), device=device)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(found.answer)
