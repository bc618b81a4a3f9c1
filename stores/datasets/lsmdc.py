"""LSMDC for retrieval: sentences about clips of movies, and the test of 1,000 of them.

ROOT holds LSMDC16_annos_{training,val}.csv and LSMDC16_challenge_1000_publictect.csv (spelt so):
tab-separated, no header, CLIP_ID, four times and the sentence. Queries of the test are that file's
full sentences; the challenge of 2017 has short phrases of activities in their place, whose file
can take its name. The clips lie anywhere below ROOT as CLIP_ID.avi.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from vlpipe.stores.datasets._captions import SentencePair
from vlpipe.stores.datasets._registry import register_dataset
from vlpipe.stores.datasets._sentence_pairs import SentencePairDataset
from vlpipe.stores.datasets._tables import read_strict

_FILES = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",
}
_COLUMNS = (
    "CLIP_ID", "START_ALIGNED", "END_ALIGNED", "START_EXTRACTED", "END_EXTRACTED", "SENTENCE",
)  # fmt: skip


@register_dataset("lsmdc")
class LsmdcDataset(SentencePairDataset):
    """A copy of LSMDC 2016. Clips have several sentences at times: keys are rows, not clips."""

    description = "LSMDC: sentences of audio descriptions about 118 k clips of 202 movies."
    homepage = "https://sites.google.com/site/describingmovies"
    terms = "agreement with MPI Informatics; no redistribution"
    splits = ("train", "val", "test")
    pair_splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    # The thesis counts fewer than the files of the challenges hold.
    published_rows: ClassVar[Mapping[str, tuple[int, ...]]] = {
        _FILES["train"]: (101_079, 91_941),
        _FILES["val"]: (7_408, 6_542),
        _FILES["test"]: (1000,),
    }

    def tables(self) -> Mapping[str, Callable[[Path], Sequence[SentencePair]]]:
        return dict.fromkeys(_FILES.values(), _read)

    def pairs_of(self, split: str) -> list[SentencePair]:
        return list(self.read(_FILES[split]))


def _read(path: Path) -> list[SentencePair]:
    """The key is the file's name and the number of the row."""
    rows = read_strict(path, _COLUMNS, has_header=False)
    return [
        SentencePair(f"{path.stem}:{number}", row[0], row[0], row[-1])
        for number, row in enumerate(rows, start=1)
    ]
