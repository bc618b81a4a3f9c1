"""Answers of a trained run to questions that stand in no annotation."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlpipe.models.tasks import Record
from vlpipe.models.tasks.question_answering import QuestionAnswering
from vlpipe.pipelines.training.data import ExampleDataset, PreparedVideos, batch_loader
from vlpipe.pipelines.training.evaluation import choose_device
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
        example = task.ask(video_id, question, candidates)
        videos = PreparedVideos(store, material.slots, material.model, material.config, 0)
        data = ExampleDataset([example], videos)
        (batch,) = batch_loader(data, task, [[0]], workers=0)
    chosen = choose_device(device)
    with torch.no_grad():
        outputs = model.to(chosen)(**batch.to(chosen).inputs)
    (record,) = task.decode(outputs, batch)
    return Answer(video, question, task.spoken(record), record)


def _find_video(
    material: Material, video: str, temporary: Path, device: str
) -> tuple[str, FeatureStore]:
    readers = [material.store[feature] for feature in material.slots.values()]
    if all(video in reader for reader in readers):
        return video, material.store
    path = Path(video)
    if path.is_file():
        return extract_like(material, path, temporary, device)
    raise UsageError(
        f"{video!r} is neither a video of {material.store.url} with all features of the run, nor a "
        "media file",
        hint="vlpipe store info STORE lists what there is",
    )


def extract_like(
    material: Material, path: Path, store: Path, device: str
) -> tuple[str, FeatureStore]:
    """Makes the features of one file as those of the run's snapshot were made: its id and store.

    Raises UsageError if they cannot be made so, or turn out to be of another generation.
    """
    from vlpipe.pipelines.extraction.extract import run_extraction
    from vlpipe.pipelines.extraction.job import ExtractionJob

    wanted = {name: material.store[name].info for name in dict.fromkeys(material.slots.values())}
    names, settings, weights = _extractors({n: i.provenance for n, i in wanted.items()})
    dtypes = {info.dtype for info in wanted.values()}
    job = ExtractionJob.model_validate(
        {
            "paths": (path.absolute(),),
            "store": str(store),
            "features": names,
            "settings": settings,
            "weights": weights,
            "device": "cpu" if device == "auto" else device,
            "store_dtype": dtypes.pop() if len(dtypes) == 1 else "float16",
        }
    )
    summary = run_extraction(job)
    if summary.failed:
        raise UsageError(f"{path}: {summary.failed[0].message}")
    made = FeatureStore.open(store)
    for name, info in wanted.items():
        if name not in made or made[name].info.generation != info.generation:
            raise UsageError(
                f"{name} of {path} cannot be made as the run's were: generation "
                f"{info.generation} was read in training",
                hint="extract the file into the run's store with the same options, and ask by id",
            )
    (video_id,) = made[next(iter(wanted))].ids()
    return video_id, made


def _extractors(
    provenances: Mapping[str, Mapping[str, Any]],
) -> tuple[tuple[str, ...], dict[str, dict[str, Any]], dict[str, str]]:
    """Extractors, their settings and weights, of the provenance of features."""
    from vlpipe.extractors.registry import find_extractor

    settings: dict[str, dict[str, Any]] = {}
    weights: dict[str, str] = {}
    for feature, provenance in provenances.items():
        try:
            name, config = provenance["extractor"]["name"], provenance["config"]
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"{feature} was not made by an extractor of vlpipe, so that it cannot be made of "
                "another file",
                hint="ask about a video of the run's store, by its id",
            ) from error
        own = settings.setdefault(name, dict(config))
        if "outputs" in find_extractor(name).Config.model_fields:
            own["outputs"] = (*own.get("outputs", ()), provenance["output"])
        if provenance.get("weights", {}).get("untrained"):
            weights[name] = "untrained"
    return tuple(settings), settings, weights
