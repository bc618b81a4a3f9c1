"""What a run works on: model, fitted task, examples of each split, features of one snapshot."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlpipe.models import Model, ModelConfig, create_model, find_model
from vlpipe.models.feature_slot import require_fitting_rows
from vlpipe.models.registry import parse_config
from vlpipe.models.tasks import Task, find_task
from vlpipe.models.tasks.registry import parse_task_settings
from vlpipe.models.word_vectors import read_word_vectors
from vlpipe.pipelines.training.data import (
    Available,
    PreparedVideos,
    available_examples,
    require_examples,
)
from vlpipe.pipelines.training.job import TrainingJob, TrainingSettings
from vlpipe.pipelines.training.run_folder import RUN_VERSION, RunFolder, code_version, load_model
from vlpipe.stores import FeatureStore
from vlpipe.stores.datasets import Dataset, open_dataset
from vlpipe.stores.errors import UsageError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_VALIDATION_NAMES = ("val", "validation", "val_1")


@dataclass(frozen=True)
class Material:
    """All that training and evaluation read. splits: name -> examples that have features."""

    job: TrainingJob
    model: type[Model]
    config: ModelConfig
    task: Task[Any]
    slots: dict[str, str]
    splits: dict[str, tuple[Any, ...]]
    store: FeatureStore
    pin_name: str

    def videos(self) -> PreparedVideos:
        """The features of the snapshot as the model wants them."""
        limit = self.job.settings.cache_mb * 2**20
        return PreparedVideos(self.store, self.slots, self.model, self.config, limit)

    def build_model(self) -> Model:
        """The network as training begins: fresh, with word vectors and what init_from gives."""
        settings = self.job.settings
        model = create_model(
            self.model.name, task=self.task.name, **self.config.model_dump(mode="json")
        )
        if settings.word_vectors is not None:
            _fill_words(model, self.task, settings.word_vectors)
        if settings.init_from is not None:
            take_over(model, self.task, settings.init_from)
        model.require_given_weights()
        return model


@dataclass(frozen=True)
class Survey:
    """What a run of a job would read, before anything of it is written.

    job: with its settings resolved. examples: our names of splits -> what has features and what has
    not; without a validation split where the dataset has none.
    """

    job: TrainingJob
    model: type[Model]
    task: Task[Any]
    store: FeatureStore
    slots: dict[str, str]
    examples: dict[str, Available]


def survey_job(job: TrainingJob) -> Survey:
    """Reads annotations and the newest version of the store, and fits the task.

    Raises UsageError for names and settings that do not fit, and where no example has features.
    """
    model, task_class = find_model(job.model), find_task(job.task)
    if job.task not in model.tasks:
        raise UsageError(
            f"model {job.model!r} does not solve the task {job.task!r}",
            hint=f"its tasks: {', '.join(model.tasks)}",
        )
    settings = job.settings.resolved(model, job.task)
    job = job.model_copy(update={"settings": settings, "root": job.root.absolute()})
    dataset = open_dataset(job.dataset, job.root)
    store = FeatureStore.open(job.store)
    own = parse_config(model, settings.model)
    slots = settings.slots(model, own)
    parts = _read_splits(task_class, dataset)
    task = task_class.fit(parse_task_settings(task_class, settings.task), parts[TRAIN], dataset)
    found = {
        name: available_examples(examples, store, slots, model) for name, examples in parts.items()
    }
    require_examples(found[TRAIN], TRAIN, store)
    to_fit = {slot: slots[slot] for slot in task_class.slots_to_fit if slot in slots}
    if to_fit:
        videos = PreparedVideos(store, to_fit, model, own, 0)
        names = dict.fromkeys(c.video_id for e in found[TRAIN].examples for c in e.clips)
        task = task.fit_features(videos.features(name) for name in names)
    return Survey(job, model, task, store, slots, found)


def prepare_run(job: TrainingJob, earlier: RunFolder | None = None) -> RunFolder:
    """Makes the folder of a run: reads annotations, fits the task, parts the examples, pins the
    newest version of the store, and writes down all of it.

    earlier: a run whose parting into train and validation is kept, so that the two can be compared
    on examples that neither has learnt. Raises UsageError as `survey_job` does.
    """
    return _write_run(survey_job(job), earlier)


def _write_run(survey: Survey, earlier: RunFolder | None) -> RunFolder:
    job, model, task, store, slots = (
        survey.job, survey.model, survey.task, survey.store, survey.slots
    )  # fmt: skip
    settings = job.settings
    ids = {name: [e.id for e in part.examples] for name, part in survey.examples.items()}
    validation_from = "the dataset"
    if not ids.get(VALIDATION):
        before = {} if earlier is None else earlier.read_json("splits.json")["ids"]
        ids |= _drawn(survey.examples[TRAIN], settings, before)
        validation_from = (
            f"{settings.validation_share:.0%} of train, by {settings.validation_by}, drawn with "
            "the run's seed"
        )
        if earlier is not None:
            validation_from += f", as in {earlier.path.name} where that had the example"
    own = parse_config(model, settings.model)
    # A task tells more than every model of it wants to know.
    known = {k: v for k, v in task.model_settings().items() if k in model.Config.model_fields}
    row_shapes = {slot: store[feature].info.row_shape for slot, feature in slots.items()}
    require_fitting_rows(model.name, model.slots, slots, row_shapes)
    derived = known | model.settings_for(own, row_shapes)
    told = task.sentences_of(survey.examples[TRAIN].examples)
    derived |= model.settings_from_sentences(own, task.words(), told)
    config = parse_config(model, derived | settings.model)
    run = RunFolder(job.out)
    run.create()
    run.write_json("task.json", task.to_json())
    run.write_json("splits.json", {"validation_from": validation_from, "ids": ids})
    shown_name = re.sub(r"[^A-Za-z0-9._-]", "-", job.out.absolute().name)[:64]
    pin_name = f"run-{shown_name}-{store.version}"
    run.write_json(
        "run.json",
        {
            "run_version": RUN_VERSION,
            "status": "prepared",
            "job": job.model_dump(mode="json"),
            "model_config": config.model_dump(mode="json"),
            "slots": slots,
            "store": {
                "url": store.url,
                "version": store.version,
                "pin": pin_name,
                "features": {
                    feature: {
                        "generation": store[feature].info.generation,
                        "digest": store.digest(feature),
                        "is_untrained": store[feature].info.is_untrained,
                        "weights": store[feature].info.definition.weights,
                    }
                    for feature in dict.fromkeys(slots.values())
                },
            },
            "examples": {name: len(of_split) for name, of_split in ids.items()},
            "left_out": {name: list(part.left_out) for name, part in survey.examples.items()},
            "code": code_version(),
        },
    )
    return run


def open_material(run: RunFolder) -> Material:
    """What a prepared run works on; UsageError if the annotations have changed since."""
    facts = run.read_facts()
    job = TrainingJob.model_validate(facts["job"])
    model = find_model(job.model)
    task = run.task()
    dataset = open_dataset(job.dataset, job.root)
    parts = _read_splits(type(task), dataset)
    # Ids are looked up in their own split: in another one the same id may be another example.
    by_split = {name: {e.id: e for e in examples} for name, examples in parts.items()}
    ids = run.read_json("splits.json")["ids"]
    known = {name: by_split.get(name) or by_split[TRAIN] for name in ids}
    for name, wanted in ids.items():
        gone = [example_id for example_id in wanted if example_id not in known[name]]
        if gone:
            raise UsageError(
                f"{len(gone)} {name} examples of {run.path} are not in {job.root} any more, the "
                f"first is {gone[0]!r}",
                hint="train again on the annotations as they are",
            )
    stored = facts["store"]
    return Material(
        job=job,
        model=model,
        config=parse_config(model, facts["model_config"]),
        task=task,
        slots=facts["slots"],
        splits={name: tuple(known[name][i] for i in wanted) for name, wanted in ids.items()},
        store=FeatureStore.open(stored["url"], stored["version"]),
        pin_name=stored["pin"],
    )


def _read_splits(task: type[Task[Any]], dataset: Dataset) -> dict[str, list[Any]]:
    """Our names of splits -> all their examples."""
    parts = {}
    for split in task.splits(dataset):
        name = VALIDATION if split in _VALIDATION_NAMES else split
        parts[name] = task.read_examples(dataset, split)
    return parts


def _drawn(
    train: Available, settings: TrainingSettings, before: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """The ids of train and validation; both keep the order of the file.

    before: ids by split of an earlier run, whose sides they keep; the others are drawn.
    """
    groups: dict[str, list[str]] = {}
    for example in train.examples:
        is_by_video = settings.validation_by == "video"
        key = "\n".join(clip.video_id for clip in example.clips) if is_by_video else example.id
        groups.setdefault(key, []).append(example.id)
    sides = {name: set(before.get(name, ())) for name in (TRAIN, VALIDATION)}
    kept = {key for key, ids in groups.items() if not sides[VALIDATION].isdisjoint(ids)}
    fresh = [key for key, ids in groups.items() if key not in kept]
    fresh = [key for key in fresh if sides[TRAIN].isdisjoint(groups[key])]
    count = round(len(fresh) * settings.validation_share)
    if not kept:
        count = max(1, count)
    if count + len(kept) >= len(groups) or count > len(fresh):
        raise UsageError(
            f"{len(groups)} {settings.validation_by}s to train on are too few to take "
            f"{settings.validation_share:.0%} for validation"
        )
    # Python's generator gives the same choice on every platform and version.
    drawn = kept | set(random.Random(settings.seed).sample(fresh, count))
    taken = {e for key in drawn for e in groups[key]}
    return {
        TRAIN: [e.id for e in train.examples if e.id not in taken],
        VALIDATION: [e.id for e in train.examples if e.id in taken],
    }


def _fill_words(model: Model, task: Task[Any], path: Path) -> None:
    layer = model.word_embedding
    if layer is None:
        raise UsageError(f"model {model.name!r} has no layer for word vectors")
    found = read_word_vectors(path, task.words())
    if found.width != layer.embedding_dim:
        raise UsageError(
            f"the vectors of {path} have {found.width} numbers, model {model.name!r} takes "
            f"{layer.embedding_dim}",
            hint=f"--set model.word_width={found.width}",
        )
    with torch.no_grad():
        rows = torch.from_numpy(found.places)
        layer.weight[rows] = torch.from_numpy(found.vectors)


def take_over(model: Model, task: Task[Any], source: Path) -> int:
    """Copies entries of equal name and shape from a run or a checkpoint; how many comes back.

    Of a run the vectors of words that both vocabularies have are taken word by word.
    UsageError if no entry fits: then the source is of another kind of model.
    """
    from vlpipe.models.published_files import read_state_dict

    path = RunFolder(source).best if source.is_dir() else source
    found, own = read_state_dict(path), model.state_dict()
    if not source.is_dir():
        found = {model.own_entry(key): value for key, value in found.items()}
    fitting = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise UsageError(f"{path} has no entry in common with model {model.name!r}")
    layer = model.word_embedding
    fresh = None if layer is None else layer.weight.detach().clone()
    model.load_state_dict(fitting, strict=False)
    if source.is_dir() and layer is not None and fresh is not None:
        other, other_task = load_model(path)
        layer.weight.data.copy_(fresh)  # equal sizes are not equal vocabularies
        _take_words(layer, task, other.word_embedding, other_task)
    return len(fitting)


def _take_words(
    layer: nn.Embedding, task: Task[Any], other: nn.Embedding | None, other_task: Task[Any]
) -> None:
    if other is None or other.embedding_dim != layer.embedding_dim:
        return
    places = {word: place for place, word in enumerate(other_task.words())}
    with torch.no_grad():
        for place, word in enumerate(task.words()):
            if word in places:
                layer.weight[place] = other.weight[places[word]]
