"""One word out of the answers seen in training: frame questions, open-ended ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import PositiveInt
from torch import Tensor

from vlpipe.models.layers.answers import ANSWER_SET, NO_ANSWER
from vlpipe.models.metrics.question_answering import accuracy, accuracy_by
from vlpipe.models.tasks.question_answering import (
    QuestionAnswering,
    QuestionExample,
    QuestionSettings,
    write_json_answers,
)
from vlpipe.models.tasks.question_text import Vocabulary, clean, most_frequent
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.task import Batch, Record, TaskSettings
from vlpipe.stores.datasets import Dataset
from vlpipe.stores.errors import UsageError

_FRAME_KINDS = ("object", "number", "color", "location")


class AnswerSetSettings(QuestionSettings):
    """num_answers: so many of the most frequent training answers are known; None: what the
    dataset's papers take (MSVD-QA 1,000, MSRVTT-QA 4,000), else all.
    answer_list: a file with an answer a line that is taken instead, in its order."""

    num_answers: PositiveInt | None = None
    answer_list: Path | None = None


class AnswerSetTask(QuestionAnswering):
    """Scores over known answers. One that is not among them teaches nothing and is never right:
    the original code took it for the second class."""

    figure: ClassVar[str] = "accuracy"
    kind: ClassVar[str] = ANSWER_SET
    Settings: ClassVar[type[TaskSettings]] = AnswerSetSettings

    def __init__(
        self, settings: QuestionSettings, vocabulary: Vocabulary, answers: tuple[str, ...]
    ) -> None:
        super().__init__(settings, vocabulary)
        self.answers = answers
        self._places = {answer: place for place, answer in enumerate(answers)}

    @classmethod
    def fit(
        cls, settings: TaskSettings, examples: Sequence[QuestionExample], dataset: Dataset
    ) -> Self:
        assert isinstance(settings, AnswerSetSettings)
        if settings.answer_list is not None:
            answers = _read_answers(settings.answer_list)
        else:
            size = settings.num_answers or getattr(dataset, "num_answers", None)
            answers = most_frequent([str(e.answer) for e in examples], size)
        return cls(settings, cls.vocabulary_of(settings, examples), answers)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"answers": list(self.answers)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        settings = cls.Settings(**value["settings"])
        assert isinstance(settings, QuestionSettings)
        return cls(settings, Vocabulary(tuple(value["words"])), tuple(value["answers"]))

    def model_settings(self) -> dict[str, Any]:
        return super().model_settings() | {"num_answers": len(self.answers)}

    def question_ids(self, question: str) -> tuple[Tensor, Tensor]:
        """int64 (max_words,) ids of the question, and how many (); see `Vocabulary.encode`."""
        return self.vocabulary.encode(question, self.settings.max_words)

    def encode(self, example: QuestionExample) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        ids, length = self.question_ids(example.question)
        place = self._places.get(str(example.answer), NO_ANSWER)
        return {"question": ids, "question_length": length}, {"answer": torch.tensor(place)}

    def decode(self, outputs: Mapping[str, Tensor], batch: Batch[QuestionExample]) -> list[Record]:
        shares = outputs["logits"].float().softmax(dim=-1)
        best = shares.topk(min(5, len(self.answers)), dim=-1)
        places = outputs["predictions"].tolist()
        return [
            self.question_record(example, self.answers[place])
            | {"best": {self.answers[i]: share for i, share in zip(row, values, strict=True)}}
            for example, place, row, values in zip(
                batch.examples, places, best.indices.tolist(), best.values.tolist(), strict=True
            )
        ]

    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        predictions = [r["prediction"] for r in records]
        answers = [r["answer"] for r in records]
        found = {"accuracy": accuracy(predictions, answers)}
        parts = [r.get("part", "") for r in records]
        if any(parts):
            by_part = accuracy_by(parts, predictions, answers)
            found |= {f"accuracy/{part}": value for part, value in by_part.items()}
        return found

    def baseline(
        self, train: Sequence[QuestionExample], examples: Sequence[QuestionExample]
    ) -> list[Record]:
        """The most frequent training answer."""
        (best,) = most_frequent([str(e.answer) for e in train], 1)
        return [self.question_record(example, best) for example in examples]

    def ask(self, video_id: str, question: str, candidates: Sequence[str] = ()) -> QuestionExample:
        del candidates
        return QuestionExample("asked", video_id, question)


@register_task("frameqa")
class FrameTask(AnswerSetTask):
    """Questions that one frame answers (TGIF-QA)."""

    description: ClassVar[str] = "what a frame shows, in one word: accuracy"
    question_task: ClassVar[str] = "frameqa"

    @classmethod
    def example_of(cls, row: Any) -> QuestionExample:  # noqa: ANN401 - FrameQuestion
        texts = (row.description, row.question, row.answer)
        part = _FRAME_KINDS[row.kind]
        return QuestionExample(
            row.vid_id, row.gif_name, row.question, row.answer, part=part, texts=texts
        )


@register_task("open_ended")
class OpenEndedTask(AnswerSetTask):
    """Questions of any kind with one-word answers (MSVD-QA, MSRVTT-QA)."""

    description: ClassVar[str] = "any question with a one-word answer: accuracy"
    question_task: ClassVar[str] = "open_ended"

    @classmethod
    def example_of(cls, row: Any) -> QuestionExample:  # noqa: ANN401 - OpenQuestion
        part = clean(row.question).split(" ", 1)[0]
        return QuestionExample(str(row.id), row.video_id, row.question, row.answer, part=part)

    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        return write_json_answers(records, folder, split)


def _read_answers(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the answer list {path} cannot be read: {error}") from error
    answers = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not answers:
        raise UsageError(f"the answer list {path} is empty", hint="one answer a line")
    return answers
