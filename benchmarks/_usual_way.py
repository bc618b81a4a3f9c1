"""How feature tools are usually written: one extractor, one video, one input of the network a time.

For each extractor alone the video is brought to its frame rate by re-encoding it into a temporary
file (or its sound is written to one), that file is decoded in the same process, frames are scaled
by Pillow, and the network sees one frame or stack at a time, in fp32. Networks, weights and the
rule that cuts a video into samples are vlpipe's, so that the rows are the same.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from benchmarks._clips import run_ffmpeg
from vlpipe.extractors import Extractor
from vlpipe.extractors.media import AudioBlock, AudioRequest, FrameBlock, FrameRequest


def extract_usual_way(extractor: Extractor, path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Rows of the extractor's features of one video."""
    request = extractor.spec.request
    assert request is not None
    blocks = _sound(request, path) if isinstance(request, AudioRequest) else _frames(request, path)
    rows: dict[str, list[npt.NDArray[np.float32]]] = {o.feature: [] for o in extractor.spec.outputs}
    sampler = extractor.sampler(None)  # type: ignore[arg-type]

    def run(samples: object) -> None:
        for sample in samples:  # type: ignore[attr-defined]
            with torch.inference_mode():
                made = extractor.network(extractor.to_input(sample.data[None]))
            for output in extractor.spec.outputs:
                rows[output.feature].append(made[output.key][0].numpy())

    for block in blocks:
        run(sampler.push(block))
    run(sampler.finish())
    return {feature: np.stack(values) for feature, values in rows.items()}


def _frames(request: FrameRequest, path: Path) -> Iterator[FrameBlock]:
    with tempfile.TemporaryDirectory() as folder:
        if request.fps is not None:
            resampled = Path(folder) / "resampled.mp4"
            run_ffmpeg("-i", str(path), "-filter:v", f"fps={request.fps}", str(resampled))
            path = resampled
        with av.open(str(path)) as container:
            for n, frame in enumerate(container.decode(video=0)):
                picture = _scaled(frame.to_image(), request)
                span = np.array([[n, n + 1]]) / 25.0
                yield FrameBlock(0, np.array(picture)[None], span, n)


def _scaled(picture: Image.Image, request: FrameRequest) -> Image.Image:
    if request.resize is not None:
        height, width = request.resize.output_size(picture.height, picture.width)
        by = getattr(Image.Resampling, request.resize.interpolation.upper())
        picture = picture.resize((width, height), by)
    if request.center_crop is not None:
        edge = request.center_crop
        left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
        picture = picture.crop((left, top, left + edge, top + edge))
    return picture


def _sound(request: AudioRequest, path: Path) -> Iterator[AudioBlock]:
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "sound.wav"
        run_ffmpeg("-i", str(path), "-ac", "1", "-ar", str(request.sample_rate), str(wave))
        with av.open(str(wave)) as container:
            parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    yield AudioBlock(0, np.concatenate(parts).astype(np.float32) / 32768, 0.0, 0)
