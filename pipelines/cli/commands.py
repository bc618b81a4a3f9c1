"""The command `vlpipe`: its subcommands, one file a group.

Nothing heavy is imported here: `vlpipe --help` must answer at once, so that torch, pyarrow and
Prefect are imported inside the commands that need them.
"""

from typing import Annotated

import typer

from vlpipe import __version__
from vlpipe.pipelines.cli import (
    ask,
    caption,
    datasets,
    demo,
    deploy,
    doctor,
    evaluate,
    extract,
    extractors,
    models,
    people,
    promote,
    retrain,
    search,
    store,
    train,
    train_commonsense,
    weights,
    who,
)

app = typer.Typer(
    name="vlpipe",
    help="Collections of video to features at rest, and features to answers.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("demo", epilog=demo.EXAMPLE)(demo.demo)
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)
app.command("extract", epilog=extract.EXAMPLE)(extract.extract)
app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("retrain", epilog=retrain.EXAMPLE)(retrain.retrain)
app.command("promote", epilog=promote.EXAMPLE)(promote.promote)
app.command("train-commonsense", epilog=train_commonsense.EXAMPLE)(
    train_commonsense.train_commonsense
)
app.command("evaluate", epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command("ask", epilog=ask.EXAMPLE)(ask.ask)
app.command("search", epilog=search.EXAMPLE)(search.search)
app.command("caption", epilog=caption.EXAMPLE)(caption.caption)
app.command("who", epilog=who.EXAMPLE)(who.who)
app.command("people", epilog=people.EXAMPLE)(people.people)
app.command("deploy", epilog=deploy.EXAMPLE)(deploy.deploy)
app.add_typer(datasets.app, name="datasets")
app.add_typer(extractors.app, name="extractors")
app.add_typer(models.app, name="models")
app.add_typer(weights.app, name="weights")
app.add_typer(store.app, name="store")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vlpipe {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    del version
