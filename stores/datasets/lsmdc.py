"""LSMDC: sentences about clips of movies; retrieval, choices among sentences, blanks.

    lsmdc            the files of the challenges of 2016 in ROOT, tab-separated, no header; ids are
                     those of the clips, which lie anywhere below ROOT as CLIP_ID.avi
    lsmdc-jsfusion   the tables of JSFusion's authors, with a header; ids are their own vidN, under
                     which their feature file has the clips

Files of `lsmdc` are parted in CLIP_ID, four times, and then
    LSMDC16_annos_{training,val}.csv                   the sentence
    LSMDC16_challenge_1000_publictect.csv (spelt so)   the sentence; the test of retrieval
    LSMDC16_annos_test.csv                             the sentence; the public test of description
    LSMDC16_multiple_choice_{train,valid}.csv          the right sentence and four wrong ones
    LSMDC16_multiple_choice_test_randomized.csv        five sentences, the right one's number from 1
    LSMDC16_annos_{training,val,test}_FIB.csv          sentence, the same with _____, the word
The challenge of 2017 has short phrases of activities for retrieval in the place of full sentences;
its file can take the other's name.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from vlpipe.stores.datasets._captions import (
    SentenceBlank,
    SentenceChoice,
    SentencePair,
    read_blanks,
    read_choices,
    read_descriptions,
)
from vlpipe.stores.datasets._drawn_choices import NUM_CHOICES, drawn_choices, shuffled_choice
from vlpipe.stores.datasets._registry import register_dataset
from vlpipe.stores.datasets._sentence_pairs import SentencePairDataset, SentenceTable
from vlpipe.stores.datasets._tables import read_strict
from vlpipe.stores.errors import AnnotationError

_SPLITS = ("train", "val", "test")
_HOMEPAGE = "https://sites.google.com/site/describingmovies"
_TERMS = "agreement with MPI Informatics; no redistribution"
_PAIRS = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",
}
_DESCRIBED_TEST = "LSMDC16_annos_test.csv"
_CHOICES = {
    "train": "LSMDC16_multiple_choice_train.csv",
    "val": "LSMDC16_multiple_choice_valid.csv",
    "test": "LSMDC16_multiple_choice_test_randomized.csv",
}
_BLANKS = {
    "train": "LSMDC16_annos_training_FIB.csv",
    "val": "LSMDC16_annos_val_FIB.csv",
    "test": "LSMDC16_annos_test_FIB.csv",
}
# The thesis counts fewer sentences than the files of the challenges hold.
_ROWS = {
    _PAIRS["train"]: (101_079, 91_941),
    _PAIRS["val"]: (7_408, 6_542),
    _PAIRS["test"]: (1000,),
    _DESCRIBED_TEST: (10_053,),
    _CHOICES["train"]: (101_079,),
    _CHOICES["val"]: (7_408,),
    _CHOICES["test"]: (10_053,),
    _BLANKS["train"]: (296_960,),
    _BLANKS["val"]: (21_689,),
    _BLANKS["test"]: (30_349,),
}
_CLIP_COLUMNS = ("CLIP_ID", "START_ALIGNED", "END_ALIGNED", "START_EXTRACTED", "END_EXTRACTED")
_SENTENCES = tuple(f"SENTENCE{number}" for number in range(1, NUM_CHOICES + 1))


@register_dataset("lsmdc")
class LsmdcDataset(SentencePairDataset):
    """A copy of LSMDC 2016. Clips have several sentences at times: keys are rows, not clips."""

    description = "LSMDC: sentences of audio descriptions about 118 k clips of 202 movies."
    homepage = _HOMEPAGE
    terms = _TERMS
    splits = _SPLITS
    pair_splits: ClassVar[tuple[str, ...]] = _SPLITS
    choice_splits: ClassVar[tuple[str, ...]] = _SPLITS
    blank_splits: ClassVar[tuple[str, ...]] = _SPLITS
    first_choice: ClassVar[int] = 1

    def tables(self) -> Sequence[SentenceTable]:
        described = SentenceTable(_DESCRIBED_TEST, "test", _pairs, _ROWS[_DESCRIBED_TEST])
        return [
            *(
                SentenceTable(name, split, read, _ROWS[name], is_required=read is _pairs)
                for files, read in ((_PAIRS, _pairs), (_CHOICES, _choices), (_BLANKS, _blanks))
                for split, name in files.items()
            ),
            described,
        ]

    def pairs_of(self, split: str) -> list[SentencePair]:
        return self.read(_PAIRS[split], SentencePair)

    def descriptions(self, split: str) -> list[SentencePair]:
        if split == "test":
            return self.read(_DESCRIBED_TEST, SentencePair)
        return self.sentence_pairs(split)

    def choices_of(self, split: str) -> list[SentenceChoice]:
        """Outside of the test the right sentence is always the first one of the file: the places
        are drawn."""
        return self.read(_CHOICES[split], SentenceChoice)

    def blanks_of(self, split: str) -> list[SentenceBlank]:
        return self.read(_BLANKS[split], SentenceBlank)


@register_dataset("lsmdc-jsfusion")
class LsmdcJsFusionDataset(SentencePairDataset):
    """LSMDC in the tables of JSFusion's authors: LSMDC16_{RET,CAP,MC,FIB}_{train,val,test}.csv.

    Choices in train are drawn among the sentences of CAP, as their code does.
    """

    description = (
        "LSMDC in the tables of JSFusion's authors, whose ids are those of their features."
    )
    homepage = "https://github.com/yj-yu/lsmdc"
    terms = _TERMS
    splits = _SPLITS
    pair_splits: ClassVar[tuple[str, ...]] = ("train", "test")
    choice_splits: ClassVar[tuple[str, ...]] = _SPLITS
    blank_splits: ClassVar[tuple[str, ...]] = _SPLITS

    def tables(self) -> Sequence[SentenceTable]:
        pairs = partial(read_descriptions, video_id=str)
        choices = partial(read_choices, video_id=str)
        blanks = partial(read_blanks, video_id=str)
        return [
            *(
                SentenceTable(_table("RET", split), split, pairs, is_required=True)
                for split in self.pair_splits
            ),
            SentenceTable(_table("CAP", "train"), "train", pairs),
            *(SentenceTable(_table("MC", split), split, choices) for split in ("val", "test")),
            *(SentenceTable(_table("FIB", split), split, blanks) for split in self.blank_splits),
        ]

    def pairs_of(self, split: str) -> list[SentencePair]:
        return self.read(_table("RET", split), SentencePair)

    def choices_of(self, split: str) -> list[SentenceChoice]:
        if split == "train":
            return drawn_choices(self.read(_table("CAP", split), SentencePair))
        return self.read(_table("MC", split), SentenceChoice)

    def blanks_of(self, split: str) -> list[SentenceBlank]:
        return self.read(_table("FIB", split), SentenceBlank)


def _table(kind: str, split: str) -> str:
    return f"LSMDC16_{kind}_{split}.csv"


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Key, clip and what stands behind the times; the key is the file's name and the row."""
    rows = read_strict(path, (*_CLIP_COLUMNS, *columns), has_header=False)
    return [
        (f"{path.stem}:{number}", row[0], row[len(_CLIP_COLUMNS) :])
        for number, row in enumerate(rows, start=1)
    ]


def _pairs(path: Path) -> list[SentencePair]:
    return [SentencePair(key, clip, clip, text) for key, clip, (text,) in _rows(path, ["SENTENCE"])]


def _choices(path: Path) -> list[SentenceChoice]:
    if path.name != _CHOICES["test"]:
        return [
            shuffled_choice(key, clip, right, wrong)
            for key, clip, (right, *wrong) in _rows(path, _SENTENCES)
        ]
    found = []
    for key, clip, (*choices, answer) in _rows(path, (*_SENTENCES, "ANSWER_INDEX")):
        if answer not in tuple("12345"):
            raise AnnotationError(f"{key}: the answer is {answer[:40]!r}; expected 1 to 5")
        found.append(SentenceChoice(key, clip, clip, tuple(choices), int(answer) - 1))
    return found


def _blanks(path: Path) -> list[SentenceBlank]:
    columns = ("SENTENCE", "FILL_IN", "BLANK")
    return [SentenceBlank(key, clip, clip, *texts) for key, clip, texts in _rows(path, columns)]
