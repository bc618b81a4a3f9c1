"""Media to measure on: ffmpeg's moving test picture with a tone, at any size and length."""

import subprocess
from pathlib import Path

import imageio_ffmpeg


def make_clip(
    path: Path, *, seconds: float, size: str = "1280x720", rate: int = 30, hue: int = 0
) -> Path:
    """An mp4 at `path` of that many seconds, with sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = f"testsrc2=size={size}:rate={rate}:duration={seconds},hue=h={hue}"
    run_ffmpeg(
        *("-f", "lavfi", "-i", picture),
        *("-f", "lavfi", "-i", f"sine=frequency={220 + hue}:duration={seconds}"),
        *("-pix_fmt", "yuv420p", "-preset", "veryfast", "-shortest", str(path)),
    )
    return path


def make_clips(folder: Path, count: int, *, seconds: float, size: str = "1280x720") -> list[Path]:
    """So many clips of different hues."""
    return [
        make_clip(folder / f"clip{n}.mp4", seconds=seconds, size=size, hue=360 * n // count)
        for n in range(count)
    ]


def run_ffmpeg(*arguments: str) -> None:
    """Runs ffmpeg quietly; CalledProcessError when it fails."""
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments], check=True)
