"""Fill in the blank: the word that a sentence about a video lacks (LSMDC, MSR-VTT)."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

from pydantic import PositiveInt
from torch import Tensor

from vlpipe.models.tasks.answer_set import AnswerSetSettings, AnswerSetTask
from vlpipe.models.tasks.question_answering import QuestionExample
from vlpipe.models.tasks.question_text import UNKNOWN, clean
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.task import Record, TaskSettings
from vlpipe.stores.datasets import Dataset, SentenceBlank
from vlpipe.stores.errors import UsageError

BLANK = "_____"
"""Stands in a sentence for the word that it lacks."""


@runtime_checkable
class HasSentenceBlanks(Protocol):
    """A dataset with sentences that lack a word; `blank_splits`, if it has that, names their
    splits."""

    def sentence_blanks(self, split: str) -> list[SentenceBlank]: ...


class SentenceBlankSettings(AnswerSetSettings):
    """max_words: sentences are cut there. least_count: rarer words of the training sentences are
    left out, there and in those of other splits."""

    max_words: PositiveInt = 40


@register_task("fib")
class SentenceBlankTask(AnswerSetTask):
    """The answers are the words that training sentences lacked. A word that none of them lacked is
    never right. Unknown words are left out of the sentences, as in the published code."""

    description: ClassVar[str] = "the missing word of a sentence: accuracy"
    question_task: ClassVar[str] = "fib"
    Settings: ClassVar[type[TaskSettings]] = SentenceBlankSettings

    @classmethod
    def splits(cls, dataset: Dataset) -> tuple[str, ...]:
        splits = tuple(getattr(dataset, "blank_splits", ("train", "test")))
        if not isinstance(dataset, HasSentenceBlanks) or not splits:
            raise UsageError(
                f"dataset {dataset.name!r} has no sentences with blanks",
                hint="docs/training.md lists the tasks of each dataset",
            )
        return splits

    @classmethod
    def read_examples(cls, dataset: Dataset, split: str) -> list[QuestionExample]:
        cls.require_split(dataset, split)
        rows = cast(HasSentenceBlanks, dataset).sentence_blanks(split)
        return [cls.example_of(row) for row in rows]

    @classmethod
    def example_of(cls, row: Any) -> QuestionExample:  # noqa: ANN401 - SentenceBlank
        answer = clean(row.answer) or row.answer
        return QuestionExample(row.key, row.video_id, row.blank_sentence, answer)

    def model_settings(self) -> dict[str, Any]:
        return super().model_settings() | {"blank_id": self.vocabulary.ids.get(BLANK, UNKNOWN)}

    def question_ids(self, question: str) -> tuple[Tensor, Tensor]:
        return self.vocabulary.encode(question, self.settings.max_words, keeps_unknown=False)

    def encode(self, example: QuestionExample) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Target `sentence`, int64 (max_words,): with the answer in the place of its blank, if the
        vocabulary has it."""
        inputs, targets = super().encode(example)
        ids = inputs["question"].clone()
        answer = self.vocabulary.ids.get(str(example.answer), UNKNOWN)
        ids[ids == self.vocabulary.ids.get(BLANK, UNKNOWN)] = answer
        return inputs, targets | {"sentence": ids}

    def sentences_of(self, examples: Iterable[QuestionExample]) -> Iterator[Sequence[str]]:
        return (
            clean(example.question.replace(BLANK, str(example.answer))).split()
            for example in examples
        )

    def ask(self, video_id: str, question: str, candidates: Sequence[str] = ()) -> QuestionExample:
        if BLANK not in clean(question).split():
            raise UsageError(
                f"the sentence has no blank: {question!r}",
                hint=f"write {BLANK} in the place of the word that is missing",
            )
        return super().ask(video_id, question, candidates)

    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        """The form of JSFusion's tables, the answer's column holding what was predicted."""
        path = folder / f"predictions-{split}.tsv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(("key", "video_id", "blank_sentence", "answer"))
            for record in records:
                writer.writerow([record[n] for n in ("id", "video_id", "question", "prediction")])
        return path
