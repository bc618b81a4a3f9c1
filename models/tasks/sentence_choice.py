"""Multiple choice among sentences: which of five tells about a video (LSMDC, MSR-VTT)."""

import csv
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, cast, runtime_checkable

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from vlpipe.models.layers.ranking_losses import MARGIN, choice_loss
from vlpipe.models.tasks.multiple_choice import MultipleChoiceTask
from vlpipe.models.tasks.question_answering import QuestionExample, QuestionSettings
from vlpipe.models.tasks.question_text import Vocabulary, clean
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.task import Batch, Record, TaskSettings
from vlpipe.stores.datasets import Dataset, SentenceChoice
from vlpipe.stores.errors import UsageError


@runtime_checkable
class HasSentenceChoices(Protocol):
    """A dataset with sentences to choose among. `choice_splits`, if it has that, names their
    splits; `first_choice` is the number of the first sentence in its own files, else 0."""

    def sentence_choices(self, split: str) -> list[SentenceChoice]: ...


class SentenceChoiceSettings(QuestionSettings):
    """max_words: sentences are cut there. least_count: rarer words of the training sentences are
    left out, there and in those of other splits (4 for LSMDC).
    num_random: so many sentences of the same batch are wrong ones too (public code: 0).
    margin: of the loss, in scores."""

    max_words: PositiveInt = 40
    num_random: NonNegativeInt = 5
    margin: PositiveFloat = MARGIN


@register_task("mc")
class SentenceChoiceTask(MultipleChoiceTask):
    """The highest score wins. In training the right sentences of the next examples of the batch are
    wrong ones besides the given four, unless they tell about the same video or are the same."""

    description: ClassVar[str] = "which of five sentences tells about a video: accuracy"
    question_task: ClassVar[str] = "mc"
    Settings: ClassVar[type[TaskSettings]] = SentenceChoiceSettings

    def __init__(
        self, settings: QuestionSettings, vocabulary: Vocabulary, first_choice: int = 0
    ) -> None:
        super().__init__(settings, vocabulary)
        self.first_choice = first_choice

    @classmethod
    def splits(cls, dataset: Dataset) -> tuple[str, ...]:
        splits = tuple(getattr(dataset, "choice_splits", ("train", "test")))
        if not isinstance(dataset, HasSentenceChoices) or not splits:
            raise UsageError(
                f"dataset {dataset.name!r} has no sentences to choose among",
                hint="docs/training.md lists the tasks of each dataset",
            )
        return splits

    @classmethod
    def read_examples(cls, dataset: Dataset, split: str) -> list[QuestionExample]:
        cls.require_split(dataset, split)
        rows = cast(HasSentenceChoices, dataset).sentence_choices(split)
        return [cls.example_of(row) for row in rows]

    @classmethod
    def example_of(cls, row: Any) -> QuestionExample:  # noqa: ANN401 - SentenceChoice
        right = row.choices[row.answer]
        return QuestionExample(
            row.key, row.video_id, "", row.answer, candidates=row.choices, texts=(right,)
        )

    @classmethod
    def fit(
        cls, settings: TaskSettings, examples: Sequence[QuestionExample], dataset: Dataset
    ) -> Self:
        assert isinstance(settings, SentenceChoiceSettings)
        first_choice = int(getattr(dataset, "first_choice", 0))
        return cls(settings, cls.vocabulary_of(settings, examples), first_choice)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"first_choice": self.first_choice}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        settings = SentenceChoiceSettings(**value["settings"])
        return cls(settings, Vocabulary(tuple(value["words"])), int(value["first_choice"]))

    def encode(self, example: QuestionExample) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`words`, int64 (K, max_words), `word_len`, int64 (K,), and `answer`, int64 ()."""
        encoded = [
            self.vocabulary.encode(text, self.settings.max_words, keeps_unknown=False)
            for text in example.candidates
        ]
        rows, lengths = zip(*encoded, strict=True)
        answer = int(example.answer or 0)
        inputs = {"words": torch.stack(rows), "word_len": torch.stack(lengths)}
        return inputs, {"answer": torch.tensor(answer), "sentence": rows[answer]}

    def sentences_of(self, examples: Iterable[QuestionExample]) -> Iterator[Sequence[str]]:
        return (clean(e.candidates[int(e.answer or 0)]).split() for e in examples)

    def collate(
        self, items: Sequence[tuple[QuestionExample, Sequence[Mapping[str, Tensor]]]]
    ) -> Batch[QuestionExample]:
        """Behind the K sentences of each video stand up to num_random of the batch. Target
        `is_counted`, bool (B, K + R): False for those of them that are no mistake."""
        batch = super().collate(items)
        words, word_len = batch.inputs["words"], batch.inputs["word_len"]  # (B, K, M), (B, K)
        every = torch.arange(len(words))
        settings = cast(SentenceChoiceSettings, self.settings)
        num_random = min(settings.num_random, len(words) - 1)
        places = (every[:, None] + torch.arange(1, num_random + 1)) % len(words)  # (B, R)
        answer = batch.targets["answer"]
        right = words[every, answer]  # (B, M)
        is_same = (right[places] == right[:, None]).all(dim=-1)
        videos = [example.video_id for example in batch.examples]
        numbers = torch.tensor([videos.index(video) for video in videos])
        is_own = numbers[places] == numbers[:, None]
        is_wrong = ~(is_same | is_own)
        given = torch.ones(word_len.shape, dtype=torch.bool)
        inputs = {
            "words": torch.cat([words, right[places]], dim=1),
            "word_len": torch.cat([word_len, word_len[every, answer][places]], dim=1),
        }
        targets = {"is_counted": torch.cat([given, is_wrong], dim=1)}
        return Batch(batch.examples, batch.inputs | inputs, batch.targets | targets)

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch[QuestionExample]) -> Tensor:
        targets = batch.targets
        settings = cast(SentenceChoiceSettings, self.settings)
        return choice_loss(
            outputs["logits"],
            targets["answer"],
            is_counted=targets["is_counted"],
            margin=settings.margin,
        )

    def predict(self, model: nn.Module, batches: Iterable[Batch[QuestionExample]]) -> list[Record]:
        """Of the given sentences alone."""
        return super().predict(model, (_given_alone(batch) for batch in batches))

    def baseline(
        self, train: Sequence[QuestionExample], examples: Sequence[QuestionExample]
    ) -> list[Record]:
        """A drawn place: without the video nothing is known."""
        del train
        return [
            self.question_record(e, random.Random(e.id).randrange(len(e.candidates)))
            for e in examples
        ]

    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        """The form of the benchmark's table, the answer's column holding what was predicted. It
        counts as the benchmark's files do: from 0 in JSFusion's, from 1 in LSMDC's."""
        path = folder / f"predictions-{split}.tsv"
        most = max((len(record["candidates"]) for record in records), default=0)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            names = [f"a{number}" for number in range(1, most + 1)]
            writer.writerow(("key", "video_id", *names, "answer"))
            for record in records:
                answer = record["prediction"] + self.first_choice
                writer.writerow((record["id"], record["video_id"], *record["candidates"], answer))
        return path


def _given_alone(batch: Batch[QuestionExample]) -> Batch[QuestionExample]:
    most = len(batch.examples[0].candidates)
    inputs = {name: batch.inputs[name][:, :most] for name in ("words", "word_len")}
    return Batch(batch.examples, batch.inputs | inputs, batch.targets)
