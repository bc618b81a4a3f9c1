"""MSVD-QA: one-word questions about the clips of MSVD (xudejing/video-question-answering).

ROOT holds {train,val,test}_qa.json and, if the clips have their YouTube names, youtube_mapping.txt
("NAME vidN" a line). The clips lie anywhere below ROOT as vidN.avi, or under those names.
"""

from typing import ClassVar

from vlpipe.stores.datasets._open_questions import OpenQuestionDataset
from vlpipe.stores.datasets._registry import register_dataset
from vlpipe.stores.errors import AnnotationError

MAPPING = "youtube_mapping.txt"


@register_dataset("msvd-qa")
class MsvdQaDataset(OpenQuestionDataset):
    """A copy of MSVD-QA; the ids are vid1 to vid1970."""

    description = "MSVD-QA: 50 k one-word questions about 1,970 short clips."
    homepage = "https://github.com/xudejing/video-question-answering"
    terms = "derived from MSVD: research use"
    num_answers: ClassVar[int] = 1000
    prefix: ClassVar[str] = "vid"
    video_ranges: ClassVar[dict[str, tuple[int, int]]] = {
        "train": (1, 1200),
        "val": (1201, 1450),
        "test": (1451, 1970),
    }
    published_rows: ClassVar[dict[str, tuple[int, ...]]] = {
        "train": (30_933,),
        "val": (6_415,),
        "test": (13_157,),
    }

    def other_names(self) -> dict[str, str]:
        path = self.root / MAPPING
        if not path.is_file():
            return {}
        names = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise AnnotationError(f"{path} cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            name, _, video_id = line.strip().rpartition(" ")
            if line.strip() and not (name and video_id):
                raise AnnotationError(f"{path}, line {number}: expected a clip's name and its id")
            names[name] = video_id
        return names
