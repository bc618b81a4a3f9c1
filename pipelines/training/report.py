"""The report of a training run: one HTML file that needs nothing else, to look at."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlpipe.models.tasks import Record, Task
from vlpipe.pipelines.html_pages import render
from vlpipe.pipelines.media_frames import frames_at
from vlpipe.pipelines.story_pictures import ShownStory, frame_rate, show_story
from vlpipe.pipelines.training.data import ExampleDataset, batch_loader
from vlpipe.pipelines.training.material import TEST, TRAIN, VALIDATION, Material, open_material
from vlpipe.pipelines.training.pictures import (
    CURVE_HEIGHT,
    CURVE_WIDTH,
    as_data,
    attended_frame,
    curve,
    moving_picture,
)
from vlpipe.pipelines.training.run_folder import RunFolder, load_model
from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.errors import VlpipeError

_NUM_EXAMPLES = 6
_FRAMES_SHOWN = 8


def write_training_report(run: RunFolder) -> Path:
    """Writes RUN/report.html: curves, figures beside those published, examples and attention."""
    facts = run.read_facts()
    return render(
        "training.html.j2",
        run.report,
        title=f"{facts['job']['model']} {facts['job']['task']}",
        runs=[run_section(run)],
        settings=facts["job"]["settings"],
        facts=facts,
    )


def run_section(run: RunFolder, *, num_examples: int = _NUM_EXAMPLES) -> dict[str, Any]:
    """What the pages show of one finished run; plain values for a template."""
    facts = run.read_facts()
    material = open_material(run)
    history = run.read_json("history.json")
    task = material.task
    split = TEST if TEST in facts["results"] else VALIDATION
    figure = f"validation/{task.figure}"
    return {
        "path": str(run.path),
        "model": material.model.name,
        "task": task.name,
        "description": type(task).description,
        "dataset": material.job.dataset,
        "split": split,
        "figure": task.figure,
        "direction": "higher is better" if task.is_higher_better else "lower is better",
        "examples": facts["examples"],
        "left_out": {name: len(ids) for name, ids in facts["left_out"].items()},
        "value": facts["results"][split]["metrics"][task.figure],
        "baseline": facts["results"][split]["baseline"][task.figure],
        "notes": list(task.notes()),
        "rows": _figures(facts, material),
        "curves": [
            curve("training loss", [row["loss"] for row in history]),
            curve(f"validation {task.figure}", [row[figure] for row in history]),
        ],
        "curve_size": (CURVE_WIDTH, CURVE_HEIGHT),
        "num_epochs": len(history),
        "shown": _examples(run, material, split, num_examples),
    }


def _figures(facts: dict[str, Any], material: Material) -> list[dict[str, Any]]:
    """A row for each metric: ours on each split, the baseline's, and the published ones."""
    results, rows = facts["results"], []
    split = TEST if TEST in results else VALIDATION
    for name, value in results[split]["metrics"].items():
        published = [
            f"{p.value:g} ({p.source}, {p.dataset})"
            for p in material.model.published_results
            if (p.task, p.metric) == (material.task.name, name)
        ]
        validation = results.get(VALIDATION, {}).get("metrics", {}).get(name)
        rows.append(
            {
                "name": name,
                "value": value,
                "validation": validation,
                "baseline": results[split]["baseline"].get(name),
                "published": "; ".join(published),
            }
        )
    return rows


def _examples(run: RunFolder, material: Material, split: str, count: int) -> list[dict[str, Any]]:
    """Some examples of the split, right and wrong ones in turn, each of another video."""
    paths = {v.id: v.path for v in open_dataset(material.job.dataset, material.job.root).videos()}
    records = {record["id"]: record for record in run.read_records(split)}
    examples = {e.id: e for e in material.splits[split]}
    chosen = _choose(material.task, list(records.values()), count)
    if not chosen:
        return []
    model, task = load_model(run.best)
    data = ExampleDataset([examples[r["id"]] for r in chosen], material.videos())
    shown = []
    for batch, record in zip(
        batch_loader(data, task, [[i] for i in range(len(data))], workers=0), chosen, strict=True
    ):
        with torch.no_grad():
            outputs = model(**batch.inputs)
        example, path = batch.examples[0], paths.get(record["video_id"])
        words = task.shown(record)
        shown.append(
            {
                "id": record["id"],
                "video_id": record["video_id"],
                "question": words.asked,
                "candidates": words.choices,
                "given": words.given,
                "right": words.right,
                "is_right": words.is_right,
                "gif": moving_picture(path),
                "frames": _frames(material, example, path, batch.inputs, outputs, record),
                "words": _words(task, batch.inputs, outputs, record),
                "story": _story(material, record, paths),
            }
        )
    return shown


def _story(material: Material, record: Record, paths: dict[str, Path | None]) -> ShownStory | None:
    """The clips of a story with everybody labelled; None of other records."""
    if "same_tracks" not in record:
        return None
    return show_story(record, material.videos(), paths, fps=frame_rate(material))


def _choose(task: Task[Any], records: Sequence[Record], count: int) -> list[Record]:
    seen: set[str] = set()
    parts: dict[bool, list[Record]] = {True: [], False: []}
    for record in records:
        if record["video_id"] not in seen:
            seen.add(record["video_id"])
            parts[task.shown(record).is_right].append(record)
    wrong = parts[False][: count // 3]
    return parts[True][: count - len(wrong)] + wrong


def _attention(outputs: dict[str, torch.Tensor], record: Record, name: str) -> Any:  # noqa: ANN401
    """The map of the chosen candidate, [T, N] or [L]; None without such an output."""
    if name not in outputs:
        return None
    place = record["prediction"] if "candidates" in record else 0
    return outputs[name][0, place].float().numpy()


def _frames(
    material: Material,
    example: Any,  # noqa: ANN401 - of whatever task
    path: Path | None,
    inputs: dict[str, torch.Tensor],
    outputs: dict[str, torch.Tensor],
    record: Record,
) -> list[dict[str, Any]]:
    """Frames of the video: where there is attention, one for each clip, with its share."""
    if path is None:
        return []
    clip = example.clips[0]
    features = material.videos().features(clip.video_id)
    spans = material.model.row_spans(material.config, features, clip.window_s)
    maps = [_attention(outputs, record, f"{s}_attention") for s in ("appearance", "motion")]
    if spans is None or not len(spans) or any(found is None for found in maps):
        return []
    attention = np.mean(maps, axis=0)[: len(spans)]  # (T, N)
    numbers = np.unique(np.linspace(0, len(spans) - 1, _FRAMES_SHOWN).round().astype(int))
    try:
        pictures = frames_at(path, list(spans[numbers].mean(axis=1)))
    except VlpipeError:
        return []  # the media is gone or damaged since; its features are not
    boxes = inputs["boxes"][0].float().numpy()
    strongest = max(float(attention.max()), 1e-9)
    by_clip = attention.sum(axis=1) / max(float(attention.sum(axis=1).max()), 1e-9)
    return [
        {
            "picture": as_data(attended_frame(frame, boxes[t], attention[t] / strongest)),
            "time_s": float(spans[t].mean()),
            "share": float(by_clip[t]),
        }
        for t, frame in zip(numbers, pictures, strict=True)
    ]


def _words(
    task: Any,  # noqa: ANN401 - of whatever kind
    inputs: dict[str, torch.Tensor],
    outputs: dict[str, torch.Tensor],
    record: Record,
) -> list[tuple[str, float]]:
    """The words that the network read, each with its weight, 1 the strongest."""
    weights = _attention(outputs, record, "word_attention")
    if weights is None:
        return []
    place = record["prediction"]
    ids = inputs["candidates"][0, place] if "candidates" in inputs else inputs["question"][0]
    strongest = max(float(weights.max()), 1e-9)
    known = task.words()
    return [
        (re.sub(r"^\\", "", known[int(i)]), float(w) / strongest)
        for i, w in zip(ids[: len(weights)], weights, strict=True)
        if int(i)
    ]


def splits_line(section: dict[str, Any]) -> str:
    """`240 train, 27 validation, 75 test` of a section."""
    names = (TRAIN, VALIDATION, TEST)
    return ", ".join(f"{section['examples'][n]} {n}" for n in names if n in section["examples"])
