"""A Dask cluster of hundreds of workers, simulated: what becomes of their time, and of lost ones.

Nothing is decoded or computed (see `_simulation`): a worker sleeps as long as its videos would
take, and makes rows; scheduling, commits and the store are the real thing. The workers are spread
over processes of at most 25, for as threads of one they would wait for its interpreter. All of
them share this machine's cores with the scheduler: a cluster's own workers bring theirs.

`--small` takes 20 workers.
"""

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks._commit_clock import CommitClock
from benchmarks._simulation import SimulatedJob, make_files
from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import DaskOptions
from vlpipe.stores.ledger import Ledger
from vlpipe.stores.storage import open_storage

# Batches of some 40 videos, as of long videos on a GPU, take some 30 seconds.
VIDEO_S = 0.75
VIDEOS_PER_WORKER = 200
MOST_IN_A_PROCESS, LEAST_PROCESSES = 25, 4
ROOT = Path(__file__).parents[1]


def run(options: Sequence[str] = ()) -> None:
    """Prints the share of the workers' time that is work, for more and more of them; then what
    the loss of a process of workers costs."""
    if set(options) - {"--small"}:
        sys.exit(f"cluster knows --small, not {' '.join(options)}")
    sizes = (20,) if "--small" in options else (100, 200)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_files(folder / "media", VIDEOS_PER_WORKER * sizes[-1])
        for num_workers in sizes:
            job = SimulatedJob(
                paths=(files,),
                store=str(folder / f"store{num_workers}"),
                seconds=VIDEO_S,
                limit=VIDEOS_PER_WORKER * num_workers,
                batch_seconds=1,
            )
            _measure(job, num_workers)
        some = {"store": str(folder / "lost"), "limit": VIDEOS_PER_WORKER * sizes[-1] // 2}
        _lose(job.model_copy(update=some), sizes[-1])


def _measure(job: SimulatedJob, num_workers: int) -> None:
    clock = CommitClock(num_workers)
    with _workers(num_workers) as (address, _):
        options = DaskOptions(address=address, threads=1)
        cpu = time.process_time()
        summary = run_extraction(job.model_copy(update={"dask": options}), observer=clock)
        cpu = time.process_time() - cpu
    assert summary.extracted == job.limit
    print(
        f"cluster: {num_workers} workers, {summary.extracted:,} videos in {len(clock.commits)} "
        f"batches: {clock.rate() * VIDEO_S / num_workers:.0%} of their time is work once all have "
        f"begun; {summary.wall_s:.0f} s in all, with start and end; the planner and the scheduler "
        f"take {cpu / summary.wall_s:.0%} of a core",
        flush=True,
    )


def _lose(job: SimulatedJob, num_workers: int) -> None:
    """A process of workers is killed in the middle of its batches."""
    with _workers(num_workers) as (address, processes):
        clock = CommitClock(num_workers, lambda: os.kill(processes[0].pid, signal.SIGKILL))
        options = DaskOptions(address=address, threads=1)
        wall_s = run_extraction(job.model_copy(update={"dask": options}), observer=clock).wall_s
    entries = Ledger(open_storage(job.store)).entries(0, None, None)
    added = [op for entry in entries for op in entry.ops if op["op"] == "add"]
    times = Counter(Counter(v for op in added for v in op["videos"]["id"]).values())
    assert times == {1: job.limit}, times
    lost = _workers_in_a_process(num_workers)
    print(
        f"cluster: {lost} of {num_workers} workers killed in the middle: "
        f"{times[1]:,} videos stored, each once, in {wall_s:.0f} s"
    )


@contextmanager
def _workers(count: int) -> Iterator[tuple[str, list["subprocess.Popen[bytes]"]]]:
    """The address of a scheduler, and the processes that hold its workers."""
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        cluster = stack.enter_context(
            LocalCluster(n_workers=0, processes=False, dashboard_address=None, protocol="tcp://")
        )
        address = cluster.scheduler_address
        processes = []
        each = _workers_in_a_process(count)
        for first in range(0, count, each):
            here = min(each, count - first)
            words = [sys.executable, "-m", "benchmarks.cluster", json.dumps([address, here])]
            process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=120)
        yield address, processes


def _workers_in_a_process(count: int) -> int:
    return min(MOST_IN_A_PROCESS, math.ceil(count / LEAST_PROCESSES))


async def _serve(address: str, count: int) -> None:
    """So many workers of one thread each in this process, until the scheduler ends."""
    import dask
    from distributed import Worker

    # They share a process: each would look at it, and at its clock, many times a second.
    settings = {
        "distributed.admin.tick.interval": "1s",
        "distributed.worker.profile.enabled": False,
        "distributed.admin.system-monitor.interval": "10s",
    }
    with dask.config.set(settings):
        workers = [
            Worker(address, nthreads=1, memory_limit=0, dashboard=False) for _ in range(count)
        ]
        await asyncio.gather(*workers)
        await asyncio.gather(*(worker.finished() for worker in workers))


if __name__ == "__main__":
    asyncio.run(_serve(*json.loads(sys.argv[1])))
