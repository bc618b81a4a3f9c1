"""TVQA: five-choice questions about clips of six series (Lei et al., EMNLP 2018).

ROOT, ROOT/data or ROOT/tvqa_qa_release holds tvqa_train.jsonl, tvqa_val.jsonl and, without answers,
tvqa_test_public.jsonl, plain or compressed by gzip (.jsonl.gz). Subtitles are read from
tvqa_preprocessed_subtitles.jsonl beside them, or else from VID_NAME.srt in ROOT/tvqa_subtitles or
ROOT/subtitles. A clip lies anywhere below ROOT as a folder VID_NAME of pictures, three a second, as
published, or as a video file VID_NAME.mp4 (.mkv, ...) made of them.
"""

import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from vlpipe.stores.datasets._ids import id_problem, shown_id
from vlpipe.stores.datasets._media_files import same_file, walk_media
from vlpipe.stores.datasets._registry import (
    Dataset,
    DatasetCheck,
    RowProblem,
    TableCheck,
    Video,
    register_dataset,
)
from vlpipe.stores.datasets._subtitles import SubtitleLine, parse_json_clip, read_subrip
from vlpipe.stores.errors import AnnotationError, UsageError

TASK = "subtitled_qa"
NUM_CHOICES = 5
_FOLDERS = ("", "data", "tvqa_qa_release")
_SUBTITLE_FOLDERS = ("tvqa_subtitles", "subtitles")
_SUBTITLES = "tvqa_preprocessed_subtitles.jsonl"
_MAX_LINE = 4 << 20  # the longest row of the subtitles has some 20 kB
_PICTURES = (".jpg", ".jpeg", ".png")

_NUMBER = r"\s*(-?\d+(?:\.\d+)?|nan)\s*"
_SPAN = re.compile(f"{_NUMBER}-{_NUMBER}", re.IGNORECASE)
_OF_SHOW = re.compile(r"(friends|met|grey|house|castle)_")


@dataclass(frozen=True, slots=True)
class SubtitledQuestion:
    """A question, its five choices, and when in the clip the answer can be seen.

    answer: the place of the right choice, from 0; None where the split hides it. span_s: (start,
        end) in seconds as annotated, None where the file has NaN. show: bbt, friends, met, grey,
        house or castle.
    """

    qid: int
    video_id: str
    show: str
    question: str
    choices: tuple[str, ...]
    answer: int | None
    span_s: tuple[float, float] | None


@register_dataset("tvqa")
class TvqaDataset(Dataset):
    """A copy of TVQA; the ids of videos are the names of clips, such as s03e21_seg02_clip_08."""

    description = "TVQA: 153 k five-choice questions about 22 k subtitled clips of six series."
    homepage = "https://github.com/jayleicn/TVQA"
    terms = "annotations: MIT; frames: after signing the authors' agreement, not to be shared"
    splits = ("train", "val", "test_public")
    tasks: ClassVar[tuple[str, ...]] = (TASK,)
    hidden_splits: ClassVar[tuple[str, ...]] = ("test_public",)
    published_rows: ClassVar[dict[str, tuple[int, ...]]] = {
        "train": (122_039,), "val": (15_253,), "test_public": (7_623,)
    }  # fmt: skip

    @property
    def question_splits(self) -> tuple[str, ...]:
        """train and val; and test_public, whose answers are hidden, if its file is there."""
        hidden = (split for split in self.hidden_splits if self._table(split) is not None)
        return ("train", "val", *hidden)

    def questions(self, task: str, split: str | None = None) -> list[SubtitledQuestion]:
        """The questions of a split in the order of its file; a malformed one is an error."""
        if task not in self.tasks:
            raise UsageError(f"dataset {self.name!r} has no task {task!r}; it has: {TASK}")
        if split not in self.splits:
            raise UsageError(
                f"the questions of dataset {self.name!r} have no split {split!r}; "
                f"they have: {', '.join(self.splits)}"
            )
        found = list[SubtitledQuestion]()
        for item in self._rows(split):
            if isinstance(item, RowProblem):
                raise AnnotationError(
                    str(item), hint=f"vlpipe datasets check {self.name} --root {self.root}"
                )
            found.append(item)
        return found

    def subtitles(self, video_id: str) -> tuple[SubtitleLine, ...] | None:
        """What is said in a clip, in the order of the lines' starts; empty where it has no file,
        None if the copy has no subtitles at all. Raises AnnotationError for a malformed file."""
        source = self._subtitle_source
        if source is None:
            return None
        if isinstance(source, dict):
            return source.get(video_id, ())
        if id_problem(video_id) is not None:
            return ()
        path = source / f"{video_id}.srt"
        return read_subrip(path) if path.is_file() else ()

    def videos(self, split: str | None = None) -> list[Video]:
        """The clips that the tables of the split name, in their order, each once.

        A clip that is there as a folder of pictures alone has no path: extractors read files.
        """
        self._require_split(split)
        self.left_out = ()
        splits = [name for name in self.splits if split in (None, name) and self._table(name)]
        splits = splits or [split or self.splits[0]]  # its table is missed by name
        named: dict[str, str] = {}
        for of_split in splits:
            for item in self._rows(of_split):
                if isinstance(item, RowProblem):
                    self.left_out += (str(item),)
                else:
                    named.setdefault(item.video_id, of_split)
        media = self._media()
        return [_video(name, of_split, media.get(name, [])) for name, of_split in named.items()]

    def check(self) -> DatasetCheck:
        """The tables and the subtitles, and the clips, whose pictures count as media here."""
        tables, bad_rows, named = list[TableCheck](), list[RowProblem](), dict[str, str]()
        for split in self.splits:
            path, rows, problem = self._table(split), None, None
            if path is not None:
                try:
                    found = list(_read(path, is_hidden=split in self.hidden_splits))
                    rows = len(found)
                    bad_rows += [item for item in found if isinstance(item, RowProblem)]
                    for item in found:
                        if isinstance(item, SubtitledQuestion):
                            named.setdefault(item.video_id, split)
                except AnnotationError as error:
                    problem = str(error)
            is_required = split not in self.hidden_splits
            tables.append(
                TableCheck(
                    f"tvqa_{split}.jsonl", path, rows, self.published_rows[split], is_required,
                    problem,
                )
            )  # fmt: skip
        tables.append(self._check_subtitles())
        media = self._media()
        pictures = _picture_folders(self.root, set(named) - set(media))
        present = media | {name: [path] for name, path in pictures.items()}
        videos = [_video(name, split, present.get(name, [])) for name, split in named.items()]
        return DatasetCheck.of_media(self, tables, videos, media, bad_rows)

    def _rows(self, split: str) -> Iterator[SubtitledQuestion | RowProblem]:
        path = self._table(split)
        if path is None:
            raise AnnotationError(
                f"tvqa_{split}.jsonl is not in {self.root} nor in its folders data/ and "
                "tvqa_qa_release/",
                hint=f"tvqa_qa_release.tar.gz of {self.homepage} holds it",
            )
        return _read(path, is_hidden=split in self.hidden_splits)

    @cached_property
    def _subtitle_source(self) -> dict[str, tuple[SubtitleLine, ...]] | Path | None:
        """The lines of all clips, or the folder of their files; None without either."""
        path = self._subtitle_file()
        return path if path is None or path.is_dir() else _read_subtitles(path)

    def _subtitle_file(self) -> Path | None:
        files = (
            self.root / folder / f"{_SUBTITLES}{suffix}"
            for folder in (*_FOLDERS, *_SUBTITLE_FOLDERS)
            for suffix in ("", ".gz")
        )
        folders = (self.root / folder for folder in _SUBTITLE_FOLDERS)
        found = next((path for path in files if path.is_file()), None)
        return found or next((path for path in folders if path.is_dir()), None)

    def _check_subtitles(self) -> TableCheck:
        path, rows, problem = self._subtitle_file(), None, None
        if path is not None:
            try:
                source = self._subtitle_source
                names = source if isinstance(source, dict) else path.glob("*.srt")
                rows = sum(1 for _ in names)
            except (AnnotationError, OSError) as error:
                problem = str(error)
        return TableCheck("subtitles", path, rows, problem=problem)

    def _table(self, split: str) -> Path | None:
        paths = (
            self.root / folder / f"tvqa_{split}.jsonl{suffix}"
            for folder in _FOLDERS
            for suffix in ("", ".gz")
        )
        return next((path for path in paths if path.is_file()), None)

    def _media(self) -> dict[str, list[Path]]:
        media, unlisted = dict[str, list[Path]](), list[str]()
        for path in walk_media(self.root, unlisted):
            media.setdefault(path.stem, []).append(path)
        self.left_out += tuple(unlisted)
        return media


def _read(path: Path, *, is_hidden: bool) -> Iterator[SubtitledQuestion | RowProblem]:
    """The questions of a table, with the problem in the place of each malformed row."""
    seen: dict[int, int] = {}
    for number, text in _lines(path):
        try:
            question = _question(text, is_hidden=is_hidden)
        except (ValueError, RecursionError) as error:
            yield RowProblem(path, number, str(error))
            continue
        first = seen.setdefault(question.qid, number)
        if first != number:
            reason = f"qid {question.qid} was used before, in line {first}"
            yield RowProblem(path, number, reason)
        else:
            yield question


def _question(text: str, *, is_hidden: bool) -> SubtitledQuestion:
    row = json.loads(text)
    if not isinstance(row, dict):
        raise ValueError(f"a JSON {type(row).__name__}; expected an object")  # noqa: TRY004
    qid, video_id = row.get("qid"), row.get("vid_name")
    if not isinstance(qid, int) or isinstance(qid, bool):
        raise ValueError(f"qid is {qid!r}; expected a whole number")  # noqa: TRY004
    if not isinstance(video_id, str):
        raise ValueError(f"vid_name is {video_id!r}; expected a text")  # noqa: TRY004
    reason = id_problem(video_id)
    if reason is not None:
        raise ValueError(f"vid_name: {reason}")
    names = ("q", *(f"a{place}" for place in range(NUM_CHOICES)))
    texts = [row.get(name) for name in names]
    for name, value in zip(names, texts, strict=True):
        if not isinstance(value, str) or (name == "q" and not value.strip()):
            raise ValueError(f"{name} is {value!r}; expected a text")
    answer = row.get("answer_idx")
    if answer is None and not is_hidden:
        raise ValueError("answer_idx is missing")
    if answer is not None and (isinstance(answer, bool) or answer not in range(NUM_CHOICES)):
        raise ValueError(f"answer_idx is {answer!r}; expected 0 to {NUM_CHOICES - 1}")
    question, *choices = map(str, texts)
    span_s = None if is_hidden and "ts" not in row else _span(row.get("ts"))
    return SubtitledQuestion(
        qid, video_id, _show_of(video_id), question, tuple(choices), answer, span_s
    )


def _span(value: object) -> tuple[float, float] | None:
    """Seconds of `76.01-84.2`; None of NaN, on either side or alone."""
    if isinstance(value, float) and math.isnan(value):
        return None
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        if isinstance(value, str) and value.strip().lower() == "nan":
            return None
        raise ValueError(f"ts is {value!r}; expected seconds such as '76.01-84.2'")
    start_s, end_s = map(float, found.groups())
    return None if math.isnan(start_s) or math.isnan(end_s) else (start_s, end_s)


def _show_of(video_id: str) -> str:
    """The names of clips begin with that of their series; those of The Big Bang Theory do not."""
    found = _OF_SHOW.match(video_id)
    return "bbt" if found is None else found[1]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file, plain or compressed, that are not blank, with their numbers."""
    try:
        with path.open("rb") as plain, ExitStack() as stack:
            is_packed = path.suffix == ".gz"
            file = stack.enter_context(gzip.open(plain)) if is_packed else plain
            number = 0
            while line := file.readline(_MAX_LINE + 1):
                number += 1
                if len(line) > _MAX_LINE:
                    raise AnnotationError(f"{path}, line {number}: more than {_MAX_LINE:,} bytes")
                if line.strip():
                    yield number, line.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} cannot be read: {error}") from error


def _read_subtitles(path: Path) -> dict[str, tuple[SubtitleLine, ...]]:
    found: dict[str, tuple[SubtitleLine, ...]] = {}
    for number, text in _lines(path):
        try:
            name, lines = parse_json_clip(text)
        except ValueError as error:
            raise AnnotationError(f"{path}, line {number}: {error}") from error
        found[name] = lines
    return found


def _picture_folders(root: Path, names: set[str]) -> dict[str, Path]:
    """The folders below root that are called like a clip and hold a picture."""
    found: dict[str, Path] = {}
    for folder, below, files in os.walk(root, followlinks=False):
        path = Path(folder)
        if path.name in names:
            below.clear()
            if any(file.lower().endswith(_PICTURES) for file in files):
                found[path.name] = path
        below.sort()
    return found


def _video(name: str, split: str, paths: list[Path]) -> Video:
    present = [path for path in paths if path.exists()]
    if len(present) > 1 and not same_file(present):
        named = " and ".join(str(path) for path in present)
        reason = f"{len(present)} files have the id {shown_id(name)!r}: {named}; keep one of them"
        return Video(name, None, split, reason, "duplicate_id")
    return Video(name, present[0] if present else None, split)
