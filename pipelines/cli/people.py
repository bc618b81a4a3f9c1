"""`vlpipe people`: person tracks drawn on frames, to look at."""

from pathlib import Path
from typing import Annotated

import typer

from vlpipe.pipelines.cli.output import AsJson, print_json, remark

EXAMPLE = "Example:  vlpipe people people-store clips/ --out people.html"


def people(
    store: Annotated[str, typer.Argument(help="A feature store with `person_tracks`.")],
    media: Annotated[
        list[Path],
        typer.Argument(help="The files and folders that were extracted.", metavar="MEDIA..."),
    ],
    out: Annotated[Path, typer.Option(help="The report.")] = Path("people.html"),
    as_json: AsJson = False,
) -> None:
    """Write a report with the tracks of each video drawn on its frames."""
    from vlpipe.pipelines.people_report import write_people_report
    from vlpipe.stores import FeatureStore
    from vlpipe.stores.datasets.folder import FolderDataset

    videos = FolderDataset.from_paths(media).videos()
    with FeatureStore.open(store) as opened:
        shown = write_people_report(out, opened, videos)
    if as_json:
        left_out = {video.id: video.problem for video in shown if video.problem is not None}
        ids = [video.id for video in shown if video.problem is None]
        print_json({"report": str(out), "videos": ids, "left_out": left_out})
        return
    for video in shown:
        if video.problem is not None:
            remark(f"left out: {video.id}: {video.problem}")
    typer.echo(f"report: {out}")
