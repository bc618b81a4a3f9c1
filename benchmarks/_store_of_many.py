"""Makes a store of very many tiny videos, and measures in a fresh process what opening it costs.

`python -m benchmarks._store_of_many FOLDER NUMBER` prints one JSON object.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from vlpipe.stores import FeatureDefinition, Features, FeatureStore

BATCH = 20_000
_LOOKUPS = 1_000


def make(folder: Path, number: int) -> None:
    definition = FeatureDefinition("tiny", "uint8", (1,), ("channel",))
    features = {"tiny": Features(np.zeros((1, 1), np.uint8), np.array([[0.0, 1.0]]))}
    store = FeatureStore.create(folder, durability="process")
    for first in range(0, number, BATCH):
        with store.writer([definition]) as writer:
            for n in range(first, min(first + BATCH, number)):
                writer.add(f"video{n:09}", features)
    store.checkpoint()
    store.close()


def measure(folder: Path, number: int) -> dict[str, float]:
    """Milliseconds to open, the best of five; memory; CPU microseconds of a look-up, the best of
    ten passes over a thousand."""
    import psutil

    process = psutil.Process()
    FeatureStore.open(folder).close()  # imports, and pages of the tables
    before = process.memory_full_info().uss
    times = []
    for _ in range(5):
        started = time.perf_counter()
        store = FeatureStore.open(folder)
        reader = store["tiny"]
        assert len(reader) == number
        times.append(time.perf_counter() - started)
    rng = np.random.default_rng(0)
    ids = [f"video{n:09}" for n in rng.integers(0, number, _LOOKUPS)]
    assert all(video_id in reader for video_id in ids)
    memory = process.memory_full_info().uss - before
    lookups = []
    for _ in range(10):
        started = time.process_time()
        for video_id in ids:
            reader.locate(video_id)
        lookups.append((time.process_time() - started) / _LOOKUPS)
    return {
        "open_ms": 1000 * min(times),
        "memory_mb": memory / 1e6,
        "lookup_us": 1e6 * min(lookups),
    }


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        make(Path(sys.argv[1]), int(sys.argv[2]))
        command = [sys.executable, "-m", "benchmarks._store_of_many", "--measure", *sys.argv[1:3]]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
