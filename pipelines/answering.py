"""Answers of a trained run to questions that stand in no annotation."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlpipe.models.tasks import Record
from vlpipe.models.tasks.question_answering import QuestionAnswering
from vlpipe.pipelines.media_features import features_like
from vlpipe.pipelines.training.data import ExampleDataset, PreparedVideos, batch_loader
from vlpipe.pipelines.training.devices import choose_device
from vlpipe.pipelines.training.material import Material, open_material
from vlpipe.pipelines.training.run_folder import RunFolder, load_model
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import UsageError


@dataclass(frozen=True)
class Answer:
    """answer: in words. record: all that the task says of it, such as the scores."""

    video: str
    question: str
    answer: str
    record: Record

    def to_json(self) -> dict[str, Any]:
        return {
            "video": self.video,
            "question": self.question,
            "answer": self.answer,
            "details": self.record,
        }


def answer_question(
    path: Path, video: str, question: str, candidates: Sequence[str] = (), *, device: str = "auto"
) -> Answer:
    """What the run's best model answers about a video of its store, or about a media file.

    video: an id, or the path of a file; of a file the features are made as those of the run were.
    Raises UsageError when the run answers no questions, or the video is neither.
    """
    run = RunFolder(path)
    material = open_material(run)
    model, task = load_model(run.best)
    if not isinstance(task, QuestionAnswering):
        raise UsageError(f"run {path} learnt {task.name}, which answers no questions")
    if not question.strip():
        raise UsageError("the question is empty")
    with tempfile.TemporaryDirectory() as folder:
        video_id, store = _find_video(material, video, Path(folder) / "store", device)
        known = (example for part in material.splits.values() for example in part)
        example = task.beside(task.ask(video_id, question, candidates), known)
        videos = PreparedVideos(store, material.slots, material.model, material.config, 0)
        data = ExampleDataset([example], videos)
        (batch,) = batch_loader(data, task, [[0]], workers=0)
    chosen = choose_device(device)
    with torch.no_grad():
        outputs = model.to(chosen)(**batch.to(chosen).inputs)
    (record,) = task.decode(outputs, batch)
    return Answer(video, question, task.shown(record).given, record)


def _find_video(
    material: Material, video: str, temporary: Path, device: str
) -> tuple[str, FeatureStore]:
    readers = [material.store[feature] for feature in material.slots.values()]
    if all(video in reader for reader in readers):
        return video, material.store
    path = Path(video)
    if path.is_file():
        found = features_like(material, [path], temporary, device=device)
        if found.failed:
            raise UsageError(f"{path}: {found.failed[path]}")
        return found.ids[path], found.store
    raise UsageError(
        f"{video!r} is neither a video of {material.store.url} with all features of the run, nor a "
        "media file",
        hint="vlpipe store ls STORE --videos lists what there is",
    )
