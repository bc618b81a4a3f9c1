"""`vlpipe weights`: published checkpoints, those that are present, and foreign ones converted."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from vlpipe.pipelines.cli.output import AsJson, print_facts, print_json, print_table, remark
from vlpipe.stores.errors import UsageError

app = typer.Typer(
    help="Published checkpoints: where from, licence, SHA-256, present or not.",
    no_args_is_help=True,
)


@app.command("ls", epilog="Example:  vlpipe weights ls")
def list_(as_json: AsJson = False) -> None:
    """List the published checkpoints; nothing is ever downloaded."""
    from vlpipe.extractors.registry import list_checkpoints
    from vlpipe.extractors.weights.folder import WeightsFolder

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
    from vlpipe.extractors.registry import find_checkpoint
    from vlpipe.extractors.weights.folder import WeightsFolder

    found = find_checkpoint(name)
    if found is None:
        raise UsageError(
            f"no published checkpoint is called {name!r}", hint="`vlpipe weights ls` lists all"
        )
    checkpoint, role, extractors = found
    added = WeightsFolder().add(
        checkpoint, file, lambda given: extractors[0].check_checkpoint(role, given)
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
    from vlpipe.extractors.weights.checkpoint import Checkpoint, sha256_of
    from vlpipe.extractors.weights.folder import WeightsFolder

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


@app.command(
    "convert", epilog="Example:  vlpipe weights convert vggish_model.ckpt vggish_tf.safetensors"
)
def convert_(
    source: Annotated[
        Path,
        typer.Argument(
            help="An .npz of variables, a TensorFlow checkpoint (its file, or what the names of "
            "its files begin with), a pickle of arrays (Caffe2, Detectron), or a torch file."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    role: Annotated[
        str | None,
        typer.Option(help="Which network it is of, such as i3d_rgb, where its names do not tell."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the weights of another framework into the layout of an extractor here."""
    from vlpipe.extractors.weights.foreign.convert import check_target, convert

    check_target(target, overwrite=overwrite)
    conversion = convert(source, role=role)
    sha256 = conversion.save(target, overwrite=overwrite)
    file = conversion.source
    if as_json:
        print_json(
            {
                "role": conversion.role,
                "layout": conversion.layout,
                "format": file.format,
                "source": dict(file.sha256),
                "path": str(target),
                "sha256": sha256,
                "settings": dict(conversion.settings),
                "mapped": [dataclasses.asdict(mapped) for mapped in conversion.mapped],
                "skipped": dict(conversion.skipped),
            }
        )
        return
    print_table(
        ("variable", "entry", "shape"),
        [
            (m.variable or "(constant)", m.entry, " x ".join(map(str, m.shape)))
            for m in conversion.mapped
        ],
    )
    print_facts(
        [
            ("role", conversion.role),
            ("layout", conversion.layout),
            *((f"SHA-256 of {name}", digest) for name, digest in file.sha256.items()),
            *((f"setting {name}", str(value)) for name, value in conversion.settings.items()),
            *((f"skipped {name}", reason) for name, reason in conversion.skipped.items()),
            ("written", str(target)),
            ("SHA-256", sha256),
        ]
    )
    if conversion.settings:
        remark("the settings are recorded in the file, and extractors that read it take them over")
    remark(f"use it with --weights {conversion.role}={target}")
