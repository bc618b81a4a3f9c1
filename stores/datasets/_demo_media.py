"""Files of the demo dataset: GIFs with irregular delays, MP4 with a tone for every repetition."""

import io
import math
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np
from PIL import Image

from vlpipe.stores.datasets._demo_drawing import Painter
from vlpipe.stores.datasets._demo_scene import ACTIONS, Act, Scene
from vlpipe.stores.errors import EnvironmentLacks

AUDIO_HZ = 44_100
_PALETTE_COLORS = 96
_PALETTE_FRAMES = 6


def pitch_hz(action: str) -> float:
    """The pitch of an action's tone: four semitones apart, from 220 Hz."""
    return 220.0 * math.pow(2.0, 4 * ACTIONS.index(action) / 12)


def write_gif(path: Path, scene: Scene, size: tuple[int, int], delays_cs: Sequence[int]) -> None:
    """A GIF with one frame per delay, each showing the scene at the middle of its time."""
    painter = Painter(scene, *size)
    frames, start_cs = [], 0
    for delay_cs in delays_cs:
        frames.append(painter.frame((start_cs + delay_cs / 2) / 100))
        start_cs += delay_cs
    palette = _palette(frames)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    indexed[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=[10 * delay_cs for delay_cs in delays_cs],
        loop=0,
        disposal=1,
        optimize=False,
    )


def _palette(frames: Sequence[Image.Image]) -> Image.Image:
    """A palette of colours that occur in frames from the whole clip."""
    width, height = frames[0].size
    chosen = [frames[len(frames) * place // _PALETTE_FRAMES] for place in range(_PALETTE_FRAMES)]
    strip = Image.new("RGB", (width, height * _PALETTE_FRAMES))
    for place, frame in enumerate(chosen):
        strip.paste(frame, (0, place * height))
    return strip.quantize(_PALETTE_COLORS, method=Image.Quantize.MEDIANCUT)


def write_mp4(
    path: Path,
    scene: Scene,
    size: tuple[int, int],
    fps: int,
    *,
    sound_s: tuple[float, float] | None,
) -> None:
    """An H.264 file; sound_s is the part of the clip that has sound (AAC), None for no track."""
    painter = Painter(scene, *size)
    num_frames = round(scene.duration_s * fps)
    pixels = b"".join(painter.frame((i + 0.5) / fps).tobytes() for i in range(num_frames))
    with tempfile.TemporaryDirectory(prefix="vlpipe-demo-") as scratch:
        streams = [
            ffmpeg.input(
                "pipe:0",
                format="rawvideo",
                pix_fmt="rgb24",
                s=f"{size[0]}x{size[1]}",
                framerate=fps,
            )
        ]
        options: dict[str, object] = {}
        if sound_s is not None:
            sound = Path(scratch) / "sound.wav"
            sound.write_bytes(_wav(_tones(scene, sound_s[1])[round(sound_s[0] * AUDIO_HZ) :]))
            streams.append(ffmpeg.input(f"file:{sound}", itsoffset=sound_s[0]))
            options = {"acodec": "aac", "audio_bitrate": "64k"}
        # One thread and no dates or versions in the file: the same scene gives the same bytes.
        output = ffmpeg.output(
            *streams,
            f"file:{path.absolute()}",
            vcodec="libx264",
            preset="veryfast",
            crf=20,
            pix_fmt="yuv420p",
            threads=1,
            map_metadata=-1,
            fflags="+bitexact",
            movflags="+faststart",
            **{"flags:v": "+bitexact", "flags:a": "+bitexact"},
            **options,
        )
        _run(output, pixels, path)


def _run(output: object, pixels: bytes, path: Path) -> None:
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
        ffmpeg.run(output, cmd=program, input=pixels, quiet=True, overwrite_output=True)
    except ffmpeg.Error as error:
        said = error.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise EnvironmentLacks(
            f"ffmpeg could not write {path}: {' '.join(said)}", hint="vlpipe doctor"
        ) from error
    except (OSError, RuntimeError) as error:  # RuntimeError: imageio-ffmpeg finds no program
        raise EnvironmentLacks(f"ffmpeg cannot be run: {error}", hint="vlpipe doctor") from error


def _tones(scene: Scene, until_s: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Mono samples in -1..1: one beep at the start of each repetition, at the action's pitch."""
    samples = np.zeros(round(until_s * AUDIO_HZ))
    for act in scene.acts:
        beep = _beep(act)
        for repetition in range(act.times):
            start = round((act.start_s + repetition * act.period_s) * AUDIO_HZ)
            end = min(start + len(beep), len(samples))
            if start < end:
                samples[start:end] += beep[: end - start]
    return samples


def _beep(act: Act) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A tone with a soft start and end; its second harmonic keeps it audible on small speakers."""
    length = round(min(0.25, act.active_s) * AUDIO_HZ)
    time_s = np.arange(length) / AUDIO_HZ
    turn = 2 * np.pi * pitch_hz(act.action) * time_s
    envelope: np.ndarray[tuple[int], np.dtype[np.float64]] = np.hanning(length)
    return 0.3 * envelope * (np.sin(turn) + 0.3 * np.sin(2 * turn))


def _wav(samples: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(AUDIO_HZ)
        out.writeframes((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    return buffer.getvalue()
