"""The demo dataset: made-up clips of moving shapes, with annotations for every kind of model.

`make_demo` writes it; nothing is downloaded, and equal parameters give equal files. Below ROOT:

    demo.json, scenes.json        parameters and counts; the truth that the rest is derived from
    dataset/, gifs/               TGIF-QA: twelve question tables, GIFs without sound
    activitynet/, videos/         ActivityNet Captions: MP4s of several events, a tone for each act
    lsmdc/, mvad_names/, stories/ LSMDC 2019, M-VAD Names: sets of five clips about the same figures
    boxes/                        where figures are in the frames of stories, for `given_boxes`
    msrvtt/                       JSFusion: retrieval, multiple-choice and fill-in tables, all clips
"""

import dataclasses
from collections.abc import Callable, Sized
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from vlpipe.stores.datasets._captions import (
    DenseCaptions,
    SentenceBlank,
    SentenceChoice,
    SentencePair,
    read_blanks,
    read_choices,
    read_dense_captions,
    read_json_object,
    read_pairs,
)
from vlpipe.stores.datasets._demo_truth import Happening, happenings_of, said_in
from vlpipe.stores.datasets._registry import DatasetCheck, TableCheck, register_dataset
from vlpipe.stores.datasets._stories import Story, read_sets, read_stories
from vlpipe.stores.datasets.tgif import TgifDataset
from vlpipe.stores.errors import AnnotationError, UsageError

__all__ = ["MIN_CLIPS", "RECORD", "DemoDataset", "Happening", "make_demo", "said_in"]

RECORD = "demo.json"
MIN_CLIPS = 8  # fewer GIFs would leave a test table without rows
_DENSE_SPLITS = ("train", "val_1", "val_2")
_SENTENCE_SPLITS = ("train", "test")


@register_dataset("demo")
class DemoDataset(TgifDataset):
    """A copy of the demo dataset; its questions are read as those of TGIF-QA."""

    description = "Made-up clips of moving shapes with sound, for trying out every command."
    homepage = "vlpipe demo"
    terms = "none: it is generated"
    splits = ("train", "val", "test")
    story_splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    drops_silent_sets: ClassVar[bool] = True

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        if not (self.root / RECORD).is_file():
            raise UsageError(
                f"{self.root} holds no demo dataset: there is no {RECORD} in it",
                hint=f"vlpipe demo --out {self.root}",
            )
        self.record: dict[str, Any] = read_json_object(self.root / RECORD)

    def published_rows(self, table: str) -> tuple[int, ...]:
        rows = self.record.get("rows", {})
        return (rows[table],) if table in rows else ()

    def captions(self, split: str) -> list[DenseCaptions]:
        """The events of the MP4s: "train", and two annotations of the others: "val_1", "val_2"."""
        self._require_one_of(_DENSE_SPLITS, split)
        return read_dense_captions(self.root / "activitynet" / f"{split}.json")

    def happenings(self) -> dict[str, list[Happening]]:
        """What really happens in each clip, by its id, in the order of time."""
        scenes = read_json_object(self.root / "scenes.json")
        return {video_id: happenings_of(scene) for video_id, scene in scenes.items()}

    def sentence_pairs(self, split: str) -> list[SentencePair]:
        """Sentences and the clip that each tells about: up to two a clip in train, one in test."""
        return read_pairs(self._msrvtt("MSRVTT_JSFUSION", split))

    def sentence_choices(self, split: str) -> list[SentenceChoice]:
        """For each clip its sentence among four others."""
        return read_choices(self._msrvtt("MSR_MC", split), self._video_of())

    def sentence_blanks(self, split: str) -> list[SentenceBlank]:
        """For each sentence the same without one of its words."""
        return read_blanks(self._msrvtt("MSR_FIB", split), self._video_of())

    def video_ids(self) -> dict[str, str]:
        """The clip that each vid_key of the sentence tables stands for."""
        return {
            pair.vid_key: pair.video_id
            for split in _SENTENCE_SPLITS
            for pair in self.sentence_pairs(split)
        }

    def _video_of(self) -> Callable[[str], str]:
        known = self.video_ids()

        def video_of(vid_key: str) -> str:
            if vid_key not in known:
                raise AnnotationError(
                    f"vid_key {vid_key[:40]!r} is in no MSRVTT_JSFUSION table of {self.root}"
                )
            return known[vid_key]

        return video_of

    def stories(self, split: str) -> list[Story]:
        """Sets of five consecutive clips of a movie, with who is mentioned and who is where."""
        self._require_one_of(self.splits, split)
        return read_stories(self.root / "lsmdc", self.root / "mvad_names", split)

    def check(self) -> DatasetCheck:
        readers: dict[str, Callable[[], Sized]] = {}
        for split in _DENSE_SPLITS:
            readers[f"activitynet/{split}.json"] = partial(self.captions, split)
        for split in self.splits:
            readers[f"lsmdc/{split}Sets.csv"] = partial(self.stories, split)
        for split in _SENTENCE_SPLITS:
            readers[f"msrvtt/MSRVTT_JSFUSION_{split}.csv"] = partial(self.sentence_pairs, split)
            readers[f"msrvtt/MSR_MC_{split}.csv"] = partial(self.sentence_choices, split)
            readers[f"msrvtt/MSR_FIB_{split}.csv"] = partial(self.sentence_blanks, split)
        checks = tuple(self._check_file(name, read) for name, read in readers.items())
        found = super().check()
        return dataclasses.replace(found, tables=found.tables + checks)

    def _check_file(self, name: str, read: Callable[[], Sized]) -> TableCheck:
        path = self.root / name
        if not path.is_file():
            return TableCheck(name, None, None, self.published_rows(name))
        try:
            return TableCheck(name, path, len(read()), self.published_rows(name))
        except AnnotationError as error:
            return TableCheck(name, path, None, self.published_rows(name), problem=str(error))

    def _named(self, split: str | None, *, is_strict: bool = True) -> dict[str, str | None]:
        """Besides the GIFs the MP4s that the caption and story files name."""
        named = {} if split == "val" else super()._named(split, is_strict=is_strict)
        found: dict[str, str | None] = {}
        for file_split, of_split in (("train", "train"), ("val_1", "val"), ("val_2", "val")):
            if split in (None, of_split):
                path = self.root / "activitynet" / f"{file_split}.json"
                found |= dict.fromkeys(read_json_object(path), of_split)
        for of_split in self.splits:
            if split in (None, of_split):
                for clips in read_sets(self.root / "lsmdc" / f"{of_split}Sets.csv"):
                    found |= dict.fromkeys(clips, of_split)
        return named | found

    def _msrvtt(self, stem: str, split: str) -> Path:
        self._require_one_of(_SENTENCE_SPLITS, split)
        return self.root / "msrvtt" / f"{stem}_{split}.csv"

    def _require_one_of(self, splits: tuple[str, ...], split: str) -> None:
        if split not in splits:
            raise UsageError(f"there is no split {split!r} of these; there are {', '.join(splits)}")


def make_demo(
    root: Path | str,
    *,
    clips: int = 200,
    videos: int = 24,
    stories: int = 12,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> DemoDataset:
    """Writes the demo dataset into root, unless it is there already, and opens it.

    clips counts the GIFs, videos the MP4s with several events, stories the sets of five MP4s.
    progress is called with (files written, files in all). An interrupted call leaves nothing at
    root; a root that holds something else, or a demo with other parameters, is a UsageError.
    """
    # Drawing and encoding libraries take long to import and are needed here only.
    from vlpipe.stores.datasets._demo_generator import DemoSize, write_demo

    write_demo(Path(root).expanduser().absolute(), DemoSize(clips, videos, stories, seed), progress)
    return DemoDataset(root)
