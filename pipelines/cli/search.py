"""`vlpipe search`: the videos that a sentence tells about, ranked by a trained run."""

from pathlib import Path
from typing import Annotated

import typer

from vlpipe.pipelines.cli.output import AsJson, print_json, print_table, remark

EXAMPLE = 'Example:  vlpipe search "a cat jumps off a table" --run runs/jsfusion-retrieval-msrvtt'


def search(
    sentence: Annotated[str, typer.Argument(help="What happens in the videos that are wanted.")],
    run: Annotated[Path, typer.Option(help="The folder that vlpipe train made.")],
    videos: Annotated[
        list[Path] | None,
        typer.Option(
            help="Media files and folders to rank instead of the run's store; give each with its "
            "own --videos."
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Another store, or the run's own one as it is now.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many of the best.", min=1)] = 10,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("search.html"),
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Rank videos for a sentence; write a page with frames and the word-by-frame map of each."""
    from contextlib import ExitStack

    from vlpipe.pipelines.cli.progress import show_count, show_progress
    from vlpipe.pipelines.search_page import write_search_page
    from vlpipe.pipelines.searching import search_videos

    with ExitStack() as shown:  # of files extraction is the long work, of a store the ranking
        observer = shown.enter_context(show_progress()) if videos else None
        on_progress = None if videos else shown.enter_context(show_count("ranking"))
        found = search_videos(
            run,
            sentence,
            videos=videos or (),
            store=store,
            top=top,
            device=device,
            observer=observer,
            on_progress=on_progress,
        )
    page = write_search_page(out, found)
    if found.unknown:
        remark(f"words that training had not are left out: {', '.join(found.unknown)}")
    for path, reason in found.failed.items():
        remark(f"{path}: {reason}")
    if as_json:
        print_json(found.to_json() | {"page": str(page)})
    else:
        print_table(
            ("rank", "video", "score"),
            [(hit.rank, hit.video_id, f"{hit.score:.3f}") for hit in found.hits],
            title=f"the best of {found.num_videos} videos",
        )
        typer.echo(f"page: {page}")
    raise typer.Exit(1 if found.failed else 0)
