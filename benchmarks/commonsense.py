"""Calls of VC R-CNN's network with and without the cache of changed labels, on the demo dataset.

Untrained detectors find nothing of use, so that the truth of the demo stands in for one: the boxes
and shapes of its figures at every sampled frame go into files for `given_boxes`.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.stores.datasets import make_demo
from vlpipe.stores.datasets._demo_scene import SHAPES, Act, Figure, Scene, box

FPS = 2.0
GOAL = 5.0
NUM_CLIPS, NUM_VIDEOS = 48, 2
STILL, ALL = "still scenes", "clips in all"
SMALL = {"depth": 50, "shorter_edge": 64, "longer_edge": 107}
"""Calls are counted, so that their size does not matter."""


@dataclass(frozen=True)
class Calls:
    """Calls of the network for some clips, and the seconds of the whole extraction."""

    clips: int
    cached: int
    exact: int
    cached_s: float
    exact_s: float

    @property
    def ratio(self) -> float:
        return self.exact / self.cached


def run() -> None:
    """Prints calls and seconds for the still GIFs and for all clips."""
    for what, calls in count_calls(NUM_CLIPS, NUM_VIDEOS):
        goal = f" (goal {GOAL:g})" if what == STILL else ""
        print(
            f"commonsense: {calls.clips} {what} at {FPS:g} frames a second: {calls.cached} calls "
            f"with the cache, {calls.exact} without, {calls.ratio:.1f} x fewer{goal}; "
            f"{calls.cached_s:.1f} s and {calls.exact_s:.1f} s"
        )


def count_calls(num_clips: int, num_videos: int) -> Iterator[tuple[str, Calls]]:
    """Of the still GIFs of a demo dataset of that size, and of all its clips."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        demo = make_demo(root / "demo", clips=num_clips, videos=num_videos, stories=0)
        scenes = json.loads((demo.root / "scenes.json").read_text(encoding="utf-8"))
        paths = {video.id: video.path for video in demo.videos() if video.path is not None}
        (root / "boxes").mkdir()
        for name, path in paths.items():
            _write_truth(root / "boxes" / f"{path.stem}.json", _scene(scenes[name]), path)
        still = [path for name, path in paths.items() if not scenes[name]["acts"]]
        for what, chosen in ((STILL, still), (ALL, list(paths.values()))):
            yield what, _compare(what, chosen, root)


def _compare(what: str, paths: list[Path], root: Path) -> Calls:
    calls: dict[bool, int] = {}
    seconds: dict[bool, float] = {}
    for cache in (True, False):
        job = ExtractionJob(
            paths=tuple(paths),
            store=f"{root}/{what}-{cache}",
            features=("commonsense",),
            settings={
                "commonsense": {"boxes": "given_boxes", "fps": FPS, "cache": cache, **SMALL},
                "given_boxes": {"folder": str(root / "boxes")},
            },
            weights={"*": "untrained"},
        )
        started = time.perf_counter()
        summary = run_extraction(job)
        seconds[cache] = time.perf_counter() - started
        calls[cache] = summary.reuse["commonsense"].computed
    return Calls(len(paths), calls[True], calls[False], seconds[True], seconds[False])


def _scene(described: dict[str, Any]) -> Scene:
    return Scene(
        described["place"],
        tuple(Figure(**figure) for figure in described["figures"]),
        tuple(Act(**act) for act in described["acts"]),
        described["duration_s"],
        described["decor_seed"],
    )


def _write_truth(path: Path, scene: Scene, video: Path) -> None:
    """The boxes of the figures that can be seen, at the start of every frame of the request."""
    with av.open(str(video)) as container:
        width, height = container.streams.video[0].width, container.streams.video[0].height
    labels = sorted(SHAPES)
    truth: dict[str, list[Any]] = {"seconds": [], "labels": [], "boxes": []}
    for number in range(int(scene.duration_s * FPS) + 2):
        for index, figure in enumerate(scene.figures):
            found = box(scene, index, number / FPS, width, height)
            if found is not None:
                truth["seconds"].append(number / FPS)
                truth["labels"].append(labels.index(figure.shape))
                truth["boxes"].append(found)
    path.write_text(json.dumps(truth), encoding="utf-8")


if __name__ == "__main__":
    run()
