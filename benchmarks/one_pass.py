"""Several extractors in one pass, against each of them alone in the usual way.

Both sides: same weights, machine and threads, in turn, the better time of each counts.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._clips import make_clips
from benchmarks._measure import best_of_turns
from benchmarks._usual_way import extract_usual_way
from vlpipe.extractors import create_extractor
from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.extraction.receipts import ExtractionSummary
from vlpipe.stores import FeatureStore

SMALL_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "resnet18": {"fps": 5, "resize": 128, "crop": 112},
    "resnet34": {"fps": 4, "resize": 128, "crop": 112},
    "resnet50": {"fps": 2, "resize": 128, "crop": 112},
    "resnext50_32x4d": {"fps": 1, "resize": 128, "crop": 112},
}
LARGE_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "i3d_rgb": {},
    "resnet152": {"fps": 5},
    "vggish": {},
    "timm:vit_base_patch16_224": {"fps": 5},
}


def run() -> None:
    """Prints seconds and ratios of three comparisons."""
    compare("small networks, 6 clips of 3 s", SMALL_NETWORKS, 6, 3, ["fp32"], goals=[2.5])
    compare("large networks, 2 clips of 6 s", LARGE_NETWORKS, 2, 6, ["fp32", "bf16"], [1.3, 2.5])


def compare(
    title: str,
    extractors: Mapping[str, Mapping[str, Any]],
    count: int,
    seconds: float,
    precisions: list[str],
    goals: list[float],
) -> None:
    """One table: the usual way in fp32, and one pass at each precision."""
    print(f"one pass: {title}, 1280x720, {', '.join(extractors)}")
    with tempfile.TemporaryDirectory() as name:
        paths = make_clips(Path(name) / "clips", count, seconds=seconds)
        usual: dict[str, dict[str, int]] = {}
        summaries: dict[str, ExtractionSummary] = {}
        attempts = iter(range(100))

        def usual_way() -> None:
            for extractor_name, settings in extractors.items():
                extractor = create_extractor(extractor_name, weights="untrained", **settings)
                for path in paths:
                    for feature, rows in extract_usual_way(extractor, path).items():
                        usual.setdefault(feature, {})[path.stem] = len(rows)

        def one_pass(precision: str) -> None:
            job = ExtractionJob(
                paths=(paths[0].parent,),
                store=f"{name}/store{next(attempts)}",
                features=tuple(extractors),
                settings={k: dict(v) for k, v in extractors.items()},
                weights={"*": "untrained"},
                precision=precision,  # type: ignore[arg-type]
            )
            summaries[precision] = run_extraction(job)
            with FeatureStore.open(job.store) as store:
                for feature, videos in usual.items():
                    found = {video: len(store[feature][video]) for video in videos}
                    assert found == videos, (feature, found, videos)

        sides = {"usual way": usual_way}
        sides |= {f"one pass {p}": lambda p=p: one_pass(p) for p in precisions}  # type: ignore[misc]
        best = best_of_turns(sides, 2)
        for side, spent in best.items():
            print(f"  {side:14} {spent:7.2f} s")
        for precision, goal in zip(precisions, goals, strict=True):
            ratio = best["usual way"] / best[f"one pass {precision}"]
            stages = ", ".join(f"{k} {v:.1f}" for k, v in summaries[precision].stage_s.items())
            print(f"  ratio {precision}    {ratio:7.2f} x (goal {goal}); seconds: {stages}")


if __name__ == "__main__":
    run()
