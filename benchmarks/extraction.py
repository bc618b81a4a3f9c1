"""Several extractors in one pass, against one run each the way the usual tools do it.

The usual way: each extractor by itself re-encodes the video to its frame rate in a temporary
file, decodes that, and runs its network on one frame at a time, one video at a time. Same
weights, same machine, same threads; both sides in turn, twice, the better time of each counts.
"""

import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image

from vlpipe.extractors import create_extractor
from vlpipe.pipelines.extraction import run_extraction
from vlpipe.pipelines.job import ExtractionJob
from vlpipe.stores import FeatureStore

NUM_CLIPS, SECONDS, SIZE = 6, 3, "1280x720"
EXTRACTORS = {
    "resnet18": {"fps": 5, "resize": 128, "crop": 112},
    "resnet34": {"fps": 4, "resize": 128, "crop": 112},
    "resnet50": {"fps": 2, "resize": 128, "crop": 112},
    "resnext50_32x4d": {"fps": 1, "resize": 128, "crop": 112},
}


def make_clips(folder: Path) -> list[Path]:
    """Short 720p clips of a moving test picture."""
    paths = []
    for n in range(NUM_CLIPS):
        path = folder / f"clip{n}.mp4"
        source = f"testsrc2=size={SIZE}:rate=30:duration={SECONDS},hue=h={60 * n}"
        subprocess.run(
            [
                *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", source),
                *("-pix_fmt", "yuv420p", str(path)),
            ],
            check=True,
        )
        paths.append(path)
    return paths


def one_pass(folder: Path, store: str) -> None:
    """All extractors with one decode of each video, into a store."""
    summary = run_extraction(
        ExtractionJob(
            paths=(folder,),
            store=store,
            features=tuple(EXTRACTORS),
            settings=EXTRACTORS,
            weights={"*": "untrained"},
        )
    )
    assert summary.extracted == NUM_CLIPS, summary


def usual_way(paths: Sequence[Path]) -> dict[str, dict[str, np.ndarray]]:
    """Rows by extractor and video, with a temporary re-encoded file for each pair of them."""
    made: dict[str, dict[str, np.ndarray]] = {}
    for name, settings in EXTRACTORS.items():
        extractor = create_extractor(name, weights="untrained", **settings)
        made[name] = {path.stem: _alone(extractor, path, settings) for path in paths}
    return made


def _alone(extractor, path: Path, settings: dict) -> np.ndarray:  # noqa: ANN001
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        resampled = Path(folder) / "resampled.mp4"
        subprocess.run(
            [
                *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)),
                *("-filter:v", f"fps={settings['fps']}", str(resampled)),
            ],
            check=True,
        )
        with av.open(str(resampled)) as container:
            for frame in container.decode(video=0):
                image = frame.to_image()
                short = settings["resize"]
                scale = short / min(image.size)
                size = (int(image.width * scale), int(image.height * scale))
                image = image.resize(size, Image.Resampling.BILINEAR)
                left, top = ((edge - settings["crop"]) // 2 for edge in image.size)
                square = image.crop((left, top, left + settings["crop"], top + settings["crop"]))
                with torch.inference_mode():
                    x = extractor.to_input(np.array(square)[None])
                    rows.append(extractor.network(x)["pool5"][0].numpy())
    return np.stack(rows)


def run() -> None:
    """Prints seconds, the ratio and peak memory."""
    print(f"extraction: {NUM_CLIPS} clips of {SECONDS} s, {SIZE}, {', '.join(EXTRACTORS)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clips"
        folder.mkdir()
        paths = make_clips(folder)
        times: dict[str, list[float]] = {"one pass": [], "usual way": []}
        for attempt in range(2):
            store = str(Path(name) / f"store{attempt}")
            started = time.perf_counter()
            one_pass(folder, store)
            times["one pass"].append(time.perf_counter() - started)
            started = time.perf_counter()
            made = usual_way(paths)
            times["usual way"].append(time.perf_counter() - started)
        with FeatureStore.open(store) as opened:
            for extractor, rows in made.items():
                for video_id, wanted in rows.items():
                    assert opened[extractor][video_id].shape == wanted.shape, (extractor, video_id)
    best = {side: min(seconds) for side, seconds in times.items()}
    for side, seconds in best.items():
        print(f"  {side:10} {seconds:6.2f} s")
    print(f"  ratio      {best['usual way'] / best['one pass']:6.2f} x")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  peak memory of this process {peak:,.0f} MiB")


if __name__ == "__main__":
    run()
