"""What planning, batching and committing cost for 100,000 videos in one process.

Nothing is decoded or computed (see `_simulation`). `--small` takes 2,000 videos. Figures for a
million videos are an extrapolation of these, and are named so. Many workers: `cluster`.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks._simulation import SimulatedJob, make_files
from vlpipe.pipelines.extraction.extract import plan_extraction, run_extraction
from vlpipe.pipelines.extraction.planning import Plan

BATCH_S = 30.0
MILLION = 1_000_000


def run(options: Sequence[str] = ()) -> None:
    """Prints costs a video and a batch, each beside its goal."""
    if set(options) - {"--small"}:
        sys.exit(f"scale knows --small, not {' '.join(options)}")
    count = 2_000 if "--small" in options else 100_000
    with tempfile.TemporaryDirectory() as name:
        files = make_files(Path(name) / "media", count)
        job = SimulatedJob(paths=(files,), store=f"{name}/local")
        job.specs()
        plan_s, per_video_s = _local(job, count)
        _prefect(job.model_copy(update={"limit": min(count, 4000)}), name)
    print(
        f"scale: extrapolated to a million videos: plan {plan_s / count * MILLION:,.0f} s; all "
        f"else in one process {per_video_s * MILLION / 3600:.1f} h"
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
