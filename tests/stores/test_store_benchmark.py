"""The store's benchmark runs, and says a ratio for each of its competitors."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_small_run_prints_every_workload_with_its_goals():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "store", "--small"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for workload in (
        "write",
        "warm, first pass",
        "cold",
        "loader",
        "five random rows",
        "compaction",
    ):
        assert workload in done.stdout
    for rival in ("memory map", "npy", "dataset per video", "padded", "LMDB", "Zarr"):
        assert rival in done.stdout
    goals = done.stdout.count("goal")
    assert goals == 14, done.stdout


def test_unknown_benchmarks_and_options_are_named():
    for words in (["stor"], ["--small"], ["store", "--fast"]):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert words[-1].lstrip("-") in done.stderr or "no benchmark named" in done.stderr
