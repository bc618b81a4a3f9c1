"""`vlpipe doctor`: what works on this machine."""

from typing import Annotated

import typer
from rich.text import Text

from vlpipe.pipelines.cli.output import AsJson, print_json, results
from vlpipe.stores.errors import EnvironmentLacks

EXAMPLE = "Example:  vlpipe doctor --store vlpipe-store"

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    store: Annotated[
        str | None, typer.Option(help="Look at this feature store too.", metavar="URL")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what works here: packages, decoders, GPU, disk, weights, Prefect; exit code 3 if not."""
    from vlpipe.pipelines.checkup import check_machine

    findings = []
    for finding in check_machine(store):
        findings.append(finding)
        if not as_json:
            line = Text.assemble(
                (f"{finding.level:4} ", _COLOURS[finding.level]),
                (f"{finding.name}: ", "bold"),
                finding.found,
            )
            if finding.fix:
                line.append(f"\n     fix: {finding.fix}")
            results().print(line)
    is_broken = any(finding.level == "fail" for finding in findings)
    if as_json:
        keys = ("name", "level", "found", "fix")
        found = [{key: getattr(finding, key) for key in keys} for finding in findings]
        print_json({"ok": not is_broken, "findings": found})
    raise typer.Exit(EnvironmentLacks.exit_code if is_broken else 0)
