"""How commands speak: results on stdout as a table or as JSON, all else on stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlpipe.stores.errors import UsageError

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]

SCHEMA_VERSION = 1

# Wide enough that a table that goes to a file or a pipe is not cut to 80 columns.
_WIDTH_OF_A_FILE = 200


def results() -> Console:
    """The console for results."""
    return Console(
        file=sys.stdout,
        highlight=False,
        soft_wrap=False,
        width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE,
    )


def messages() -> Console:
    """The console for progress and remarks."""
    return Console(
        file=sys.stderr,
        highlight=False,
        soft_wrap=True,
        width=None if sys.stderr.isatty() else _WIDTH_OF_A_FILE,
    )


def fail(message: str, hint: str | None = None) -> None:
    """An error on stderr; text from files and options is never taken for markup."""
    console = messages()
    console.print(Text.assemble(("error: ", "bold red"), message))
    if hint:
        console.print(Text.assemble(("hint: ", "bold"), hint))


def remark(message: str) -> None:
    """One line on stderr."""
    messages().print(Text(message))


def confirm(question: str) -> None:
    """Goes on if the user says yes; ends the command if not. UsageError if nobody can answer."""
    try:
        is_agreed = typer.confirm(question, err=True)
    except typer.Abort:  # the end of what could be read
        typer.echo(err=True)
        raise UsageError(f"nobody answered: {question}", hint="--yes does it unasked") from None
    if not is_agreed:
        raise typer.Abort


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout, with the version of its schema."""
    sys.stdout.write(json.dumps({"schema_version": SCHEMA_VERSION} | value, indent=1) + "\n")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
) -> None:
    """A table on stdout; numbers stand right."""
    rows = [list(row) for row in rows]
    table = Table(
        title=title and Text(title),
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for index, name in enumerate(columns):
        is_number = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    results().print(table)


def print_facts(facts: Iterable[tuple[str, object]], *, title: str | None = None) -> None:
    """Names and values on stdout, one pair a line."""
    table = Table(
        title=title and Text(title),
        title_justify="left",
        box=None,
        pad_edge=False,
        show_header=False,
    )
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(_cell(value)))
    results().print(table)


def readable_bytes(num_bytes: float) -> str:
    """`1.5 MB`, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
