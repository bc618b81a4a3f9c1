"""Evaluating a trained run on a split: predictions, figures, the benchmark's file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlpipe.models.tasks import Record
from vlpipe.pipelines.training.data import ExampleDataset
from vlpipe.pipelines.training.devices import choose_device
from vlpipe.pipelines.training.loop import predict
from vlpipe.pipelines.training.material import TEST, TRAIN, Material, open_material
from vlpipe.pipelines.training.run_folder import RunFolder, load_model
from vlpipe.stores.errors import UsageError


@dataclass(frozen=True)
class Evaluated:
    """Figures of a split. baseline: of answers that need no video. left_out: examples whose videos
    have no features; they are in no figure."""

    split: str
    metrics: dict[str, float]
    baseline: dict[str, float]
    num_examples: int
    num_left_out: int
    predictions: Path

    def to_json(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "metrics": self.metrics,
            "baseline": self.baseline,
            "examples": self.num_examples,
            "left_out": self.num_left_out,
            "predictions": str(self.predictions),
        }


def evaluate_run(
    path: Path,
    split: str = TEST,
    *,
    device: str | None = None,
    is_final: bool = False,
    on_batch: Callable[[int], None] | None = None,
) -> Evaluated:
    """Figures of the run's best model on a split of its own examples and snapshot.

    Writes the predictions and their records into the run, and the figures into run.json.
    device: another than the run was trained on. is_final: also writes the checkpoint under the name
    that its authors would give it.
    """
    run = RunFolder(path)
    material = open_material(run)
    if not material.splits.get(split):
        has = ", ".join(name for name, examples in material.splits.items() if examples)
        raise UsageError(f"run {path} has no examples of the split {split!r}; it has: {has}")
    records = predict_split(run, material, split, device=device, on_batch=on_batch)
    examples = material.splits[split]
    baseline = material.task.baseline_beside(records, material.splits[TRAIN], examples)
    facts = run.read_facts()
    evaluated = Evaluated(
        split,
        material.task.metrics(records),
        material.task.metrics(baseline),
        len(examples),
        len(facts["left_out"].get(split, ())),
        material.task.write_predictions(records, run.path, split),
    )
    run.write_records(records, split)
    results = facts.get("results", {}) | {split: evaluated.to_json()}
    run.write_json("run.json", facts | {"results": results})
    if is_final and split == TEST:
        _write_published(run, material, evaluated.metrics[material.task.figure])
    return evaluated


def predict_split(
    run: RunFolder,
    material: Material,
    split: str,
    *,
    device: str | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> list[Record]:
    """The records of the best model for a split, in the order of its examples."""
    settings = material.job.settings
    chosen = choose_device(device or settings.device)
    model, task = load_model(run.best)
    data = ExampleDataset(material.splits[split], material.videos())
    return predict(
        model.to(chosen), task, data, settings.batch_size or 1, chosen,
        workers=settings.workers, on_batch=on_batch,
    )  # fmt: skip


def _write_published(run: RunFolder, material: Material, figure: float) -> None:
    model, task = load_model(run.best)
    state, name = model.published_state(), model.published_file_name(task.name, figure)
    if state is not None and name is not None:
        torch.save(state, run.checkpoints / name)
