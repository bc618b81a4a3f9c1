"""Questions with one-word answers: the files of MSVD-QA and MSRVTT-QA.

{train,val,test}_qa.json, each one array of objects with answer, id, question and video_id (a
number); MSRVTT-QA adds category_id. The files may be compressed by gzip (.json.gz).
"""

import gzip
import json
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeGuard

from vlpipe.stores.datasets._media_files import same_file, walk_media
from vlpipe.stores.datasets._registry import Dataset, DatasetCheck, RowProblem, TableCheck, Video
from vlpipe.stores.errors import AnnotationError, UsageError

_MAX_BYTES = 256 << 20  # the largest published file has some 20 MB
_EXPECTED = "expected answer and question (texts), id and video_id (whole numbers)"


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question and its one word. video_id is the id of the media item ("vid7", "video7")."""

    id: int
    video_id: str
    question: str
    answer: str


class OpenQuestionDataset(Dataset):
    """A copy of MSVD-QA or MSRVTT-QA: the files in ROOT, the videos anywhere below it."""

    splits = ("train", "val", "test")
    question_splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    tasks: ClassVar[tuple[str, ...]] = ("open_ended",)
    num_answers: ClassVar[int]
    """So many of the most frequent training answers make the answer set of the papers."""

    prefix: ClassVar[str]
    """Stands before the number in a media item's id."""

    video_ranges: ClassVar[dict[str, tuple[int, int]]]
    """The first and the last video number of each split."""

    published_rows: ClassVar[dict[str, tuple[int, ...]]]

    def questions(self, task: str, split: str | None = None) -> list[OpenQuestion]:
        """The questions of a split in the order of the file; a malformed one is an error."""
        if task not in self.tasks:
            raise UsageError(f"dataset {self.name!r} has no task {task!r}; it has: open_ended")
        if split not in self.question_splits:
            raise UsageError(
                f"the questions of dataset {self.name!r} have no split {split!r}; "
                f"they have: {', '.join(self.question_splits)}"
            )
        path = self._table(split)
        if path is None:
            raise AnnotationError(
                f"{split}_qa.json is not in {self.root}", hint=f"it comes from {self.homepage}"
            )
        found, problems = self._read(path)
        if problems:
            raise AnnotationError(
                str(problems[0]), hint=f"vlpipe datasets check {self.name} --root {self.root}"
            )
        return found

    def videos(self, split: str | None = None) -> list[Video]:
        """All videos of the split's range, also those without questions, in numeric order."""
        self._require_split(split)
        self.left_out = ()
        media = self._media()
        return [
            _video(f"{self.prefix}{number}", of_split, media)
            for of_split, (first, last) in self.video_ranges.items()
            if split in (None, of_split)
            for number in range(first, last + 1)
        ]

    def check(self) -> DatasetCheck:
        tables: list[TableCheck] = []
        bad_rows: list[RowProblem] = []
        for split in self.question_splits:
            name, path = f"{split}_qa.json", self._table(split)
            rows, problem = None, None
            if path is not None:
                try:
                    found, problems = self._read(path)
                    rows = len(found) + len(problems)
                    bad_rows += problems
                except AnnotationError as error:
                    problem = str(error)
            published = self.published_rows[split]
            tables.append(TableCheck(name, path, rows, published, problem=problem))
        videos = self.videos()
        media = self._media()
        return DatasetCheck.of_media(self, tables, videos, media, bad_rows)

    def other_names(self) -> dict[str, str]:
        """Other file names of the media: name without extension -> id."""
        return {}

    def _table(self, split: str) -> Path | None:
        names = (f"{split}_qa.json", f"{split}_qa.json.gz")
        return next((p for name in names if (p := self.root / name).is_file()), None)

    def _media(self) -> dict[str, list[Path]]:
        others, media, unlisted = self.other_names(), dict[str, list[Path]](), list[str]()
        for path in walk_media(self.root, unlisted):
            media.setdefault(others.get(path.stem, path.stem), []).append(path)
        self.left_out += tuple(line for line in unlisted if line not in self.left_out)
        return media

    def _read(self, path: Path) -> tuple[list[OpenQuestion], list[RowProblem]]:
        rows, problems = list[OpenQuestion](), list[RowProblem]()
        seen: set[int] = set()
        problem = partial(RowProblem, path)
        for place, row in enumerate(_read_array(path), start=1):
            question = self._question(row)
            if question is None:
                problems.append(problem(place, f"row {place} of the array: {_EXPECTED}"))
            elif question.id in seen:
                problems.append(problem(place, f"id {question.id} was used before"))
            else:
                seen.add(question.id)
                rows.append(question)
        return rows, problems

    def _question(self, row: object) -> OpenQuestion | None:
        if not isinstance(row, dict):
            return None
        number, video, question, answer = (
            row.get(field) for field in ("id", "video_id", "question", "answer")
        )
        if not (_is_number(number) and _is_number(video)):
            return None
        if not all(isinstance(text, str) and text for text in (question, answer)):
            return None
        return OpenQuestion(number, f"{self.prefix}{video}", str(question), str(answer))


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18


def _video(video_id: str, split: str, media: dict[str, list[Path]]) -> Video:
    present = [path for path in media.get(video_id, []) if path.exists()]
    if len(present) > 1 and not same_file(present):
        named = " and ".join(str(path) for path in present)
        reason = f"{len(present)} files have the id {video_id!r}: {named}; keep one of them"
        return Video(video_id, None, split, reason, "duplicate_id")
    return Video(video_id, present[0] if present else None, split)


def _read_array(path: Path) -> Sequence[object]:
    try:
        with path.open("rb") as plain, ExitStack() as stack:
            is_packed = path.suffix == ".gz"
            file = stack.enter_context(gzip.open(plain)) if is_packed else plain
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise AnnotationError(f"{path} has more than {_MAX_BYTES:,} bytes")
        value = json.loads(data.decode("utf-8-sig"))
    except (OSError, EOFError, zlib.error) as error:
        raise AnnotationError(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, list):
        raise AnnotationError(f"{path} holds a JSON {type(value).__name__}; expected an array")
    return value
