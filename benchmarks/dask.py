"""Two Dask workers against one, each with one thread, on the same clips: what a second one adds.

Rates count while all workers have a batch, so that starting processes and building networks,
which is done once, is left out.
"""

import tempfile
from pathlib import Path

from benchmarks._clips import make_clips
from benchmarks._commit_clock import CommitClock
from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import DaskOptions, ExtractionJob

NUM_CLIPS, GOAL = 20, 1.7


def run() -> None:
    """Prints videos a second with one and two workers, and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_clips(folder / "clips", NUM_CLIPS, seconds=1, size="320x240")
        rates = {}
        for num_workers in (1, 2):
            clock = CommitClock(num_workers)
            run_extraction(
                ExtractionJob(
                    paths=(folder / "clips",),
                    store=str(folder / f"store{num_workers}"),
                    features=("resnet152",),
                    settings={"resnet152": {"fps": 10}},
                    weights={"*": "untrained"},
                    decode_workers=1,
                    batch_seconds=1,
                    dask=DaskOptions(workers=num_workers, threads=1),
                ),
                observer=clock,
            )
            rates[num_workers] = clock.rate()
            print(f"dask: {num_workers} workers of one thread: {rates[num_workers]:.3f} videos/s")
        print(f"dask: two workers over one: {rates[2] / rates[1]:.2f}x (goal {GOAL})")


if __name__ == "__main__":
    run()
