"""Repetition count: how many times something happens (TGIF-QA)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from vlpipe.models.layers.answers import COUNT, LEAST_COUNT, MOST_COUNT, count_predictions
from vlpipe.models.metrics.question_answering import accuracy, count_error
from vlpipe.models.tasks.question_answering import QuestionAnswering, QuestionExample
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.task import Batch, Record, Shown


@register_task("count")
class CountTask(QuestionAnswering):
    """One number; 10 stands for ten or more, and 0 is raised to 1 in training and evaluation."""

    description: ClassVar[str] = "how many times something happens: mean squared error"
    figure: ClassVar[str] = "mse"
    is_higher_better: ClassVar[bool] = False
    kind: ClassVar[str] = COUNT
    question_task: ClassVar[str] = "count"

    @classmethod
    def example_of(cls, row: Any) -> QuestionExample:  # noqa: ANN401 - CountQuestion
        return QuestionExample(row.vid_id, row.gif_name, row.question, row.answer)

    def encode(self, example: QuestionExample) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        ids, length = self.vocabulary.encode(example.question, self.settings.max_words)
        answer = max(int(example.answer or 0), LEAST_COUNT)
        return (
            {"question": ids, "question_length": length},
            {"answer": torch.tensor(float(answer))},
        )

    def decode(self, outputs: Mapping[str, Tensor], batch: Batch[QuestionExample]) -> list[Record]:
        raw = outputs["logits"].float().tolist()
        counts = count_predictions(outputs["logits"]).tolist()
        return [
            self.question_record(example, count) | {"raw": number}
            for example, count, number in zip(batch.examples, counts, raw, strict=True)
        ]

    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        predictions = [r["prediction"] for r in records]
        answers = [r["answer"] for r in records]
        raised = [max(answer, LEAST_COUNT) for answer in answers]
        return {
            "mse": count_error(predictions, answers),
            "accuracy": accuracy(predictions, raised),
        }

    def baseline(
        self, train: Sequence[QuestionExample], examples: Sequence[QuestionExample]
    ) -> list[Record]:
        """The one count that is best on these very examples."""
        del train
        answers = [int(e.answer or 0) for e in examples]
        best = min(
            range(LEAST_COUNT, MOST_COUNT + 1),
            key=lambda count: count_error([count] * len(answers), answers),
        )
        return [self.question_record(example, best) for example in examples]

    def shown(self, record: Record) -> Shown:
        return Shown(
            asked=record["question"],
            given=str(record["prediction"]),
            right=str(record["answer"]),
            is_right=bool(record["prediction"] == max(int(record["answer"] or 0), LEAST_COUNT)),
        )

    def ask(self, video_id: str, question: str, candidates: Sequence[str] = ()) -> QuestionExample:
        del candidates
        return QuestionExample("asked", video_id, question)
