"""Small media files for tests, made on the spot by ffmpeg, PyAV and Pillow."""

import random
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image

NUMBER_BITS = 12


def ffmpeg(*arguments: str | Path, stdin: bytes | None = None) -> bytes:
    """What the ffmpeg program writes to standard output; fails with its messages."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def make_video(
    path: Path,
    *,
    seconds: float = 1.0,
    size: tuple[int, int] = (64, 48),
    fps: float | str = 25,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    audio: str | None = None,
    audio_seconds: float | None = None,
    options: Sequence[str] = (),
) -> Path:
    """A moving test picture, (width, height) = size, with a 440 Hz tone when `audio` is a codec."""
    sound: list[str] = []
    if audio is not None:
        tone = f"sine=frequency=440:sample_rate=44100:duration={audio_seconds or seconds}"
        sound = ["-f", "lavfi", "-i", tone, "-c:a", audio]
    picture = f"testsrc=size={size[0]}x{size[1]}:rate={fps}:duration={seconds}"
    quick = ["-preset", "ultrafast"] if codec in ("libx264", "libx265") else []
    ffmpeg(
        *("-f", "lavfi", "-i", picture, *sound, "-c:v", codec, "-pix_fmt", pixel_format),
        *(*quick, *options, f"file:{path}"),
    )
    return path


def make_audio(
    path: Path, *, seconds: float = 1.0, filters: str = "", options: Sequence[str] = ()
) -> Path:
    """A 440 Hz tone in the format of the path's ending; `filters` shape it further."""
    tone = f"sine=frequency=440:sample_rate=44100:duration={seconds}"
    ffmpeg("-f", "lavfi", "-i", tone + (f",{filters}" if filters else ""), *options, path)
    return path


def make_gif(
    path: Path, delays_ms: Sequence[int], *, size: tuple[int, int] = (48, 32), seed: int = 0
) -> Path:
    """A GIF of random pictures with the given delays (multiples of 10 ms)."""
    rng = np.random.default_rng(seed)
    width, height = size
    pictures = [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)) for _ in delays_ms
    ]
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=list(delays_ms) if len(delays_ms) > 1 else delays_ms[0],
        loop=0,
    )
    return path


def numbered_frame(number: int, size: tuple[int, int] = (96, 16)) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] that shows `number` as black and white stripes; see `number_of`."""
    width, height = size
    bits = [(number >> k) & 1 for k in range(NUMBER_BITS)]
    row = np.repeat(np.array(bits, np.uint8) * 219 + 16, width // NUMBER_BITS)
    return np.broadcast_to(row[None, :, None], (height, len(row), 3)).copy()


def number_of(frame: NDArray[np.uint8]) -> int:
    """The number that a picture made by `numbered_frame` shows, after any mild compression."""
    stripes = frame.mean(axis=(0, 2)).reshape(NUMBER_BITS, -1).mean(axis=1)
    return sum(1 << k for k, level in enumerate(stripes) if level > 128)


def make_numbered(
    path: Path,
    times: Sequence[int],
    *,
    time_base: Fraction = Fraction(1, 1000),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    fps: int = 25,
) -> Path:
    """A video whose i-th picture shows the number i from `times[i]` ticks on."""
    container_format = {"mkv": "matroska"}.get(path.suffix[1:], path.suffix[1:])
    with av.open(f"file:{path}", "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = 96, 16
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = time_base
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def reference_frames(path: Path, filters: str | None = None) -> NDArray[np.uint8]:
    """uint8 [T, H, W, 3], the pictures that the ffmpeg program makes of a file."""
    chosen = [] if filters is None else ["-vf", filters]
    return _reference(path, chosen)


def _reference(path: Path, arguments: list[str]) -> NDArray[np.uint8]:
    raw = ffmpeg(
        *("-i", f"file:{path}", "-map", "0:v:0", *arguments, "-fps_mode", "passthrough"),
        *("-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "-"),
    )
    frames, at = [], 0
    while at < len(raw):
        magic, width, height, _ = raw[at : at + 32].split(maxsplit=4)[:4]
        header = raw.index(b"255\n", at) + 4
        assert magic == b"P6"
        count = int(width) * int(height) * 3
        frames.append(
            np.frombuffer(raw, np.uint8, count, header).reshape(int(height), int(width), 3)
        )
        at = header + count
    return np.stack(frames)


def reference_samples(path: Path, sample_rate: int = 16_000) -> NDArray[np.float32]:
    """float32 [S], the first channel of the sound as the ffmpeg program resamples it."""
    raw = ffmpeg(
        *("-i", f"file:{path}", "-map", "0:a:0", "-ar", str(sample_rate), "-f", "f32le", "-"),
    )
    return np.frombuffer(raw, np.float32)


def cut(source: Path, target: Path, share: float) -> Path:
    """The first `share` of a file's bytes, as an interrupted download leaves it."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def mutate(data: bytes, seed: int) -> bytes:
    """The bytes with a drawn kind of damage: flips, header flips, a cut, or a run of zeros."""
    rng = random.Random(seed)
    damaged = bytearray(data)
    kind = rng.choice(["flip", "flip", "header", "cut", "run"])
    if kind == "cut":
        return bytes(damaged[: rng.randrange(1, len(damaged))])
    if kind == "run":
        start = rng.randrange(len(damaged))
        length = min(rng.randrange(1, 2000), len(damaged) - start)
        damaged[start : start + length] = bytes(length)
        return bytes(damaged)
    reach = min(1024, len(damaged)) if kind == "header" else len(damaged)
    for _ in range(rng.randrange(1, 20)):
        damaged[rng.randrange(reach)] = rng.randrange(256)
    return bytes(damaged)
