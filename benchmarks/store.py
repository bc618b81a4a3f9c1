"""The feature store beside other layouts: same data, same run, in turn; ratios with their goals.

Warm reading is measured in CPU time, so that other work on the machine counts less; cold reading,
the loader and writing in wall clock. `--small` is a short run that only shows that all of it works;
`--clips`, `--long` and `--many` run one of the workloads alone.
"""

import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._store_layouts import (
    FEATURE,
    LAYOUTS,
    Collection,
    Layout,
    StoreViews,
    drop_pages,
)
from vlpipe.stores import FeatureStore

_WRITTEN = {type(layout).__name__: layout for layout in LAYOUTS}
_BY_NAME = {**_WRITTEN, StoreViews.__name__: StoreViews()}
_SLOW = ("ZarrPerVideo",)  # these get a tenth of the videos


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    clips: int
    long_videos: int
    reads: int
    rounds: int
    many: int


FULL = Sizes(clips=20_000, long_videos=200, reads=4_000, rounds=5, many=1_000_000)
SMALL = Sizes(clips=200, long_videos=6, reads=100, rounds=2, many=2_000)


def run(arguments: Sequence[str] = ()) -> None:
    """Prints a table for each workload. arguments: `--small`, and workloads (all of them)."""
    workloads = {"--clips": short_clips, "--long": long_videos, "--many": many_videos}
    unknown = set(arguments) - {"--small", *workloads}
    if unknown:
        known = ", ".join(("--small", *workloads))
        sys.exit(f"unknown {', '.join(sorted(unknown))}; there are {known}")
    sizes = SMALL if "--small" in arguments else FULL
    chosen = [name for name in workloads if name in arguments] or list(workloads)
    for name in chosen:
        with tempfile.TemporaryDirectory(prefix="vlpipe-bench-") as folder:
            workloads[name](Path(folder) / name.strip("-"), sizes)


def short_clips(folder: Path, sizes: Sizes) -> None:
    """Clips of 4 to 35 rows of 1024 float32: writing, whole videos warm and cold, the loader."""
    videos = Collection(sizes.clips, (4, 35), 1024)
    print(f"\n{len(videos):,} videos of 4 to 35 x 1024 float32, {videos.num_bytes / 1e6:,.0f} MB")
    written = _write_all(folder, videos, LAYOUTS)
    _table("write, MB/s", written, {"Npy": 2.5, "Hdf5": 3.5})
    readers = {name: _BY_NAME[name].open(folder / name, _some(name, videos)) for name in _BY_NAME}
    for path in (folder / "Store").rglob("c.0*"):
        path.read_bytes()  # the others are read once for the same, and the store is to check then
    first, later = _random_reads(readers, videos, sizes)
    goals = {"Memmap": 0.75, "Npy": 5.0, "Hdf5": 8.0, "ZarrPerVideo": 45.0}
    _table("random whole videos, warm, first pass (with checks), videos per CPU second", first, {})
    _table("random whole videos, warm, later passes, videos per CPU second", later, goals)
    for reader in readers.values():
        reader.close()
    del readers
    gc.collect()  # a map that is still open keeps its pages
    _table("random whole videos, cold, videos/s", _cold(folder, videos, sizes), {"Memmap": 3.0})
    _table("two-worker loader, padded batches of 32, videos/s", _loaders(folder, videos, sizes),
           {"Memmap": 1.0})  # fmt: skip
    for name in set(_WRITTEN) - {"Store"}:
        shutil.rmtree(folder / name)  # makes room in the cache of pages
    _compaction(folder / "Store")
    shutil.rmtree(folder)


def long_videos(folder: Path, sizes: Sizes) -> None:
    """Videos of 1,000 rows: five random rows of one."""
    videos = Collection(sizes.long_videos, (1000, 1000), 1024)
    print(f"\n{len(videos):,} videos of 1,000 x 1024 float32, {videos.num_bytes / 1e6:,.0f} MB")
    layouts = [layout for layout in LAYOUTS if type(layout).__name__ not in _SLOW]
    _table("write, MB/s", _write_all(folder, videos, layouts), {})
    readers = {type(la).__name__: la.open(folder / type(la).__name__, videos) for la in layouts}
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, len(videos), sizes.reads // 4).tolist()
    rows = [sorted(rng.choice(1000, 5, replace=False).tolist()) for _ in numbers]

    def five(reader: Any) -> None:  # noqa: ANN401
        for n, wanted in zip(numbers, rows, strict=True):
            found = reader.rows(n, wanted)
            assert found.shape == (5, 1024)

    rates = _in_turn(
        {name: (lambda r=reader: five(r)) for name, reader in readers.items()},
        dict.fromkeys(readers, len(numbers)),
        sizes.rounds,
    )
    _table("five random rows of 1,000, warm, reads per CPU second", rates, {"Npy": 8.0})
    for reader in readers.values():
        reader.close()
    shutil.rmtree(folder)


def many_videos(folder: Path, sizes: Sizes) -> None:
    """A store of very many videos: opening it, memory of its index, looking a video up."""
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks._store_of_many", str(folder), str(sizes.many)],
        check=True,
        capture_output=True,
        text=True,
    )
    facts = json.loads(made.stdout)
    print(f"\n{sizes.many:,} videos in one store")
    for what, value, goal in (
        ("open, ms", facts["open_ms"], "under 50"),
        ("memory of opening and 1,000 look-ups, MB", facts["memory_mb"], "under 100"),
        ("look-up, microseconds", facts["lookup_us"], "under 5"),
    ):
        print(f"  {what:44} {value:10,.2f}   goal {goal}")


# below


def _write_all(folder: Path, videos: Collection, layouts: Sequence[Layout]) -> dict[str, float]:
    """MB/s of wall clock, the best of two turns; what is very slow is written once.

    Each turn has a folder of its own: just after many files were deleted, ext4 takes ten times as
    long to make new ones. What is written leaves the cache, so that the next finds it as empty.
    """
    rates: dict[str, float] = {}
    for turn in range(2):
        for layout in layouts if turn == 0 else layouts[::-1]:
            name = type(layout).__name__
            if turn and name in _SLOW:
                continue
            place = folder / name if turn == 0 else folder / "again" / name
            place.mkdir(parents=True)
            written = _some(name, videos)
            os.sync()
            _touch_memory(2 * written.num_bytes)
            started = time.perf_counter()
            layout.write(place, written)
            rate = written.num_bytes / (time.perf_counter() - started) / 1e6
            rates[name] = max(rates.get(name, 0.0), rate)
            drop_pages(place)
    shutil.rmtree(folder / "again")
    return rates


def _random_reads(
    readers: dict[str, Any], videos: Collection, sizes: Sizes
) -> tuple[dict[str, float], dict[str, float]]:
    """Videos per CPU second of the first pass and of those after it."""
    orders = {name: _order(_some(name, videos), sizes.reads, seed=0) for name in readers}
    counts = {name: len(order) for name, order in orders.items()}
    for name, reader in readers.items():
        for n in orders[name][:50]:
            assert (reader.read(n) == videos[n]).all(), name
        # Pages and metadata of the others; the store is to check its videos.
        if not name.startswith("Store"):
            for n in orders[name]:
                reader.read(n)

    def whole(name: str) -> None:
        reader = readers[name]
        for n in orders[name]:
            reader.read(n)

    sides = {name: (lambda name=name: whole(name)) for name in readers}
    return _in_turn(sides, counts, 1), _in_turn(sides, counts, sizes.rounds)


def _touch_memory(num_bytes: int) -> None:
    """Makes sure that so much free memory is there at once.

    A virtual machine may have given free memory back to its host, above all what lies together in
    large pieces. Who writes first then waits for it, at a quarter of the usual speed.
    """
    np.ones(num_bytes, np.uint8)


def _some(name: str, videos: Collection) -> Collection:
    return videos.first(len(videos) // 10) if name in _SLOW else videos


def _order(videos: Collection, number: int, *, seed: int) -> list[int]:
    numbers: list[int] = np.random.default_rng(seed).permutation(len(videos))[:number].tolist()
    return numbers


def _in_turn(
    sides: dict[str, Callable[[], None]], counts: dict[str, int], rounds: int
) -> dict[str, float]:
    """Median over rounds of things per CPU second; every round runs all sides."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in names:
            started = time.process_time()
            sides[name]()
            rates[name].append(counts[name] / max(time.process_time() - started, 1e-9))
    return {name: statistics.median(values) for name, values in rates.items()}


def _cold(folder: Path, videos: Collection, sizes: Sizes) -> dict[str, float]:
    rates = {}
    for name, layout in _WRITTEN.items():
        wanted = _order(_some(name, videos), sizes.reads // 4, seed=2)
        drop_pages(folder / name)
        reader = layout.open(folder / name, _some(name, videos))
        started = time.perf_counter()
        for n in wanted:
            reader.read(n)
        rates[name] = len(wanted) / (time.perf_counter() - started)
        reader.close()
    return rates


def _loaders(folder: Path, videos: Collection, sizes: Sizes) -> dict[str, float]:
    """Wall clock of an epoch over some videos; the best of the rounds, taken in turn."""
    from benchmarks._store_loader import loader_of

    count = len(videos)
    best: dict[str, float] = {}
    for _ in range(max(sizes.rounds - 2, 1)):
        for name in ("Memmap", "Store", "Npy", "Hdf5"):
            loader = loader_of(_BY_NAME[name], folder / name, videos, count)
            started = time.perf_counter()
            seen = sum(len(batch) for batch in loader)
            assert seen == count, (name, seen)
            best[name] = max(best.get(name, 0.0), count / (time.perf_counter() - started))
    return best


def _compaction(folder: Path) -> None:
    """Compaction of the store beside a plain copy of its row files, both from cached pages and
    with nothing else to be written; the best of two turns."""
    files = list(folder.rglob("rows/c.0.0"))
    num_bytes = sum(path.stat().st_size for path in files)
    copying = compacting = 0.0
    for turn in range(2):
        store = shutil.copytree(folder / "store", folder / f"store{turn}")
        copy = folder / f"copy{turn}"
        for path in [*files, *store.rglob("c.0*")]:
            path.read_bytes()
        os.sync()
        _touch_memory(2 * num_bytes)
        copying = max(copying, num_bytes / _copy_s(files, copy) / 1e6)
        os.sync()
        _touch_memory(2 * num_bytes)
        with FeatureStore.open(store, durability="process") as opened:
            started = time.perf_counter()
            report = opened.compact([FEATURE])
            compacting = max(compacting, num_bytes / (time.perf_counter() - started) / 1e6)
        assert report.parts_before == len(files)
        copy.unlink()
        shutil.rmtree(store)
    print(f"\ncompaction of {len(files)} parts, MB/s")
    print(f"  {'plain copy':28} {copying:12,.0f}")
    print(f"  {'this store':28} {compacting:12,.0f}   {compacting / copying:6.2f} x   goal 0.50 x")


def _copy_s(files: Sequence[Path], target: Path) -> float:
    """Seconds that writing all these files into one takes."""
    started = time.perf_counter()
    with target.open("wb") as stream:
        for path in files:
            with path.open("rb") as source:
                shutil.copyfileobj(source, stream, 1 << 20)
    return time.perf_counter() - started


def _table(title: str, rates: dict[str, float], goals: dict[str, float]) -> None:
    """Rates, and how many times as fast the store is as each of the others."""
    print(f"\n{title}")
    for name, rate in rates.items():
        line = f"  {_BY_NAME[name].name:28} {rate:12,.0f}"
        if name != "Store":
            line += f"   store {rates['Store'] / rate:7.2f} x"
        if name in goals:
            line += _verdict(rates["Store"] / rate, goals[name])
        if name == "StoreViews":  # a goal for reading is one for either way of it
            ratio = rate / rates["Memmap"]
            line += f"   {ratio:.2f} x the map"
            line += _verdict(ratio, goals["Memmap"]) if "Memmap" in goals else ""
        print(line)


def _verdict(ratio: float, goal: float) -> str:
    return f"   goal {goal:5.2f} x   {'met' if ratio >= goal else 'NOT met'}"


if __name__ == "__main__":
    run(sys.argv[1:])
