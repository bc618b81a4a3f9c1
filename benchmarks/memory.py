"""Peak memory of the whole process tree: it must not grow with a video's length.

Small frames and a small network keep an hour of video to some minutes; frames and samples that
waited would show at any size, and sound is read as well. R(2+1)D on 720p is the case that tools
fail which hold the whole clip: 9.2 GiB for ten seconds. Options: `--hour`, `--wide` for one alone.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks._clips import make_clip
from benchmarks._measure import peak_memory

SMALL = ("resnet18.fps=1", "resnet18.resize=64", "resnet18.crop=64")


def run(options: Sequence[str] = ()) -> None:
    """Prints MiB for a minute and an hour of video, and for R(2+1)D."""
    with tempfile.TemporaryDirectory() as name:
        if "--wide" not in options:
            _hour(Path(name))
        if "--hour" not in options:
            _wide(Path(name))


def _hour(folder: Path) -> None:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    peaks = {}
    for minutes in (1, 60):
        clip = make_clip(folder / f"{minutes}.mp4", seconds=60 * minutes, size="160x120", rate=10)
        peaks[minutes] = _peak(folder, clip, "resnet18,vggish", *settings)
        print(f"memory: resnet18 and vggish, {minutes} min: {peaks[minutes]:,.0f} MiB", flush=True)
    print(f"memory: 60 min over 1 min: {peaks[60] / peaks[1]:.2f} (goal at most 1.3)", flush=True)


def _wide(folder: Path) -> None:
    clip = make_clip(folder / "wide.mp4", seconds=10)
    peak = _peak(folder, clip, "r2plus1d_18")
    print(f"memory: r2plus1d_18, 10 s of 1280x720: {peak:,.0f} MiB (goal below 3,072)", flush=True)


def _peak(folder: Path, clip: Path, features: str, *options: str) -> float:
    command = ["-m", "vlpipe", "extract", str(clip), "--features", features]
    store = folder / f"store-{clip.stem}-{features}"
    return peak_memory(*command, "--weights", "untrained", "--store", str(store), *options)


if __name__ == "__main__":
    run()
