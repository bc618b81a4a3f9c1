"""MSR-VTT for retrieval: the 1k-A test of JSFusion, with either of the two training sets in use;
with the first of them also choices among sentences, and blanks.

ROOT holds MSRVTT_JSFUSION_test.csv (1,000 sentences, one a video, all of them official test videos)
and the official train_val_videodatainfo.json; with the larger training set also
test_videodatainfo.json. The clips lie anywhere below it as videoN.mp4.

    msrvtt-retrieval      trains on the official train and validation videos, 7,010
    msrvtt-retrieval-9k   trains on all but the 1,000, 9,000: 1,990 of them official test videos

MSR_MC_test.csv asks about all 2,990 official test videos, so that the larger training set must not
be used for it. There is no table of choices to train on: wrong sentences are drawn.
MSR_FIB_{train,test}.csv hold blanks.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from vlpipe.stores.datasets._captions import (
    SentenceBlank,
    SentenceChoice,
    SentencePair,
    read_blanks,
    read_choices,
    read_json_object,
    read_pairs,
)
from vlpipe.stores.datasets._drawn_choices import drawn_choices
from vlpipe.stores.datasets._registry import register_dataset
from vlpipe.stores.datasets._sentence_pairs import SentencePairDataset, SentenceTable
from vlpipe.stores.errors import AnnotationError

_TEST = "MSRVTT_JSFUSION_test.csv"
_CHOICES = "MSR_MC_test.csv"
_BLANKS = {"train": "MSR_FIB_train.csv", "test": "MSR_FIB_test.csv"}
_ROWS = {
    _TEST: (1000,),
    "train_val_videodatainfo.json": (140_200,),
    "test_videodatainfo.json": (59_800,),
    _CHOICES: (2990,),
}
_EXPECTED = "expected sentences [{caption, video_id, sen_id}, ...]"


@register_dataset("msrvtt-retrieval")
class MsrvttRetrievalDataset(SentencePairDataset):
    """A copy of MSR-VTT with the 1k-A test; the ids are video0 to video9999."""

    description = "MSR-VTT 1k-A: a sentence for each of 1,000 videos; trains on 7,010 others."
    homepage = "https://github.com/yj-yu/lsmdc"
    terms = "MSR-VTT: research use; the clips are YouTube videos"
    splits = ("train", "test")
    pair_splits: ClassVar[tuple[str, ...]] = ("train", "test")
    choice_splits: ClassVar[tuple[str, ...]] = ("train", "test")
    blank_splits: ClassVar[tuple[str, ...]] = ("train", "test")
    train_files: ClassVar[tuple[str, ...]] = ("train_val_videodatainfo.json",)

    def tables(self) -> Sequence[SentenceTable]:
        choices = partial(read_choices, video_id=_video_id)
        blanks = partial(read_blanks, video_id=_video_id)
        return [
            SentenceTable(_TEST, "test", read_pairs, _ROWS[_TEST], is_required=True),
            *(
                SentenceTable(name, "train", _told, _ROWS[name], is_required=True)
                for name in self.train_files
            ),
            *(
                SentenceTable(_CHOICES, split, choices, _ROWS[_CHOICES])
                for split in self.choice_splits
                if split == "test"
            ),
            *(SentenceTable(_BLANKS[split], split, blanks) for split in self.blank_splits),
        ]

    def pairs_of(self, split: str) -> list[SentencePair]:
        """20 sentences a video in train, 1 in test."""
        tested = self.read(_TEST, SentencePair)
        if split == "test":
            return tested
        held_out = {pair.video_id for pair in tested}
        told = [pair for name in self.train_files for pair in self.read(name, SentencePair)]
        return [pair for pair in told if pair.video_id not in held_out]

    def choices_of(self, split: str) -> list[SentenceChoice]:
        """In train each sentence among four drawn ones about other training videos."""
        if split == "train":
            return drawn_choices(self.pairs_of(split))
        return self.read(_CHOICES, SentenceChoice)

    def blanks_of(self, split: str) -> list[SentenceBlank]:
        return self.read(_BLANKS[split], SentenceBlank)


@register_dataset("msrvtt-retrieval-9k")
class MsrvttRetrieval9kDataset(MsrvttRetrievalDataset):
    """The same test with the training set of many later papers."""

    description = "MSR-VTT 1k-A: a sentence for each of 1,000 videos; trains on all 9,000 others."
    choice_splits: ClassVar[tuple[str, ...]] = ()
    blank_splits: ClassVar[tuple[str, ...]] = ()
    train_files: ClassVar[tuple[str, ...]] = (
        "train_val_videodatainfo.json",
        "test_videodatainfo.json",
    )


def _video_id(vid_key: str) -> str:
    """msrN -> videoN."""
    number = vid_key.removeprefix("msr")
    if number == vid_key or not number.isdecimal():
        raise AnnotationError(f"vid_key {vid_key[:40]!r}: expected msr and a number")
    return f"video{number}"


def _told(path: Path) -> list[SentencePair]:
    """The sentences of an official file; the key is sen and the file's sen_id."""
    rows = read_json_object(path).get("sentences")
    if not isinstance(rows, list):
        raise AnnotationError(f"{path}: {_EXPECTED}")
    return [_pair(path, place, row) for place, row in enumerate(rows, start=1)]


def _pair(path: Path, place: int, row: Any) -> SentencePair:  # noqa: ANN401 - any JSON
    if isinstance(row, dict):
        caption, video, number = (row.get(name) for name in ("caption", "video_id", "sen_id"))
        is_number = isinstance(number, int) and not isinstance(number, bool)
        if is_number and isinstance(caption, str) and caption and isinstance(video, str) and video:
            return SentencePair(f"sen{number}", video.replace("video", "msr", 1), video, caption)
    raise AnnotationError(f"{path}, sentence {place}: {_EXPECTED}")
