"""`vlpipe datasets`: which datasets are known, and whether a copy is complete."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlpipe.pipelines.cli.count_progress import show_count
from vlpipe.pipelines.cli.interruption import (
    INTERRUPTED_EXIT_CODE,
    SAME_COMMAND,
    stop_on_interrupt,
)
from vlpipe.pipelines.cli.output import (
    AsJson,
    print_facts,
    print_json,
    print_table,
    readable_bytes,
    remark,
)

if TYPE_CHECKING:
    from vlpipe.pipelines.ingestion import IngestionReport
    from vlpipe.stores.datasets import DatasetCheck

app = typer.Typer(help="Known datasets; is a copy complete.", no_args_is_help=True)

_MOST_NAMED = 20


@app.command("ls", epilog="Example:  vlpipe datasets ls")
def list_(as_json: AsJson = False) -> None:
    """List the datasets that vlpipe reads."""
    from vlpipe.stores.datasets import list_datasets

    known = list_datasets()
    if as_json:
        keys = ("name", "description", "homepage", "terms", "splits")
        print_json({"datasets": [{key: getattr(d, key) for key in keys} for d in known]})
        return
    print_table(
        ("name", "what", "splits", "terms", "where to get it"),
        [(d.name, d.description, ", ".join(d.splits), d.terms, d.homepage) for d in known],
    )


@app.command("check", epilog="Example:  vlpipe datasets check tgif --root TGIF")
def check(
    name: Annotated[str, typer.Argument(help="The dataset.")],
    root: Annotated[Path, typer.Option(help="The folder of your copy of it.")],
    as_json: AsJson = False,
) -> None:
    """Say what a copy holds and what it lacks; exit code 1 if it is not complete."""
    from vlpipe.stores.datasets import open_dataset

    found = open_dataset(name, root).check()
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)
    raise typer.Exit(0 if found.is_complete else 1)


@app.command(
    "ingest", epilog="Example:  vlpipe datasets ingest tgif --root TGIF --table tgif-videos.parquet"
)
def ingest(
    name: Annotated[str, typer.Argument(help="The dataset.")],
    root: Annotated[Path, typer.Option(help="The folder of your copy of it.")],
    table: Annotated[
        Path | None,
        typer.Option(help="A row a video, in Parquet (default: NAME-videos.parquet)."),
    ] = None,
    decode_workers: Annotated[
        int, typer.Option(min=0, help="Files probed at once; 0: one less than the cores.")
    ] = 0,
    reprobe: Annotated[
        bool, typer.Option("--reprobe", help="Also files that have not changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Probe every new or changed file of a copy, and keep a table of its videos.

    The table has split, path, checksum, streams, duration, and what is wrong with a file. Exit code
    1 if the copy is not complete, or files of it cannot be used.
    """
    from vlpipe.pipelines.ingestion import IngestionJob, ingest_dataset

    job = IngestionJob(
        dataset=name,
        root=root,
        table=table or Path(f"{name}-videos.parquet"),
        decode_workers=decode_workers,
        reprobe=reprobe,
    )
    stop = threading.Event()
    with stop_on_interrupt(stop), show_count("files") as progress:
        found = ingest_dataset(job, progress=progress, stop=stop)
    if as_json:
        print_json(found.to_json())
    else:
        _show_ingestion(found)
    if found.was_interrupted:
        remark(f"interrupted; {SAME_COMMAND}")
        raise typer.Exit(INTERRUPTED_EXIT_CODE)
    raise typer.Exit(0 if found.is_complete else 1)


def _show_ingestion(found: "IngestionReport") -> None:
    columns = ("videos", "on_disk", "usable", "seconds")
    print_table(
        ("split", "videos", "on disk", "usable", "seconds"),
        [(split, *(facts[c] for c in columns)) for split, facts in found.splits.items()],
        title=f"{found.dataset}: {found.root}",
    )
    print_facts(
        [
            ("probed now", found.num_probed),
            ("new, changed, gone", f"{len(found.new)}, {len(found.changed)}, {len(found.gone)}"),
            ("named, not on disk", found.num_missing),
            ("cannot be used", len(found.bad)),
            ("bytes", readable_bytes(found.total_bytes)),
            ("complete", "yes" if found.is_complete else "no"),
            ("table", found.table),
        ]
    )
    for what, ids in (("changed", found.changed), ("gone", found.gone)):
        for video_id in ids[:_MOST_NAMED]:
            remark(f"{what}: {video_id}")
    for video_id, kind, reason in found.bad[:_MOST_NAMED]:
        remark(f"cannot be used: {video_id} ({kind}): {reason}")


def _show(found: "DatasetCheck") -> None:
    print_table(
        ("table", "rows", "published", ""),
        [
            (
                table.name,
                table.rows,
                " or ".join(f"{n:,}" for n in table.published_rows) or None,
                table.problem
                or ("absent" if table.path is None else "ok" if table.is_complete else "differs"),
            )
            for table in found.tables
        ],
        title=f"{found.dataset}: {found.root}",
    )
    print_facts(
        [
            ("media named", found.media_named),
            ("on disk", found.media_present),
            ("missing", len(found.missing)),
            ("not named by any table", len(found.unnamed)),
            ("unusable", len(found.unusable)),
            ("malformed rows", len(found.bad_rows)),
            ("complete", "yes" if found.is_complete else "no"),
        ]
    )
    lines = [f"missing: {video_id}" for video_id in found.missing[:_MOST_NAMED]]
    lines += [f"unusable: {v.id!r}: {v.problem}" for v in found.unusable[:_MOST_NAMED]]
    lines += [f"malformed: {row}" for row in found.bad_rows[:_MOST_NAMED]]
    for line in lines:
        remark(line)
    if len(found.missing) > _MOST_NAMED:
        remark(f"... and {len(found.missing) - _MOST_NAMED} more missing: --json lists all")
