"""What all questions about one video have in common: reading, text, records, files.

The tasks themselves are in `count.py`, `multiple_choice.py` and `answer_set.py`.
"""

import csv
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from pydantic import PositiveInt
from torch import Tensor

from vlpipe.models.layers.answers import answer_loss
from vlpipe.models.tasks.question_text import Vocabulary
from vlpipe.models.tasks.task import Batch, Clip, Record, Task, TaskSettings
from vlpipe.stores.datasets import Dataset
from vlpipe.stores.errors import UsageError


@runtime_checkable
class AsksQuestions(Protocol):
    """A dataset with questions; `question_splits`, if it has that, names their splits."""

    tasks: ClassVar[tuple[str, ...]]

    def questions(self, task: str, split: str | None = None) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class QuestionExample:
    """A question about a video.

    answer: a count, the place of the right candidate, or a word; None if it is not known.
    part: the kind of question that figures are given for. texts: what the vocabulary is made of,
    in order; empty: the question and the candidates.
    """

    id: str
    video_id: str
    question: str
    answer: int | str | None = None
    candidates: tuple[str, ...] = ()
    part: str = ""
    texts: tuple[str, ...] = ()

    @property
    def clips(self) -> tuple[Clip, ...]:
        return (Clip(self.video_id),)


class QuestionSettings(TaskSettings):
    """max_words: questions are cut there. least_count: rarer words of the training questions are
    unknown ones."""

    max_words: PositiveInt = 20
    least_count: PositiveInt = 1


class QuestionAnswering(Task[QuestionExample]):
    """A task with one question and one answer an example."""

    kind: ClassVar[str]
    """How it is answered: a constant of `models/layers/answers.py`."""

    question_task: ClassVar[str]
    """What datasets call it in `questions(task, split)`."""

    Settings: ClassVar[type[TaskSettings]] = QuestionSettings

    def __init__(self, settings: QuestionSettings, vocabulary: Vocabulary) -> None:
        self.settings = settings
        self.vocabulary = vocabulary

    @classmethod
    def splits(cls, dataset: Dataset) -> tuple[str, ...]:
        if not isinstance(dataset, AsksQuestions) or cls.question_task not in dataset.tasks:
            raise UsageError(
                f"dataset {dataset.name!r} has no questions for the task {cls.name!r}",
                hint="docs/training.md lists the tasks of each dataset",
            )
        return tuple(getattr(dataset, "question_splits", ("train", "test")))

    @classmethod
    def read_examples(cls, dataset: Dataset, split: str) -> list[QuestionExample]:
        cls.require_split(dataset, split)
        assert isinstance(dataset, AsksQuestions)
        return [cls.example_of(row) for row in dataset.questions(cls.question_task, split)]

    @classmethod
    def require_split(cls, dataset: Dataset, split: str) -> None:
        """UsageError if the dataset does not annotate that split for this task."""
        known = cls.splits(dataset)
        if split not in known:
            raise UsageError(
                f"the questions of dataset {dataset.name!r} have no split {split!r}; "
                f"they have: {', '.join(known)}"
            )

    @classmethod
    @abstractmethod
    def example_of(cls, row: Any) -> QuestionExample:  # noqa: ANN401 - a row of the dataset
        """The example that a row of the annotations is."""

    @classmethod
    def vocabulary_of(
        cls, settings: QuestionSettings, examples: Sequence[QuestionExample]
    ) -> Vocabulary:
        """The words of the training examples."""
        texts = (text for e in examples for text in (e.texts or (e.question, *e.candidates)))
        return Vocabulary.of(texts, least_count=settings.least_count)

    @classmethod
    def fit(
        cls, settings: TaskSettings, examples: Sequence[QuestionExample], dataset: Dataset
    ) -> Self:
        del dataset
        assert isinstance(settings, QuestionSettings)
        return cls(settings, cls.vocabulary_of(settings, examples))

    def to_json(self) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump(mode="json"),
            "words": list(self.vocabulary.words),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        settings = cls.Settings(**value["settings"])
        assert isinstance(settings, QuestionSettings)
        return cls(settings, Vocabulary(tuple(value["words"])))

    def model_settings(self) -> dict[str, Any]:
        return {"vocabulary_size": len(self.vocabulary), "max_words": self.settings.max_words}

    def words(self) -> Sequence[str]:
        return self.vocabulary.words

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch[QuestionExample]) -> Tensor:
        return answer_loss(self.kind, outputs["logits"], batch.targets["answer"])

    def question_record(self, example: QuestionExample, prediction: int | str) -> Record:
        """The record without what a task adds."""
        record: Record = {
            "id": example.id,
            "video_id": example.video_id,
            "question": example.question,
            "prediction": prediction,
            "answer": example.answer,
        }
        if example.candidates:
            record["candidates"] = list(example.candidates)
        if example.part:
            record["part"] = example.part
        return record

    @abstractmethod
    def ask(self, video_id: str, question: str, candidates: Sequence[str] = ()) -> QuestionExample:
        """The example of a question that stands in no annotation; UsageError if it does not fit."""

    def beside(self, asked: QuestionExample, known: Iterable[QuestionExample]) -> QuestionExample:
        """The asked example with what the run's own examples say of its video, for tasks that read
        more than question and video; UsageError if they must and nothing is known."""
        del known
        return asked

    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        """TGIF-QA has no server, so its form is that of its tables: tab-separated, the answer's
        column holding what was predicted."""
        path = folder / f"predictions-{split}.tsv"
        columns = ("gif_name", "question", "answer", "vid_id")
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\r\n")
            writer.writerow(columns)
            for record in records:
                names = ("video_id", "question", "prediction", "id")
                writer.writerow([record[name] for name in names])
        return path


def write_json_answers(records: Sequence[Record], folder: Path, split: str) -> Path:
    """The form of MSVD-QA's and MSRVTT-QA's files: an array of objects with id and answer."""
    path = folder / f"predictions-{split}.json"
    rows = [
        {
            "answer": record["prediction"],
            "id": int(record["id"]) if str(record["id"]).isdecimal() else record["id"],
            "question": record["question"],
            "video_id": record["video_id"],
        }
        for record in records
    ]
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path
