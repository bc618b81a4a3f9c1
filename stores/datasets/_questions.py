"""The question tables of TGIF-QA as typed rows.

Four tasks, each with its own columns; the files are tab-separated with a header row.

    count               gif_name question answer vid_id key                  answer 0 or 2..10
    action, transition  gif_name question a1 a2 a3 a4 a5 answer vid_id key   answer 0..4, an index
    frameqa             gif_name question answer type vid_id key description answer one word
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlpipe.stores.datasets._ids import id_problem
from vlpipe.stores.datasets._registry import RowProblem
from vlpipe.stores.datasets._tables import read_table

TASKS = ("count", "action", "transition", "frameqa")
COLUMNS = {
    "count": ("gif_name", "question", "answer", "vid_id", "key"),
    "action": ("gif_name", "question", "a1", "a2", "a3", "a4", "a5", "answer", "vid_id", "key"),
    "transition": ("gif_name", "question", "a1", "a2", "a3", "a4", "a5", "answer", "vid_id", "key"),
    "frameqa": ("gif_name", "question", "answer", "type", "vid_id", "key", "description"),
}
MAX_COUNT = 10  # stands for "10 or more"; 0 stands for "no repetition"; 1 never occurs
FRAME_KINDS = ("object", "number", "color", "location")

_INTEGER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class CountQuestion:
    """How many times something happens; the published figures raise the answer 0 to 1."""

    gif_name: str
    vid_id: str
    key: int
    question: str
    answer: int


@dataclass(frozen=True, slots=True)
class MultipleChoiceQuestion:
    """A repeated action or a transition: five choices, and the place of the right one."""

    gif_name: str
    vid_id: str
    key: int
    question: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class FrameQuestion:
    """A question that one frame answers with one word; kind is an index into FRAME_KINDS."""

    gif_name: str
    vid_id: str
    key: int
    question: str
    answer: str
    kind: int
    description: str


Question = CountQuestion | MultipleChoiceQuestion | FrameQuestion


def read_questions(path: Path, task: str) -> Iterator[Question | RowProblem]:
    """The questions of a table, with the problem in the place of each malformed row."""
    lines: dict[str, int] = {}  # vid_id -> line
    gif_names: dict[int, str] = {}  # key -> gif_name
    for row in read_table(path, COLUMNS[task]):
        if row.problem is not None:
            yield row.problem
            continue
        try:
            question = _question(task, dict(zip(COLUMNS[task], row.values, strict=True)))
            if question.vid_id in lines:
                first = lines[question.vid_id]
                raise _BadValue(f"vid_id {question.vid_id!r} was used before, in line {first}")  # noqa: TRY301
            owner = gif_names.setdefault(question.key, question.gif_name)
            if owner != question.gif_name:
                raise _BadValue(f"key {question.key} was used before, for {owner!r}")  # noqa: TRY301
        except _BadValue as error:
            yield RowProblem(path, row.line, str(error))
            continue
        lines[question.vid_id] = row.line
        yield question


class _BadValue(ValueError):
    """A value of a row that its column cannot have."""


def _question(task: str, row: dict[str, str]) -> Question:
    reason = id_problem(row["gif_name"])
    if reason is not None:
        raise _BadValue(f"gif_name: {reason}")
    for column in ("question", "vid_id"):
        if not row[column]:
            raise _BadValue(f"{column} is empty")
    gif_name, question, vid_id = row["gif_name"], row["question"], row["vid_id"]
    key = _integer(row, "key", 10**18)
    if task == "count":
        return CountQuestion(gif_name, vid_id, key, question, _integer(row, "answer", MAX_COUNT))
    if task == "frameqa":
        if not row["answer"]:
            raise _BadValue("answer is empty")
        kind = _integer(row, "type", len(FRAME_KINDS) - 1)
        return FrameQuestion(
            gif_name, vid_id, key, question, row["answer"], kind, row["description"]
        )
    choices = tuple(row[f"a{place}"] for place in range(1, 6))
    answer = _integer(row, "answer", len(choices) - 1)
    return MultipleChoiceQuestion(gif_name, vid_id, key, question, choices, answer)


def _integer(row: dict[str, str], column: str, largest: int) -> int:
    text = row[column]
    if not _INTEGER.fullmatch(text):
        raise _BadValue(f"{column} is {text[:40]!r}; expected a whole number")
    if int(text) > largest:
        raise _BadValue(f"{column} is {int(text)}; expected 0 to {largest}")
    return int(text)
