"""Multiple choice: repeated actions and state transitions, five candidates each (TGIF-QA)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from vlpipe.models.layers.answers import MULTIPLE_CHOICE
from vlpipe.models.metrics.question_answering import accuracy
from vlpipe.models.tasks.question_answering import QuestionAnswering, QuestionExample
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.task import Batch, Record, Shown
from vlpipe.stores.errors import UsageError


class MultipleChoiceTask(QuestionAnswering):
    """Each candidate is read as the sentence "question candidate"; the highest score wins."""

    figure: ClassVar[str] = "accuracy"
    kind: ClassVar[str] = MULTIPLE_CHOICE

    @classmethod
    def example_of(cls, row: Any) -> QuestionExample:  # noqa: ANN401 - MultipleChoiceQuestion
        return QuestionExample(
            row.vid_id, row.gif_name, row.question, row.answer, candidates=tuple(row.choices)
        )

    def encode(self, example: QuestionExample) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        rows, lengths = zip(
            *(
                self.vocabulary.encode(
                    f"{example.question} {candidate.strip()}", self.settings.max_words
                )
                for candidate in example.candidates
            ),
            strict=True,
        )
        answer = torch.tensor(int(example.answer or 0))
        return (
            {"candidates": torch.stack(rows), "candidates_length": torch.stack(lengths)},
            {"answer": answer},
        )

    def decode(self, outputs: Mapping[str, Tensor], batch: Batch[QuestionExample]) -> list[Record]:
        scores = outputs["logits"].float().tolist()
        places = outputs["predictions"].tolist()
        return [
            self.question_record(example, place) | {"scores": row}
            for example, place, row in zip(batch.examples, places, scores, strict=True)
        ]

    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        return {
            "accuracy": accuracy([r["prediction"] for r in records], [r["answer"] for r in records])
        }

    def baseline(
        self, train: Sequence[QuestionExample], examples: Sequence[QuestionExample]
    ) -> list[Record]:
        """Of the candidates the one that was right most often in training."""
        right = Counter(e.candidates[int(e.answer or 0)] for e in train)
        return [
            self.question_record(
                e, max(range(len(e.candidates)), key=lambda place: right[e.candidates[place]])
            )
            for e in examples
        ]

    def ask(self, video_id: str, question: str, candidates: Sequence[str] = ()) -> QuestionExample:
        if len(candidates) < 2:
            raise UsageError(
                f"the task {self.name!r} chooses among candidates, and {len(candidates)} are given",
                hint='--choice "…" for each of two or more',
            )
        return QuestionExample("asked", video_id, question, candidates=tuple(candidates))

    def shown(self, record: Record) -> Shown:
        choices, answer = tuple(record["candidates"]), record["answer"]
        return Shown(
            asked=record["question"],
            given=choices[record["prediction"]],
            right="" if answer is None else choices[answer],
            is_right=bool(record["prediction"] == answer),
            choices=choices,
        )


@register_task("action")
class ActionTask(MultipleChoiceTask):
    """What is done a given number of times."""

    description: ClassVar[str] = "what is done so many times, of five candidates: accuracy"
    question_task: ClassVar[str] = "action"


@register_task("transition")
class TransitionTask(MultipleChoiceTask):
    """What happens before or after something else."""

    description: ClassVar[str] = "what happens before or after, of five candidates: accuracy"
    question_task: ClassVar[str] = "transition"
