"""`vlpipe caption`: the events of videos and a sentence for each, to read and to watch."""

from pathlib import Path
from typing import Annotated

import typer

from vlpipe.pipelines.cli.output import AsJson, fail, print_json, print_table

EXAMPLE = "Example:  vlpipe caption holiday.mp4 --run runs/dense --out captions"


def caption(
    videos: Annotated[
        list[str],
        typer.Argument(
            metavar="VIDEO...", help="Media files, folders of them, or ids of the run's store."
        ),
    ],
    run: Annotated[Path, typer.Option(help="The folder that vlpipe train made.")],
    out: Annotated[Path, typer.Option(help="Where the files of each video go.")] = Path("captions"),
    proposals: Annotated[
        int | None,
        typer.Option(min=1, help="So many events of a video are looked at, the surest."),
    ] = None,
    suppress_from: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=1.0,
            help="tIoU with a surer event from which on one is dropped; 1: only the same again.",
        ),
    ] = 0.4,
    least_confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the events that are told.")
    ] = 0.0,
    frames: Annotated[int, typer.Option(min=1, max=50, help="Of each event on the page.")] = 4,
    embed_mb: Annotated[
        float,
        typer.Option(min=0.0, help="Videos up to this size go into the page, others are linked."),
    ] = 24.0,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Find the events of videos and tell them: JSON, WebVTT, SRT and a page to watch.

    Features are read from the run's store, or made as those of the run were.
    """
    from vlpipe.pipelines.captioning.caption import caption_videos, write_captions
    from vlpipe.pipelines.captioning.telling import EventChoice
    from vlpipe.pipelines.cli.progress import show_progress

    with show_progress() as observer:
        captions = caption_videos(
            run,
            videos,
            choice=EventChoice(proposals, suppress_from, least_confidence),
            device=device,
            observer=observer,
        )
    files = write_captions(
        captions, out, frames_per_event=frames, embed_bytes=round(embed_mb * 1e6)
    )
    if as_json:
        print_json(
            {
                "run": str(captions.run),
                "is_untrained": captions.is_untrained,
                "videos": [v.to_json() | {"files": files[v.id].to_json()} for v in captions.videos],
                "failed": [{"video": v, "message": m} for v, m in captions.failed.items()],
            }
        )
    else:
        print_table(
            ("video", "seconds", "events", "page"),
            [(v.id, v.duration_s, len(v.events), files[v.id].page) for v in captions.videos],
        )
    for video, message in captions.failed.items():
        fail(f"{video}: {message}")
    raise typer.Exit(1 if captions.failed else 0)
