"""What a decode stream hands out: time-stamped blocks of frames or samples, and a summary."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vlpipe.extractors.media.info import DecoderName


@dataclass(frozen=True, slots=True, eq=False)
class FrameBlock:
    """Consecutive frames of one request.

    request: index into the requests given to `open`.
    frames: uint8 [T, H, W, 3], RGB, T >= 1.
    spans: float64 [T, 2], seconds [start, end) from the start of the file.
    first_frame: index of frames[0] in this request's sequence.
    """

    request: int
    frames: NDArray[np.uint8]
    spans: NDArray[np.float64]
    first_frame: int


@dataclass(frozen=True, slots=True, eq=False)
class AudioBlock:
    """Consecutive samples of one request.

    samples: float32 [S], mono, in [-1, 1), S >= 1.
    start_s: seconds of samples[0] from the start of the file.
    first_sample: index of samples[0] in this request's sequence.
    """

    request: int
    samples: NDArray[np.float32]
    start_s: float
    first_sample: int


@dataclass(frozen=True, slots=True)
class DecodeSummary:
    """What decoding one file came to.

    frames_decoded: source frames that the decoder gave, each counted once whatever the number of
        requests; fewer than frames_expected after lenient decoding of a damaged file, or where a
        sparse request let the decoder skip (`is_sparse`).
    frames_expected: pictures that the packet table promises; 0 when no frames were requested.
    frames_scaled: Pillow resizes made; requests with equal resize and crop share them.
    samples_decoded: audio samples at the source's rate.
    decoder: that gave the pictures in this pass. Where MediaInfo.decoder is "decord", a dense pass
        is made by PyAV all the same; the pictures are equal bit for bit.
    cpu_s, peak_memory_bytes: processor seconds and peak resident memory of the child.
    warnings: what was wrong or remarkable, in words.
    """

    frames_decoded: int
    frames_expected: int
    frames_scaled: int
    samples_decoded: int
    is_sparse: bool
    decoder: DecoderName
    cpu_s: float
    peak_memory_bytes: int
    warnings: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """Decoded over expected frames, 1.0 when nothing is missing."""
        if self.is_sparse or self.frames_decoded >= self.frames_expected:
            return 1.0
        return self.frames_decoded / self.frames_expected

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**asdict(self), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The summary that `to_json` described."""
        return cls(**{**fields, "warnings": tuple(fields["warnings"])})
