"""What every task is: examples from annotations, tensors from examples, answers from outputs."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vlpipe.stores import Features
from vlpipe.stores.datasets import Dataset

Record = dict[str, Any]
"""What was predicted for one example, as JSON: `id`, `video_id`, `prediction`, `answer`, ..."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A video that an example is about, or a part of it: window_s is (start, end) in seconds."""

    video_id: str
    window_s: tuple[float, float] | None = None


class Example(Protocol):
    """One question, sentence, event or story. `id` is unique in its dataset and task."""

    @property
    def id(self) -> str: ...
    @property
    def clips(self) -> tuple[Clip, ...]: ...


E = TypeVar("E", bound=Example)


@dataclass(frozen=True, slots=True)
class Batch(Generic[E]):
    """inputs: what the model takes by keyword; targets: what the loss reads besides outputs."""

    examples: tuple[E, ...]
    inputs: dict[str, Tensor]
    targets: dict[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> "Batch[E]":
        """The same batch with its tensors on that device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch[E]":
        """The same batch in page-locked memory; a DataLoader calls it."""
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, change: Any) -> "Batch[E]":  # noqa: ANN401 - Tensor to Tensor
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        targets = {name: change(tensor) for name, tensor in self.targets.items()}
        return Batch(self.examples, inputs, targets)


@dataclass(frozen=True, slots=True)
class Shown:
    """A record for people to read. asked: what the model was asked, empty if that is always the
    same. given, right: its answer and the annotated one. choices: of which it chose, if any."""

    asked: str
    given: str
    right: str
    is_right: bool
    choices: tuple[str, ...] = ()


class TaskSettings(BaseModel):
    """Base of the settings of a task: frozen, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Task(ABC, Generic[E]):
    """What is asked of a model. Subclasses register with `@register_task(name)`.

    An instance is fitted: it holds what was learnt from the training examples before any network
    sees them (vocabularies, answer sets), which `to_json` keeps with the run.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    figure: ClassVar[str]
    """The metric by which checkpoints are chosen and runs compared."""

    is_higher_better: ClassVar[bool] = True
    is_shardable: ClassVar[bool] = True
    """Whether predictions of a part of the examples are those of the whole."""

    slots_to_fit: ClassVar[tuple[str, ...]] = ()
    """Slots of models whose features of the training videos `fit_features` wants to see."""

    Settings: ClassVar[type[TaskSettings]] = TaskSettings

    # examples

    @classmethod
    @abstractmethod
    def splits(cls, dataset: Dataset) -> tuple[str, ...]:
        """The splits that the dataset annotates for this task; UsageError if it does not at all."""

    @classmethod
    @abstractmethod
    def read_examples(cls, dataset: Dataset, split: str) -> list[E]:
        """The examples of a split in the order of its file."""

    @classmethod
    @abstractmethod
    def fit(cls, settings: TaskSettings, examples: Sequence[E], dataset: Dataset) -> Self:
        """The task as these training examples make it."""

    def fit_features(self, videos: Iterable[Mapping[str, Features]]) -> Self:
        """The same task with what it learns from features: by slot, of each training video."""
        del videos
        return self

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All that `from_json` needs, as JSON."""

    @classmethod
    @abstractmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The task that `to_json` described."""

    def model_settings(self) -> dict[str, Any]:
        """Settings of a model that follow from this task, such as the size of its vocabulary."""
        return {}

    def words(self) -> Sequence[str]:
        """The words of the vocabulary by id; empty without one. Word vectors are looked up so."""
        return ()

    def sentences_of(self, examples: Iterable[E]) -> Iterator[Sequence[str]]:
        """The tokens of what the annotations tell of each example's video; nothing by default.
        Tasks that have them give the target `sentence` as well, int64 (B, M) ids with padding."""
        del examples
        return iter(())

    def notes(self) -> Sequence[str]:
        """What a user should know of how examples are read, for the end of a training and its
        report; nothing by default."""
        return ()

    # tensors

    @abstractmethod
    def encode(self, example: E) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(inputs, targets) of one example, without the video's."""

    def collate(self, items: Sequence[tuple[E, Sequence[Mapping[str, Tensor]]]]) -> Batch[E]:
        """One batch of examples with what the model prepared of each of their clips.

        Here for tasks of one clip an example: tensors of a name are stacked; see `stack`.
        """
        inputs: dict[str, list[Tensor]] = {}
        targets: dict[str, list[Tensor]] = {}
        for example, (video,) in items:
            text, target = self.encode(example)
            for name, tensor in (video | text if isinstance(video, dict) else text).items():
                inputs.setdefault(name, []).append(tensor)
            for name, tensor in target.items():
                targets.setdefault(name, []).append(tensor)
        return Batch(tuple(example for example, _ in items), stack(inputs), stack(targets))

    # answers

    @abstractmethod
    def loss(self, outputs: Mapping[str, Tensor], batch: Batch[E]) -> Tensor:
        """The scalar that training lowers: the mean over the batch."""

    @abstractmethod
    def decode(self, outputs: Mapping[str, Tensor], batch: Batch[E]) -> list[Record]:
        """What the outputs answer, a record for each example in order."""

    def predict(self, model: nn.Module, batches: Iterable[Batch[E]]) -> list[Record]:
        """The records of all batches. Tasks whose answers need more than one pass (captions word
        by word, all pairs of two sets) replace this."""
        records: list[Record] = []
        for batch in batches:
            records += self.decode(model(**batch.inputs), batch)
        return records

    @abstractmethod
    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        """The figures of the official protocol, `figure` among them; a part's as `figure/part`."""

    def shown(self, record: Record) -> Shown:
        """A record in words, for reports."""
        return Shown(
            asked=record.get("question", ""),
            given=str(record["prediction"]),
            right=str(record["answer"]),
            is_right=bool(record["prediction"] == record["answer"]),
        )

    @abstractmethod
    def baseline(self, train: Sequence[E], examples: Sequence[E]) -> list[Record]:
        """Records of the best answers that need no video and no network."""

    def baseline_beside(
        self, records: Sequence[Record], train: Sequence[E], examples: Sequence[E]
    ) -> list[Record]:
        """The baseline of the same examples as these records, for comparison with them. Tasks whose
        answers have as many parts as features have rows replace this: records alone tell that."""
        del records
        return self.baseline(train, examples)

    @abstractmethod
    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        """Writes a file in the benchmark's own format; its path comes back."""


def stack(tensors: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """Tensors of a name as one, first axis the batch. Those whose first axes differ are padded
    with zeros at the end, and NAME_length, int64 (B,), says how many entries are real."""
    stacked = {}
    for name, parts in tensors.items():
        if len({part.shape for part in parts}) > 1:
            stacked[f"{name}_length"] = torch.tensor([len(part) for part in parts])
            stacked[name] = pad_sequence(list(parts), batch_first=True)
        else:
            stacked[name] = torch.stack(list(parts))
    return stacked
