"""Sentences about whole clips: JSFusion finds, chooses and completes them on the demo dataset."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from vlpipe.pipelines.demo.part import Page, PartResult, Workplace
from vlpipe.pipelines.search_page import write_search_page
from vlpipe.pipelines.searching import search_videos
from vlpipe.pipelines.training.job import TrainingJob, parse_settings
from vlpipe.pipelines.training.run_folder import RunFolder

# A small network of the same parts. The frames' features are those of an untrained network, so that
# they are normalised, and small figures are told from their place by what changes. Most clips have
# no sound, which is left out. Statistics of the norms must follow within some hundred steps.
_COMMON = (
    "features.frames=resnet18_conv2_x",
    "features.sound=none",
    "model.changes=true",
    "model.normalise_inputs=true",
    "model.norm_momentum=0.1",
    "model.max_frames=12",
    "model.word_width=32",
    "model.hidden=32",
    "model.widths=[32, 32, 16, 32, 32, 32]",
    "task.max_words=32",
    "batch_size=8",
    "learning_rate=0.003",
    "weight_decay=0.05",
    "gradient_clip=5",
    "schedule=cosine",
    "warmup_epochs=1",
    "validation_by=video",
    "device=cpu",
)

SETTINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "retrieval": ("epochs=12", "batch_size=12", "model.dropout=0.1"),
        "mc": (
            "epochs=10",
            "batch_size=12",
            "learning_rate=0.0015",
            "model.dropout=0.3",
            "task.num_random=4",
        ),
        "fib": ("epochs=14", "model.dropout=0.1"),
    }
)

_BEGINS_WITH = {"mc": "retrieval"}
"""Task to the one whose weights it begins with, so that fewer epochs are enough."""

_SEARCHED = "a red circle jumps three times on the beach"


def learn_sentences(place: Workplace) -> PartResult:
    """JSFusion on its three tasks, a run each below `out/runs`, and the page of a search."""
    result = PartResult()
    trained: dict[str, Path] = {}
    for task, settings in SETTINGS.items():
        if place.stop.is_set():
            break
        first = trained.get(_BEGINS_WITH.get(task, ""))
        begin = () if first is None else (f"init_from={first.absolute()}",)
        job = TrainingJob(
            model="jsfusion",
            task=task,
            dataset="demo",
            root=place.dataset_root,
            store=place.store,
            out=place.out / "runs" / task,
            settings=parse_settings(changes=(*_COMMON, *settings, *begin)),
        )
        run = result.take(task, place.train(job))
        if run is not None:
            trained[task] = run.path
        if run is not None and task == "retrieval":
            result.pages.append(_search(place, run))
    return result


def _search(place: Workplace, run: RunFolder) -> Page:
    found = search_videos(run.path, _SEARCHED, device="cpu")
    path = write_search_page(place.out / "search.html", found)
    text = f'the best of all {found.num_videos} clips for the sentence "{_SEARCHED}"'
    return Page("Search", text, path)
