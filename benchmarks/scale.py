"""What planning, batching and committing cost for 100,000 videos, and 50 workers at a time.

Nothing is decoded or computed (see `_simulation`): a worker sleeps as long as its batch would take,
and makes rows. All workers are threads of one process, and more of them than 50 (for 20,000 videos)
wait for its interpreter and not for the store. `--small` takes 2,000 videos and 20 workers.
Figures for a million videos are an extrapolation of these, and are named so.
"""

import logging
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks._simulation import SimulatedJob, make_files
from vlpipe.pipelines.extraction.extract import plan_extraction, run_extraction
from vlpipe.pipelines.extraction.job import DaskOptions
from vlpipe.pipelines.extraction.planning import Plan

BATCH_S = 30.0
MILLION = 1_000_000


def run(options: Sequence[str] = ()) -> None:
    """Prints costs a video and a batch, each beside its goal."""
    if set(options) - {"--small"}:
        sys.exit(f"scale knows --small, not {' '.join(options)}")
    count, num_workers = (2_000, 20) if "--small" in options else (100_000, 50)
    with tempfile.TemporaryDirectory() as name:
        files = make_files(Path(name) / "media", count)
        job = SimulatedJob(paths=(files,), store=f"{name}/local")
        job.specs()
        plan_s, per_video_s = _local(job, count)
        _prefect(job.model_copy(update={"limit": min(count, 4000)}), name)
        some = min(count, 20_000)
        of_some = job.model_copy(update={"store": f"{name}/dask", "limit": some})
        lost_s = _dask(of_some, some, num_workers)
    print(
        f"scale: extrapolated to a million videos: plan {plan_s / count * MILLION:,.0f} s; all "
        f"else in one process {per_video_s * MILLION / 3600:.1f} h; {num_workers} workers lose "
        f"{lost_s:.1f} s in every batch of {BATCH_S:.0f} s"
    )


def _local(job: SimulatedJob, count: int) -> tuple[float, float]:
    """Seconds of a plan, and of a video all told, with the local runner."""
    plan_s, plan = _timed_plan(job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"scale: plan of {count:,} videos in {len(plan.batches)} batches: {plan_s:.1f} s, the "
        f"process with its libraries {peak:,.0f} MiB at most (goal 1,024)"
    )
    del plan
    started, cpu = time.monotonic(), time.process_time()
    run_extraction(job.model_copy(update={"limit": count // 2}))
    half_s, half_cpu = time.monotonic() - started, time.process_time() - cpu
    print(
        f"scale: local runner, {count // 2:,} videos, rows on disk: "
        f"{half_s / (count // 2) * 1e3:.2f} ms a video (goal 2), "
        f"{half_cpu / (count // 2) * 1e3:.2f} ms of it processor"
    )
    resume_s, plan = _timed_plan(job)
    assert plan.num_tasks == count - count // 2
    print(f"scale: plan of the half-done store: {resume_s:.1f} s (goal 10)")
    return plan_s, half_s / (count // 2)


def _timed_plan(job: SimulatedJob) -> tuple[float, Plan]:
    started = time.monotonic()
    plan = plan_extraction(job)
    return time.monotonic() - started, plan


def _prefect(job: SimulatedJob, folder: str) -> None:
    """What a Prefect task adds to a batch."""
    from prefect.testing.utilities import prefect_test_harness

    from vlpipe.pipelines.extract_flow import run_as_flow

    plain = run_extraction(job.model_copy(update={"store": f"{folder}/plain"})).wall_s
    with prefect_test_harness(server_startup_timeout=120):
        run_as_flow(job.model_copy(update={"limit": 1, "store": f"{folder}/first"}))
        flow = run_as_flow(job.model_copy(update={"store": f"{folder}/flow"})).wall_s
    num_batches = len(plan_extraction(job.model_copy(update={"store": f"{folder}/no"})).batches)
    added = (flow - plain) / num_batches
    print(
        f"scale: a Prefect task adds {added * 1e3:.0f} ms to a batch, {added / BATCH_S:.2%} of "
        f"{BATCH_S:.0f} s (goal 1%), the flow's own second included"
    )


def _dask(job: SimulatedJob, count: int, num_workers: int) -> float:
    """Seconds a batch beyond its sleep, with so many workers as threads of one process."""
    import dask
    from distributed import LocalCluster

    num_batches = len(plan_extraction(job).batches)
    # The workers share a process: a limit would count the memory of all for each, and each would
    # look at the whole process a hundred times a second.
    alone = {
        "distributed.worker.profile.enabled": False,
        "distributed.admin.system-monitor.interval": "10s",
    }
    with dask.config.set(alone), LocalCluster(
        n_workers=num_workers, threads_per_worker=1, processes=False, dashboard_address=None,
        protocol="tcp://", memory_limit=0, silence_logs=logging.ERROR,
    ) as cluster:  # fmt: skip
        address = DaskOptions(address=cluster.scheduler_address, threads=1)
        seconds = BATCH_S * num_batches / count
        summary = run_extraction(job.model_copy(update={"dask": address, "seconds": seconds}))
    assert summary.extracted == count
    ideal = BATCH_S * num_batches / num_workers
    rounds = num_batches / num_workers
    print(
        f"scale: {num_workers} Dask workers, {num_batches} batches of {BATCH_S:.0f} s: "
        f"{summary.wall_s:.0f} s, {ideal / summary.wall_s:.0%} of the ideal {ideal:.0f} s"
    )
    return (summary.wall_s - ideal) / rounds
