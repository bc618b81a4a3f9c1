"""MSR-VTT for retrieval: the 1k-A test of JSFusion, with either of the two training sets in use.

ROOT holds MSRVTT_JSFUSION_test.csv (1,000 sentences, one a video, all of them official test videos)
and the official train_val_videodatainfo.json; with the larger training set also
test_videodatainfo.json. The clips lie anywhere below it as videoN.mp4.

    msrvtt-retrieval      trains on the official train and validation videos, 7,010
    msrvtt-retrieval-9k   trains on all but the 1,000, 9,000: 1,990 of them official test videos
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlpipe.stores.datasets._captions import SentencePair, read_json_object, read_pairs
from vlpipe.stores.datasets._registry import register_dataset
from vlpipe.stores.datasets._sentence_pairs import SentencePairDataset
from vlpipe.stores.errors import AnnotationError

_TEST = "MSRVTT_JSFUSION_test.csv"
_EXPECTED = "expected sentences [{caption, video_id, sen_id}, ...]"


@register_dataset("msrvtt-retrieval")
class MsrvttRetrievalDataset(SentencePairDataset):
    """A copy of MSR-VTT with the 1k-A test; the ids are video0 to video9999."""

    description = "MSR-VTT 1k-A: a sentence for each of 1,000 videos; trains on 7,010 others."
    homepage = "https://github.com/yj-yu/lsmdc"
    terms = "MSR-VTT: research use; the clips are YouTube videos"
    splits = ("train", "test")
    pair_splits: ClassVar[tuple[str, ...]] = ("train", "test")
    train_files: ClassVar[tuple[str, ...]] = ("train_val_videodatainfo.json",)
    published_rows: ClassVar[Mapping[str, tuple[int, ...]]] = {
        _TEST: (1000,),
        "train_val_videodatainfo.json": (140_200,),
        "test_videodatainfo.json": (59_800,),
    }

    def tables(self) -> Mapping[str, Callable[[Path], Sequence[SentencePair]]]:
        return {_TEST: read_pairs} | dict.fromkeys(self.train_files, _told)

    def pairs_of(self, split: str) -> list[SentencePair]:
        """20 sentences a video in train, 1 in test."""
        tested = list(self.read(_TEST))
        if split == "test":
            return tested
        held_out = {pair.video_id for pair in tested}
        told = [pair for name in self.train_files for pair in self.read(name)]
        return [pair for pair in told if pair.video_id not in held_out]


@register_dataset("msrvtt-retrieval-9k")
class MsrvttRetrieval9kDataset(MsrvttRetrievalDataset):
    """The same test with the training set of many later papers."""

    description = "MSR-VTT 1k-A: a sentence for each of 1,000 videos; trains on all 9,000 others."
    train_files: ClassVar[tuple[str, ...]] = (
        "train_val_videodatainfo.json",
        "test_videodatainfo.json",
    )


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
