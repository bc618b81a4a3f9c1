"""`vlpipe who`: people labelled across clips and sentences by a trained run."""

from pathlib import Path
from typing import Annotated

import typer

from vlpipe.pipelines.cli.output import AsJson, print_facts, print_json, print_table

EXAMPLE = "Example:  vlpipe who clip1.mp4 clip2.mp4 --text story.txt --run runs/reid"


def who(
    clips: Annotated[
        list[str],
        typer.Argument(help="Media files or ids in the run's store, in order.", metavar="CLIPS..."),
    ],
    text: Annotated[
        Path, typer.Option(help="A sentence a line, one for each clip, people as SOMEONE.")
    ],
    run: Annotated[Path, typer.Option(help="The folder that vlpipe train made.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("who.html"),
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Say who is who across clips, in frames and in sentences; write a page to look at."""
    from vlpipe.pipelines.story_characters import (
        identify_characters,
        read_sentences,
        write_characters_page,
    )

    found = identify_characters(run, clips, read_sentences(text, len(clips)), device=device)
    page = write_characters_page(found, out)
    if as_json:
        print_json(found.to_json() | {"page": str(page)})
        return
    print_table(
        ("clip", "told", "people in it"),
        [
            (clip.video_id, "".join(part.text for part in clip.parts), ", ".join(
                f"person {number}" for number in clip.people
            ))
            for clip in found.story.clips
        ],
    )  # fmt: skip
    print_facts([("page", page)])
