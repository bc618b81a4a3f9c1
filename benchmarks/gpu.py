"""I3D of RGB and of PWC-Net's flow on a GPU: rates, share of the matrix rate, whether it starves.

For each precision: the networks alone on stacks that are on the device already, against a matrix
product measured in the same run (fp32 without TF32, as the extractors run); then a whole
extraction of 720p clips, whose frames a second stand beside those that decoding alone reaches with
the same processes. The first line compares the numbers with those of the CPU.

Options: `--clips=8`, `--seconds=30` of each, `--device=cuda:0`.
"""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks._clips import make_clips
from vlpipe.extractors import create_extractor
from vlpipe.extractors.extractor import Extractor
from vlpipe.extractors.precision import Precision
from vlpipe.pipelines.extraction.cores import available_cores
from vlpipe.pipelines.extraction.extract import plan_extraction, run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.extraction.receipts import ExtractionSummary

PRECISIONS: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
FEATURES = ("i3d_rgb", "i3d_flow")
STACKS = {"i3d_rgb": (3, 64, 224, 224), "i3d_flow": (65, 3, 256, 455)}
"""The input of one stack; a row of either stands for 64 frames at 25 a second."""


def run(options: Sequence[str] = ()) -> None:
    """Prints a table; without a GPU, a line that says so."""
    given = dict(option.removeprefix("--").split("=", 1) for option in options)
    device = given.get("device", "cuda:0")
    if not torch.cuda.is_available():
        print("gpu: this machine has none; nothing was measured")
        return
    print(f"gpu: {torch.cuda.get_device_name(device)}, {available_cores()} cores", flush=True)
    _compare_with_cpu(device)
    for precision in PRECISIONS:
        _networks(precision, device)
    count, seconds = int(given.get("clips", 8)), float(given.get("seconds", 30))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = make_clips(folder / "clips", count, seconds=seconds)
        print(f"gpu: {count} clips of {seconds:g} s, 1280x720, 30 frames a second", flush=True)
        for precision in PRECISIONS:
            _extraction(folder, clips, precision, device)


def _compare_with_cpu(device: str) -> None:
    torch.manual_seed(0)
    for name in FEATURES:
        x = _drawn_stack(name)[:, :17] if name == "i3d_flow" else _drawn_stack(name)
        made = {d: _extractor(name, "fp32", d).run_network(x.to(d)) for d in ("cpu", device)}
        wanted, got = (made[d]["pooled"].double().cpu() for d in ("cpu", device))
        error = ((got - wanted).norm() / wanted.norm()).item()
        print(
            f"gpu: {name} fp32 against the CPU, relative error {error:.1e} (goal 1e-4)", flush=True
        )


def _networks(precision: Precision, device: str) -> None:
    rate = _matrix_rate(PRECISIONS[precision], device)
    spent = 0.0
    for name in FEATURES:
        extractor = _extractor(name, precision, device)
        x = _drawn_stack(name).expand(extractor.batch_size, -1, -1, -1, -1).to(device)
        seconds = _seconds(extractor, x) / extractor.batch_size
        spent += seconds
        achieved = extractor.gflop_per_sample / seconds / 1000
        print(
            f"gpu: {name} {precision}: {1000 * seconds:.1f} ms a stack, {achieved:.1f} of "
            f"{rate:.1f} TFLOP/s, {achieved / rate:.0%} of the matrix rate",
            flush=True,
        )
    print(f"gpu: both, {precision}: {64 / spent:,.0f} frames/s of 25 a second", flush=True)


def _extraction(folder: Path, clips: Sequence[Path], precision: Precision, device: str) -> None:
    def job(store: str) -> ExtractionJob:
        return ExtractionJob(
            paths=(clips[0].parent,),
            store=str(folder / store),
            features=FEATURES,
            weights={"*": "untrained"},
            precision=precision,
            device=device,
        )

    summary = run_extraction(job(f"store-{precision}"))
    frames = sum(v["rows"] for v in summary.features.values()) / len(FEATURES) * 64
    decoded = _decode_alone(job("none"))
    _print_extraction(summary, frames, decoded, precision)


def _print_extraction(
    summary: ExtractionSummary, frames: float, decode_s: float, precision: Precision
) -> None:
    network = summary.stage_s["network"]
    print(
        f"gpu: extraction {precision}: {frames / summary.wall_s:,.0f} frames/s in "
        f"{summary.wall_s:.1f} s with start, networks busy {network:.1f} s "
        f"({network / summary.wall_s:.0%}); decoding alone {frames / decode_s:,.0f} frames/s "
        f"in {decode_s:.1f} s, {network / decode_s:.1f} x as fast as the networks",
        flush=True,
    )


def _decode_alone(job: ExtractionJob) -> float:
    """Seconds that the decoding processes of the job take when nobody waits for a network."""
    plan = plan_extraction(job)
    requests = list(dict.fromkeys(s.request for s in plan.specs if s.request is not None))
    paths = [task.path for batch in plan.batches for task in batch.tasks]
    workers = min(max(1, available_cores() - 1), len(paths))  # as many as an extraction has
    started = time.monotonic()
    with job.decode_pool(workers) as pool, ThreadPoolExecutor(workers) as threads:

        def decode(path: Path) -> int:
            with pool.open(path, requests) as stream:
                return sum(1 for _ in stream)

        list(threads.map(decode, paths))
    return time.monotonic() - started


def _extractor(name: str, precision: Precision, device: str) -> Extractor:
    return create_extractor(name, weights="untrained", precision=precision, device=device)


def _drawn_stack(name: str) -> torch.Tensor:
    shape = STACKS[name]
    if name == "i3d_rgb":
        return 2 * torch.rand(1, *shape) - 1
    coarse = torch.rand(shape[0], 3, shape[2] // 8, shape[3] // 8)
    smooth = torch.nn.functional.interpolate(coarse, shape[2:], mode="bicubic")
    return (255 * smooth).clamp(0, 255).byte()[None]


def _seconds(extractor: Extractor, x: torch.Tensor, turns: int = 5) -> float:
    """Least seconds of one batch on the device, after one to warm up."""
    times = []
    for _ in range(turns + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        extractor.run_network(x)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _matrix_rate(dtype: torch.dtype, device: str, edge: int = 8192) -> float:
    """TFLOP/s of a square matrix product, the best of ten."""
    a, b = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(11):
        torch.cuda.synchronize()
        started = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * edge**3 / min(times[1:]) / 1e12


if __name__ == "__main__":
    run()
