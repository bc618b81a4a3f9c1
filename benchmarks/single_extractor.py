"""One extractor against the usual way, and its rate against the machine's matrix rate.

The usual way runs networks on one frame or stack, which already reaches most of the matrix rate:
what can be gained is batching, overlap of decoding with the network, and no re-encoding.
"""

import functools
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks._clips import make_clip
from benchmarks._measure import best_of_turns, matrix_rate
from benchmarks._usual_way import extract_usual_way
from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob

# Name, settings, seconds of 720p, goals against the usual way: fp32, bf16.
CASES: list[tuple[str, Mapping[str, Any], float, float, float]] = [
    ("resnet152", {"fps": None}, 3, 1.15, 2.3),
    ("resnet152", {"fps": 5}, 60, 1.6, 2.3),
    ("i3d_rgb", {"fps": None}, 9, 1.15, 2.3),
]
ROOFLINE_GOALS = {"resnet152": 0.85, "i3d_rgb": 0.75}


def run() -> None:
    """Prints seconds, ratios and achieved rates."""
    for name, settings, seconds, *goals in CASES:
        _compare(name, settings, seconds, goals)
    roofline()


def _compare(name: str, settings: Mapping[str, Any], seconds: float, goals: list[float]) -> None:
    print(f"single extractor: {name} {dict(settings)}, one clip of {seconds} s, 1280x720")
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clips" / "clip.mp4", seconds=seconds)
        attempts = iter(range(100))

        def usual_way() -> None:
            extract_usual_way(create_extractor(name, weights="untrained", **settings), clip)

        def ours(precision: str) -> None:
            run_extraction(
                ExtractionJob(
                    paths=(clip.parent,),
                    store=f"{folder}/store{next(attempts)}",
                    features=(name,),
                    settings={name: dict(settings)},
                    weights={"*": "untrained"},
                    precision=precision,  # type: ignore[arg-type]
                )
            )

        best = best_of_turns(
            {
                "usual way": usual_way,
                "fp32": lambda: ours("fp32"),
                "bf16": lambda: ours("bf16"),
            },
            2,
        )
    print("  " + ", ".join(f"{side} {spent:.2f} s" for side, spent in best.items()))
    for precision, goal in zip(("fp32", "bf16"), goals, strict=True):
        print(f"  ratio {precision} {best['usual way'] / best[precision]:.2f} x (goal {goal})")


def roofline() -> None:
    """Achieved GFLOP/s of full batches against a matrix product, measured in turn."""
    for name, goal in ROOFLINE_GOALS.items():
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            extractor = create_extractor(name, weights="untrained", precision=precision)
            x = _drawn_input(name)
            gflop = extractor.gflop_per_sample * extractor.batch_size
            product, spent = matrix_rate(dtype), math.inf
            for _ in range(3):
                run_network = functools.partial(extractor.run_network, x)
                spent = min(spent, *best_of_turns({"network": run_network}, 2).values())
                product = max(product, matrix_rate(dtype))
            achieved = gflop / spent
            print(
                f"roofline: {name} {precision} {achieved:.0f} of {product:.0f} GFLOP/s, "
                f"{achieved / product:.0%} of the matrix rate"
                + (f" (goal {goal:.0%})" if precision == "fp32" else "")
            )


def _drawn_input(name: str) -> torch.Tensor:
    spec = configure_extractor(name, weights="untrained")
    batch = spec.extractor.batch_size
    shape = (batch, 3, 64, 224, 224) if name == "i3d_rgb" else (batch, 3, 224, 224)
    return torch.randn(shape)


if __name__ == "__main__":
    run()
