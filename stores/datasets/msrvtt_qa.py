"""MSRVTT-QA: one-word questions about the clips of MSR-VTT (xudejing/video-question-answering).

ROOT holds {train,val,test}_qa.json; the clips lie anywhere below it as videoN.mp4.
"""

from typing import ClassVar

from vlpipe.stores.datasets._open_questions import OpenQuestionDataset
from vlpipe.stores.datasets._registry import register_dataset


@register_dataset("msrvtt-qa")
class MsrvttQaDataset(OpenQuestionDataset):
    """A copy of MSRVTT-QA; the ids are video0 to video9999."""

    description = "MSRVTT-QA: 244 k one-word questions about 10,000 clips."
    homepage = "https://github.com/xudejing/video-question-answering"
    terms = "derived from MSR-VTT: research use"
    num_answers: ClassVar[int] = 4000
    prefix: ClassVar[str] = "video"
    video_ranges: ClassVar[dict[str, tuple[int, int]]] = {
        "train": (0, 6512),
        "val": (6513, 7009),
        "test": (7010, 9999),
    }
    published_rows: ClassVar[dict[str, tuple[int, ...]]] = {
        "train": (158_581,),
        "val": (12_278,),
        "test": (72_821,),
    }
