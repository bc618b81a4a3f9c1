"""Classification: which actions happen in a video, any number of them (Charades).

An example is a video. Each of its rows of features is a clip with its own labels; training reads
clips that do not overlap, evaluation takes for each class the clip that shows it best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor

from vlpipe.models.clip_labels import clip_labels, clips_at_stride, consecutive_clips
from vlpipe.models.metrics.classification import mean_average_precision
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.task import Batch, Clip, Record, Shown, Task, TaskSettings
from vlpipe.stores.datasets import Action, ActionClass, ActionVideo, Dataset
from vlpipe.stores.errors import UsageError

_SPANS = "spans"


@runtime_checkable
class HasActions(Protocol):
    """A dataset with actions in videos."""

    action_splits: tuple[str, ...]

    def action_classes(self) -> tuple[ActionClass, ...]: ...
    def actions(self, split: str) -> list[ActionVideo]: ...


@dataclass(frozen=True, slots=True)
class ActionExample:
    """A video and the actions in it."""

    id: str
    actions: tuple[Action, ...] = ()

    @property
    def clips(self) -> tuple[Clip, ...]:
        return (Clip(self.id),)


class ClassificationSettings(TaskSettings):
    """pos_weight: what a class that is there counts for in the loss, one that is not counts 1.
    stride_s: evaluation takes the clips that begin at 0, stride_s, 2 stride_s, ...; None: all that
    are stored. top: how many of the most likely classes records name for people."""

    pos_weight: float = Field(default=2.0, gt=0)
    stride_s: float | None = Field(default=None, gt=0)
    top: PositiveInt = 5


@register_task("classification")
class ClassificationTask(Task[ActionExample]):
    """Binary cross entropy of each class and clip; a video's score of a class is the greatest of
    its clips'.

    Models get the clips of all videos of a batch as one list: inputs have N clips in front, which
    `video` among the targets leads back to the examples, and give `logits` (N, classes).
    """

    description: ClassVar[str] = "which actions happen in a video: mean average precision"
    figure: ClassVar[str] = "mAP"
    Settings: ClassVar[type[TaskSettings]] = ClassificationSettings

    def __init__(self, settings: ClassificationSettings, classes: Sequence[ActionClass]) -> None:
        self.settings = settings
        self.classes = tuple(classes)

    @classmethod
    def splits(cls, dataset: Dataset) -> tuple[str, ...]:
        if not isinstance(dataset, HasActions):
            raise UsageError(
                f"dataset {dataset.name!r} has no actions to classify",
                hint="docs/training.md lists the tasks of each dataset",
            )
        return dataset.action_splits

    @classmethod
    def read_examples(cls, dataset: Dataset, split: str) -> list[ActionExample]:
        known = cls.splits(dataset)
        if split not in known:
            raise UsageError(
                f"the actions of dataset {dataset.name!r} have no split {split!r}; "
                f"they have: {', '.join(known)}"
            )
        assert isinstance(dataset, HasActions)
        return [ActionExample(video.video_id, video.actions) for video in dataset.actions(split)]

    @classmethod
    def fit(
        cls, settings: TaskSettings, examples: Sequence[ActionExample], dataset: Dataset
    ) -> Self:
        del examples
        assert isinstance(settings, ClassificationSettings)
        assert isinstance(dataset, HasActions)
        return cls(settings, dataset.action_classes())

    def to_json(self) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump(mode="json"),
            "classes": [[known.code, known.name] for known in self.classes],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        settings = ClassificationSettings(**value["settings"])
        return cls(settings, [ActionClass(code, name) for code, name in value["classes"]])

    def model_settings(self) -> dict[str, Any]:
        return {"num_classes": len(self.classes)}

    def encode(self, example: ActionExample) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Nothing: what is known of a video belongs to its clips; see `collate`."""
        del example
        return {}, {}

    def collate(
        self, items: Sequence[tuple[ActionExample, Sequence[Mapping[str, Tensor]]]]
    ) -> Batch[ActionExample]:
        """Inputs: what the model prepared, the clips of all videos behind each other, (N, ...).

        A model prepares `spans` besides, float64 [T, 2] seconds of the T clips of the video; they
        are no input. Targets: `video`, int64 (N,), which example a clip is of; `label`, float32
        (N, classes); `is_trained` and `is_scored`, bool (N,), whether training and evaluation read
        the clip.
        """
        inputs: dict[str, list[Tensor]] = {}
        targets: dict[str, list[Tensor]] = {}
        for place, (example, (video,)) in enumerate(items):
            spans = video[_SPANS].numpy()  # [T, 2]
            at_stride = clips_at_stride(spans, self.settings.stride_s, video_id=example.id)
            labels = clip_labels(example.actions, spans, len(self.classes))
            for name, array in (
                ("video", np.full(len(spans), place)),
                ("label", labels),
                ("is_trained", consecutive_clips(spans)),
                ("is_scored", at_stride),
            ):
                targets.setdefault(name, []).append(torch.from_numpy(array))
            for name, tensor in video.items():
                if name != _SPANS:
                    inputs.setdefault(name, []).append(tensor)
        return Batch(tuple(example for example, _ in items), _joined(inputs), _joined(targets))

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch[ActionExample]) -> Tensor:
        """The mean over the batch's training clips and over the classes."""
        is_trained = batch.targets["is_trained"]
        logits = outputs["logits"].float()[is_trained]
        weight = logits.new_tensor(self.settings.pos_weight)
        return F.binary_cross_entropy_with_logits(
            logits, batch.targets["label"][is_trained], pos_weight=weight
        )

    def decode(self, outputs: Mapping[str, Tensor], batch: Batch[ActionExample]) -> list[Record]:
        """A record a video; `scores` are those of all classes in their order, 0..1."""
        scores = outputs["logits"].float().sigmoid()  # (N, classes)
        video, is_scored = batch.targets["video"], batch.targets["is_scored"]
        return [
            self._record(example, scores[(video == place) & is_scored].amax(dim=0))
            for place, example in enumerate(batch.examples)
        ]

    def _record(self, example: ActionExample, scores: Tensor) -> Record:
        best = scores.topk(min(self.settings.top, len(self.classes)))
        present = sorted({action.place for action in example.actions})
        named = {self.classes[place].name: score for place, score in _pairs(best)}
        return {
            "id": example.id,
            "video_id": example.id,
            "prediction": next(iter(named)),
            "answer": [self.classes[place].name for place in present],
            "best": named,
            "labels": present,
            "scores": scores.tolist(),
        }

    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        """`mAP` in percent as the benchmark counts it, with videos without labels last, and
        `mAP/unlabelled_ranked` with them at their scores, as the experiments of 2024 count."""
        scores = np.array([record["scores"] for record in records])
        labels = np.zeros(scores.shape, bool)
        for row, record in enumerate(records):
            labels[row, record["labels"]] = True
        if not labels.any():
            raise UsageError(
                f"none of the {len(records)} videos has an annotated action: there is no mAP",
                hint="take more videos, or another seed where validation is drawn from train",
            )
        return {
            "mAP": mean_average_precision(scores, labels, unlabelled_last=True),
            "mAP/unlabelled_ranked": mean_average_precision(scores, labels),
        }

    def shown(self, record: Record) -> Shown:
        """The most likely classes with their scores; right is a video whose first one is there,
        and what is annotated besides them then stands behind them."""
        is_right = record["prediction"] in record["answer"]
        given = [
            f"{name} {score:.2f}" + (" (annotated)" if name in record["answer"] else "")
            for name, score in record["best"].items()
        ]
        missed = [name for name in record["answer"] if name not in record["best"]]
        if is_right and missed:
            given.append(f"also annotated: {', '.join(missed)}")
        return Shown(
            asked="",
            given="; ".join(given),
            right="; ".join(record["answer"]) or "no action",
            is_right=is_right,
        )

    def baseline(
        self, train: Sequence[ActionExample], examples: Sequence[ActionExample]
    ) -> list[Record]:
        """For every video the share of training videos that a class is in."""
        counts = torch.zeros(len(self.classes))
        for example in train:
            counts[list({action.place for action in example.actions})] += 1
        return [self._record(example, counts / len(train)) for example in examples]

    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        """The benchmark's form: a line a video, its id and the scores of all classes in order."""
        path = folder / f"predictions-{split}.txt"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for record in records:
                scores = " ".join(f"{score:.8g}" for score in record["scores"])
                file.write(f"{record['video_id']} {scores}\n")
        return path


def _joined(tensors: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat(list(parts)) for name, parts in tensors.items()}


def _pairs(best: Any) -> list[tuple[int, float]]:  # noqa: ANN401 - torch.return_types.topk
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
