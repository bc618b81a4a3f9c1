"""The command `vlpipe`: its subcommands, one file a group, and how errors become exit codes.

Nothing heavy is imported here: `vlpipe --help` must answer at once, so that torch, pyarrow and
Prefect are imported inside the commands that need them.
"""

import signal
import sys
from typing import Annotated

import typer

from vlpipe import __version__
from vlpipe.pipelines.cli import datasets, demo, deploy, doctor, extract, extractors, store, weights
from vlpipe.pipelines.cli.interruption import (
    INTERRUPTED_EXIT_CODE,
    Interrupted,
    raise_interrupted,
)
from vlpipe.pipelines.cli.output import fail
from vlpipe.pipelines.settings import apply_thread_settings
from vlpipe.stores.errors import VlpipeError

__all__ = ["app", "main", "run"]

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
app.command("deploy", epilog=deploy.EXAMPLE)(deploy.deploy)
app.add_typer(datasets.app, name="datasets")
app.add_typer(extractors.app, name="extractors")
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


def main() -> None:
    """Runs the command line of this process and exits with 0, 1, 2, 3, 4 or 130 (see README)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of `vlpipe` with these arguments."""
    apply_thread_settings()
    before = signal.signal(signal.SIGINT, raise_interrupted)
    try:
        app(arguments)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    except VlpipeError as error:
        fail(error.message, error.hint)
        return error.exit_code
    except Interrupted:
        fail("interrupted; a store holds what was committed", "the same command carries on")
        return INTERRUPTED_EXIT_CODE
    finally:
        signal.signal(signal.SIGINT, before)
    return 0
