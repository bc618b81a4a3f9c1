"""What tasks about sentences for whole videos have in common: which sentences there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from vlpipe.models.tasks.task import Clip, Task, TaskSettings
from vlpipe.stores.datasets import Dataset, SentencePair
from vlpipe.stores.errors import UsageError


@runtime_checkable
class HasSentencePairs(Protocol):
    """A dataset with sentences about videos; `pair_splits`, if it has that, names their splits."""

    def sentence_pairs(self, split: str) -> list[SentencePair]: ...


@dataclass(frozen=True, slots=True)
class SentenceExample:
    """A sentence and the video that it tells about; the id is that of the row, not of the clip."""

    id: str
    video_id: str
    sentence: str

    @property
    def clips(self) -> tuple[Clip, ...]:
        return (Clip(self.video_id),)


class SentenceTask(Task[SentenceExample]):
    """A task whose examples are sentences; `words` are those of its vocabulary."""

    settings: TaskSettings

    @classmethod
    def splits(cls, dataset: Dataset) -> tuple[str, ...]:
        if not isinstance(dataset, HasSentencePairs):
            raise UsageError(
                f"dataset {dataset.name!r} has no sentences for {cls.name}",
                hint="docs/training.md lists the tasks of each dataset",
            )
        return tuple(getattr(dataset, "pair_splits", ("train", "test")))

    @classmethod
    def read_examples(cls, dataset: Dataset, split: str) -> list[SentenceExample]:
        known = cls.splits(dataset)
        if split not in known:
            raise UsageError(
                f"the sentences of dataset {dataset.name!r} have no split {split!r}; "
                f"they have: {', '.join(known)}"
            )
        pairs = cls.pairs_of(dataset, split)
        return [SentenceExample(pair.key, pair.video_id, pair.sentence) for pair in pairs]

    @classmethod
    def pairs_of(cls, dataset: Dataset, split: str) -> Sequence[SentencePair]:
        """The rows of a split that the dataset has."""
        return cast(HasSentencePairs, dataset).sentence_pairs(split)

    def to_json(self) -> dict[str, Any]:
        return {"settings": self.settings.model_dump(mode="json"), "words": list(self.words())}
