"""One extractor against the usual way, and its rate against the machine's matrix rate.

The usual way runs the plain network on one frame or stack. What can be gained is a faster form of
the network, batches, overlap of decoding with the network, and no re-encoding.

Options choose cases, `--every-frame --i3d --minute --roofline` (all of them without one), and how
they are measured: `--fp32` leaves bf16 out (on a processor without bf16 instructions it is an
emulation), `--processor-time` counts the seconds of one thread on the processor instead of those
on the wall, for a machine that others use as well; what overlap saves does not show then.
"""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks._clips import make_clip
from benchmarks._measure import Clock, best_of_turns, matrix_rate, processor_clock
from benchmarks._usual_way import extract_usual_way
from vlpipe.extractors import create_extractor
from vlpipe.extractors.precision import Precision
from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One extractor on one clip of 1280x720, and how often faster it ought to be."""

    extractor: str
    settings: Mapping[str, Any]
    seconds: float
    goals: Mapping[Precision, float]


CASES = {
    "--every-frame": Case("resnet152", {"fps": None}, 2, {"fp32": 1.15, "bf16": 2.3}),
    "--i3d": Case("i3d_rgb", {"fps": None}, 9, {"fp32": 1.15, "bf16": 2.3}),
    "--minute": Case("resnet50", {"fps": 5}, 60, {"fp32": 1.6, "bf16": 2.3}),
}
ROOFLINE_GOALS = {"resnet152": 0.85, "i3d_rgb": 0.75}


def run(options: Sequence[str] = ()) -> None:
    """Prints seconds, ratios and achieved rates."""
    precisions: list[Precision] = ["fp32"] if "--fp32" in options else ["fp32", "bf16"]
    clock = time.perf_counter
    if "--processor-time" in options:
        clock = processor_clock
        torch.set_num_threads(1)
    chosen = [name for name in (*CASES, "--roofline") if name in options]
    for name in chosen or (*CASES, "--roofline"):
        if name in CASES:
            _compare(CASES[name], precisions, clock)
        else:
            roofline(precisions, clock)


def _compare(case: Case, precisions: Sequence[Precision], clock: Clock) -> None:
    name, settings = case.extractor, dict(case.settings)
    print(f"single extractor: {name} {settings}, one clip of {case.seconds} s, 1280x720")
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clips" / "clip.mp4", seconds=case.seconds)
        attempts = iter(range(100))

        def usual_way() -> None:
            extract_usual_way(create_extractor(name, weights="untrained", **settings), clip)

        def ours(precision: Precision) -> None:
            run_extraction(
                ExtractionJob(
                    paths=(clip.parent,),
                    store=f"{folder}/store{next(attempts)}",
                    features=(name,),
                    settings={name: settings},
                    weights={"*": "untrained"},
                    precision=precision,
                )
            )

        sides = {"usual way": usual_way}
        sides |= {p: lambda p=p: ours(p) for p in precisions}  # type: ignore[misc]
        best = best_of_turns(sides, 2, clock)
    print("  " + ", ".join(f"{side} {spent:.2f} s" for side, spent in best.items()))
    for p in precisions:
        print(f"  ratio {p} {best['usual way'] / best[p]:.2f} x (goal {case.goals[p]})")


def roofline(precisions: Sequence[Precision], clock: Clock) -> None:
    """Achieved GFLOP/s of full batches against a matrix product, measured in turn.

    Products that Winograd's algorithm saves count as done, so that a share may exceed one.
    """
    for name, goal in ROOFLINE_GOALS.items():
        for precision in precisions:
            extractor = create_extractor(name, weights="untrained", precision=precision)
            x = _drawn_input(name, extractor.batch_size)
            sides = {
                "as it runs": lambda e=extractor, x=x: e.run_network(x),
                "plain": lambda e=extractor, x=x: e.network(x),
            }
            if precision != "fp32":
                del sides["plain"]
            product, best = 0.0, dict.fromkeys(sides, math.inf)
            for _ in range(3):
                product = max(product, matrix_rate(DTYPES[precision], edge=2048, clock=clock))
                spent = best_of_turns(sides, 1, clock)
                best = {side: min(seconds, spent[side]) for side, seconds in best.items()}
            gflop = extractor.gflop_per_sample * extractor.batch_size
            for side, seconds in best.items():
                achieved = gflop / seconds
                aim = f" (goal {goal:.0%})" if (precision, side) == ("fp32", "as it runs") else ""
                print(
                    f"roofline: {name} {precision}, {side}: {achieved:.0f} of {product:.0f} "
                    f"GFLOP/s, {achieved / product:.0%} of the matrix rate{aim}"
                )


def _drawn_input(name: str, batch: int) -> torch.Tensor:
    shape = (batch, 3, 64, 224, 224) if name == "i3d_rgb" else (batch, 3, 224, 224)
    return torch.randn(shape)


if __name__ == "__main__":
    run()
