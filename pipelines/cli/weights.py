"""`vlpipe weights`: published checkpoints, and those of them that are present."""

from pathlib import Path
from typing import Annotated

import typer

from vlpipe.pipelines.cli.output import AsJson, print_json, print_table, remark
from vlpipe.stores.errors import UsageError

app = typer.Typer(
    help="Published checkpoints: where from, licence, SHA-256, present or not.",
    no_args_is_help=True,
)


@app.command("ls", epilog="Example:  vlpipe weights ls")
def list_(as_json: AsJson = False) -> None:
    """List the published checkpoints; nothing is ever downloaded."""
    from vlpipe.extractors.registry import list_checkpoints
    from vlpipe.extractors.weights import WeightsFolder

    folder = WeightsFolder()
    facts = [
        {
            "name": name,
            "role": role,
            "extractors": [extractor.name for extractor in extractors],
            "file": checkpoint.filename,
            "sha256": checkpoint.sha256 or None,
            "licence": checkpoint.licence,
            "url": checkpoint.url,
            "is_added": folder.find(name) is not None,
        }
        for name, (checkpoint, role, extractors) in list_checkpoints().items()
    ]
    if as_json:
        print_json({"folder": str(folder.path), "checkpoints": facts})
        return
    print_table(
        ("name", "added", "licence", "SHA-256 begins", "from"),
        [
            (f["name"], "yes" if f["is_added"] else "no", f["licence"], f["sha256"], f["url"])
            for f in facts
        ],
        title=f"folder: {folder.path}",
    )


@app.command("add", epilog="Example:  vlpipe weights add vggish_audioset vggish-10086976.pth")
def add(
    name: Annotated[str, typer.Argument(help="Which published checkpoint it is.")],
    file: Annotated[Path, typer.Argument(help="The file that you obtained.")],
    as_json: AsJson = False,
) -> None:
    """Check a checkpoint (hash, keys, shapes) and keep it for `vlpipe extract`."""
    from vlpipe.extractors.registry import list_checkpoints
    from vlpipe.extractors.weights import WeightsFolder

    known = list_checkpoints()
    if name not in known:
        raise UsageError(
            f"no published checkpoint is called {name!r}", hint="`vlpipe weights ls` lists all"
        )
    checkpoint, role, extractors = known[name]
    added = WeightsFolder().add(
        checkpoint, file, lambda found: extractors[0].check_checkpoint(role, found)
    )
    if as_json:
        print_json({"name": added.name, "path": str(added.path), "sha256": added.sha256})
    else:
        typer.echo(f"{added.name}: {added.path} (SHA-256 {added.sha256})")


@app.command("check", epilog="Example:  vlpipe weights check")
def check(as_json: AsJson = False) -> None:
    """Check every added checkpoint against its hash and its network; exit code 1 if one is bad."""
    from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
    from vlpipe.extractors.registry import list_checkpoints
    from vlpipe.extractors.weights import Checkpoint, WeightsFolder, sha256_of

    folder = WeightsFolder()
    results: list[dict[str, str | None]] = []
    for name, (_, role, extractors) in list_checkpoints().items():
        added = folder.find(name)
        if added is None:
            continue
        problem: str | None = None
        try:
            if sha256_of(added.path) != added.copy_sha256:
                problem = f"{added.path}: the bytes are not those that were added; add it again"
            else:
                extractors[0].check_checkpoint(role, Checkpoint.read(added.path))
        except (WeightsMissing, WeightsRejected, OSError) as error:
            problem = str(error)
        results.append({"name": name, "path": str(added.path), "problem": problem})
    if as_json:
        print_json({"folder": str(folder.path), "checkpoints": results})
    elif not results:
        remark(f"no checkpoint in {folder.path}; `vlpipe weights ls` lists what is published")
    else:
        print_table(
            ("checkpoint", "", "file"),
            [(r["name"], r["problem"] or "ok", r["path"]) for r in results],
        )
    raise typer.Exit(1 if any(r["problem"] for r in results) else 0)
