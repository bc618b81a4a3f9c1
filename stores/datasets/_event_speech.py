"""What is said in the events of ActivityNet Captions: the tables that MDVC's authors published.

train_meta.csv, val_1_meta.csv and val_2_meta.csv, parted by tabs, hold a row for each event, with
the columns video_id, start, end and subs, the speech that overlaps it. Events are found by video
and seconds; of those without a row nothing is said.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vlpipe.stores.datasets._captions import DenseCaptions
from vlpipe.stores.datasets._tables import read_table
from vlpipe.stores.errors import AnnotationError

COLUMNS = ("video_id", "start", "end", "subs")
_DECIMALS = 3


def with_speech(videos: Sequence[DenseCaptions], table: Path) -> list[DenseCaptions]:
    """The same videos with what is said in their events. AnnotationError names a wrong row."""
    said: dict[tuple[str, float, float], str] = {}
    for row in read_table(table, COLUMNS):
        if row.problem is not None:
            raise AnnotationError(str(row.problem))
        video, start, end, text = row.values
        try:
            said[video, *_rounded((float(start), float(end)))] = text
        except ValueError as error:
            raise AnnotationError(f"{table}, line {row.line}: {error}; expected seconds") from error
    return [
        dataclasses.replace(
            video, speech=tuple(said.get((video.video_id, *_rounded(s)), "") for s in video.spans)
        )
        for video in videos
    ]


def _rounded(span: tuple[float, float]) -> tuple[float, float]:
    return round(span[0], _DECIMALS), round(span[1], _DECIMALS)
