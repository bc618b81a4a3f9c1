"""Whole sequences out of decode streams, for tests that compare them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlpipe.extractors.media import (
    AudioBlock,
    DecodePool,
    DecodeSummary,
    FrameBlock,
    MediaInfo,
    MediaRequest,
)


@dataclass(frozen=True)
class Decoded:
    """All blocks of one file, joined for each request."""

    info: MediaInfo
    summary: DecodeSummary
    blocks: list[FrameBlock | AudioBlock]

    def frames(self, request: int = 0) -> NDArray[np.uint8]:
        return np.concatenate([b.frames for b in self._of(request, FrameBlock)])

    def spans(self, request: int = 0) -> NDArray[np.float64]:
        return np.concatenate([b.spans for b in self._of(request, FrameBlock)])

    def samples(self, request: int = 0) -> NDArray[np.float32]:
        parts = [b.samples for b in self._of(request, AudioBlock)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _of(self, request: int, kind: type) -> list:
        return [b for b in self.blocks if isinstance(b, kind) and b.request == request]


def decode_all(pool: DecodePool, path: Path, *requests: MediaRequest) -> Decoded:
    """Everything that the requests get from a file."""
    with pool.open(path, requests) as stream:
        blocks = list(stream)
        return Decoded(stream.info, stream.summary, blocks)
