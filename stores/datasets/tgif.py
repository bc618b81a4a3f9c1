"""TGIF-QA: questions about short GIFs (repository YunseokJANG/tgif-qa, CVPR 2017).

ROOT, ROOT/dataset, ROOT/question or ROOT/questions holds some or all of the tables
{Train,Test,Total}_{action,count,frameqa,transition}_question.csv. The GIFs lie anywhere below ROOT
as gif_name + ".gif"; re-encodings (gif_name + ".mp4", ".webm", ...) and links to files elsewhere do
as well. Many of the published links are dead, so absent GIFs are reported and are no failure.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, overload

from vlpipe.stores.datasets._ids import id_problem, shown_id
from vlpipe.stores.datasets._media_files import same_file, walk_media
from vlpipe.stores.datasets._questions import (
    TASKS,
    CountQuestion,
    FrameQuestion,
    MultipleChoiceQuestion,
    Question,
    read_questions,
)
from vlpipe.stores.datasets._registry import (
    Dataset,
    DatasetCheck,
    RowProblem,
    TableCheck,
    Video,
    register_dataset,
)
from vlpipe.stores.datasets._tables import read_table
from vlpipe.stores.errors import AnnotationError, UsageError

_LOG = logging.getLogger(__name__)

TABLE_FOLDERS = ("", "dataset", "question", "questions")
# The split of a table by the start of its file's name. Total repeats the rows of the other two.
_TABLE_SPLITS = {"Train": "train", "Test": "test", "Total": None}

# Counts of the publisher's README. The newest commit dropped four GIFs from the training tables of
# count and action (keys 3293, 19199, 51934, 81071), which Total and older copies still have.
PUBLISHED_ROWS: dict[str, tuple[int, ...]] = {
    "Train_count_question.csv": (26_843, 26_839),
    "Test_count_question.csv": (3_554,),
    "Total_count_question.csv": (30_397, 30_393),
    "Train_action_question.csv": (20_475, 20_471),
    "Test_action_question.csv": (2_274,),
    "Total_action_question.csv": (22_749, 22_745),
    "Train_transition_question.csv": (52_704,),
    "Test_transition_question.csv": (6_232,),
    "Total_transition_question.csv": (58_936,),
    "Train_frameqa_question.csv": (39_392,),
    "Test_frameqa_question.csv": (13_691,),
    "Total_frameqa_question.csv": (53_083,),
}


@register_dataset("tgif")
class TgifDataset(Dataset):
    """A copy of TGIF-QA, or of any dataset in its file formats."""

    description = "TGIF-QA: count, action, transition and frame questions about 72 k GIFs."
    homepage = "https://github.com/YunseokJANG/tgif-qa"
    terms = "free for academic purposes only; the GIFs: non-commercial research (TGIF-Release)"
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    tasks: ClassVar[tuple[str, ...]] = TASKS

    def tables(self) -> dict[str, Path]:
        """The question files that are present: file name -> path."""
        found: dict[str, list[Path]] = {}
        for folder in TABLE_FOLDERS:
            for name in PUBLISHED_ROWS:
                path = self.root / folder / name
                if path.is_file():
                    found.setdefault(name, []).append(path)
        for name, paths in found.items():
            if not same_file(paths):
                both = " and ".join(str(path) for path in paths)
                raise AnnotationError(f"{name} is there twice: {both}; keep one of them")
        return {name: found[name][0] for name in PUBLISHED_ROWS if name in found}

    def published_rows(self, table: str) -> tuple[int, ...]:
        """The row counts at which a question file counts as complete."""
        return PUBLISHED_ROWS[table]

    def videos(self, split: str | None = None) -> list[Video]:
        """The GIFs that the tables of the split name, in the order of their names.

        Some GIFs (at least 432 of the published ones) are in a training table of one task and in a
        test table of another: without a split asked for, theirs is "train". A table that cannot be
        read is named in `left_out`, and is an error if no other one can.
        """
        self._require_split(split)
        self.left_out = ()
        return self._videos(self._named(split), self._media())

    @overload
    def questions(
        self, task: Literal["count"], split: str | None = None
    ) -> list[CountQuestion]: ...
    @overload
    def questions(
        self, task: Literal["action", "transition"], split: str | None = None
    ) -> list[MultipleChoiceQuestion]: ...
    @overload
    def questions(
        self, task: Literal["frameqa"], split: str | None = None
    ) -> list[FrameQuestion]: ...
    @overload
    def questions(self, task: str, split: str | None = None) -> list[Question]: ...
    def questions(self, task: str, split: str | None = None) -> object:
        """The questions of a task in the order of the file; without a split those of Total."""
        if task not in TASKS:
            raise UsageError(
                f"dataset {self.name!r} has no task {task!r}; it has: {', '.join(TASKS)}"
            )
        prefix = next((word for word, of in _TABLE_SPLITS.items() if of == split), None)
        if prefix is None:
            raise UsageError(
                f"the questions of dataset {self.name!r} have no split {split!r}; "
                "they have: train, test"
            )
        name = f"{prefix}_{task}_question.csv"
        path = self.tables().get(name)
        if path is None:
            raise AnnotationError(
                f"{name} is not in {self.root} nor in its folder dataset/",
                hint=f"it is in the folder dataset/ of {self.homepage}",
            )
        questions: list[Question] = []
        for item in read_questions(path, task):
            if isinstance(item, RowProblem):
                raise AnnotationError(
                    str(item), hint=f"vlpipe datasets check {self.name} --root {self.root}"
                )
            questions.append(item)
        return questions

    def check(self) -> DatasetCheck:
        media = self._media()
        videos = self._videos(self._named(None, is_strict=False), media)
        tables, bad_rows = self._check_tables()
        return DatasetCheck.of_media(self, tables, videos, media, bad_rows)

    def _check_tables(self) -> tuple[tuple[TableCheck, ...], tuple[RowProblem, ...]]:
        present = self.tables()
        checks: list[TableCheck] = []
        bad_rows: list[RowProblem] = []
        for name in PUBLISHED_ROWS:
            path, published = present.get(name), self.published_rows(name)
            # Total repeats what Train and Test hold
            required = not name.startswith("Total_")
            rows, problem = None, None
            if path is not None:
                try:
                    items = list(read_questions(path, name.split("_")[1]))
                    rows = len(items)
                    bad_rows += [item for item in items if isinstance(item, RowProblem)]
                except AnnotationError as error:
                    problem = str(error)
            checks.append(TableCheck(name, path, rows, published, required, problem))
        return tuple(checks), tuple(bad_rows)

    def _media(self) -> dict[str, list[Path]]:
        """Media below the root by file name without extension; see `left_out` for the rest."""
        media: dict[str, list[Path]] = {}
        unlisted: list[str] = []
        for path in walk_media(self.root, unlisted):
            media.setdefault(path.stem, []).append(path)
        self.left_out += tuple(unlisted)
        return media

    def _named(self, split: str | None, *, is_strict: bool = True) -> dict[str, str | None]:
        """The gif_names in the tables of a split, sorted, each with its split.

        A strict look needs at least one table that can be read.
        """
        named: dict[str, str | None] = {}
        errors: list[AnnotationError] = []
        present = self.tables()
        prefixes = [word for word, of in _TABLE_SPLITS.items() if split is None or of == split]
        tables = [
            (path, prefix)
            for prefix in prefixes
            for name, path in present.items()
            if name.startswith(f"{prefix}_")
        ]
        for path, prefix in tables:
            try:
                for name in _gif_names(path):
                    named.setdefault(name, _TABLE_SPLITS[prefix])
            except AnnotationError as error:
                errors.append(error)
        self.left_out += tuple(str(error) for error in errors)
        if is_strict and not tables:
            raise AnnotationError(
                f"{self.root} has none of the tables {{{','.join(prefixes)}}}_TASK_question.csv, "
                f"TASK one of {', '.join(TASKS)}",
                hint=f"they are in the folder dataset/ of {self.homepage}",
            )
        if is_strict and len(errors) == len(tables):
            raise errors[0]
        return {name: named[name] for name in sorted(named)}

    def _videos(self, named: dict[str, str | None], media: dict[str, list[Path]]) -> list[Video]:
        videos: dict[str, Video] = {}
        for name, split in named.items():
            video = _video(name, split, media.get(name, []))
            videos.setdefault(video.id, video)
        return list(videos.values())


def _gif_names(path: Path) -> Iterator[str]:
    """The first column of a table; malformed rows count as long as they name a GIF."""
    nameless = 0
    for row in read_table(path, ("gif_name",)):
        if row.problem is not None and not row.values[0]:
            nameless += 1
        else:
            yield row.values[0]
    if nameless:
        _LOG.warning("%s: %d rows cannot be read; vlpipe datasets check lists them", path, nameless)


def _video(name: str, split: str | None, paths: list[Path]) -> Video:
    reason = id_problem(name)
    if reason is not None:
        return Video(shown_id(name), None, split, f"{reason}, in the question tables", "bad_id")
    present = [path for path in paths if path.exists()]
    if len(present) > 1 and not same_file(present):
        named = " and ".join(str(path) for path in present)
        reason = f"{len(present)} files have the id {name!r}: {named}; keep one of them"
        return Video(name, None, split, reason, "duplicate_id")
    return Video(name, present[0] if present else None, split)
