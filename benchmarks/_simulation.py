"""Extractions that decode nothing and compute nothing: all else is the real thing.

A `SimulatedJob` is planned, cut into batches, run and committed as any other, by any runner. But
its decoder hands out no pictures, and its extractor, which is in no registry, sleeps and makes
rows.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, ExtractorSpec, Inferred, Output
from vlpipe.extractors.media import DecodePool, MediaInfo, MediaRequest
from vlpipe.extractors.media.blocks import DecodeSummary
from vlpipe.extractors.samples import Block, Sample
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint
from vlpipe.extractors.weights.source import WeightsSource
from vlpipe.pipelines.extraction.job import ExtractionJob

FEATURE = "simulated"
NUM_ROWS, ROW_SIZE = 8, 512

_NOTHING_DECODED = DecodeSummary(0, 0, 0, 0, False, "pyav", 0.0, 0, ())


class SleepingExtractor(Extractor):
    """Sleeps for each video, and makes rows that follow from its id."""

    class Config(ExtractorConfig):
        """seconds: of sleep, in every call of the network for each video in it."""

        seconds: float = 0.0

    name = FEATURE
    version = 1
    batch_size = 16
    gflop_per_sample = 0.0
    description = "sleeps and makes rows"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest | None:
        del config
        return None

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        del config
        return (Output(FEATURE, "rows", (ROW_SIZE,), ("feature",)),)

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        del config
        return nn.Identity()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        raise AssertionError("there are no weights to load")

    def sampler(self, info: MediaInfo) -> "_OneSample":
        return _OneSample(info)

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        raise AssertionError("there is no network")

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        assert isinstance(self.spec.config, SleepingExtractor.Config)
        time.sleep(self.spec.config.seconds * len(samples))
        firsts = np.array([sample.data[0] for sample in samples])
        rows = np.repeat(firsts, NUM_ROWS)[:, None] + np.linspace(0, 1, ROW_SIZE)
        starts = np.tile(np.arange(NUM_ROWS, dtype=float), len(samples))
        return Inferred(
            {FEATURE: rows.astype(np.float32)},
            np.stack([starts, starts + 1], axis=1),
            np.full(len(samples), NUM_ROWS),
        )


class _OneSample:
    def __init__(self, info: MediaInfo) -> None:
        self._info = info

    def push(self, block: Block) -> Sequence[Sample]:
        raise AssertionError(f"nothing was to be decoded, and {block} was")

    def finish(self) -> Sequence[Sample]:
        value = int(self._info.sha256[:3], 16) / 16**3
        return [Sample(np.array([value]), (0.0, float(NUM_ROWS)))]


class _Stream:
    """Of a media file in which nothing was asked for."""

    summary = _NOTHING_DECODED

    def __init__(self, path: Path) -> None:
        digest = hashlib.sha256(str(path).encode()).hexdigest()
        self.info = MediaInfo(
            str(path), "simulated", float(NUM_ROWS), 0, digest, None, None, "pyav"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __iter__(self) -> Iterator[Block]:
        return iter(())


class _Pool:
    """Takes the place of the decoding processes."""

    def open(self, path: Path, requests: Sequence[MediaRequest]) -> _Stream:
        assert not requests
        return _Stream(path)

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class SimulatedJob(ExtractionJob):
    """An extraction of the files at `paths`, which may hold anything.

    seconds: that each video takes its worker.
    """

    features: tuple[str, ...] = (FEATURE,)
    seconds: float = 0.0

    def specs(self) -> list[ExtractorSpec]:
        config = SleepingExtractor.Config(seconds=self.seconds)
        return [ExtractorSpec(SleepingExtractor, config, WeightsSource(is_untrained=True))]

    def decode_pool(self, num_workers: int) -> DecodePool:
        del num_workers
        return cast(DecodePool, _Pool())


def make_files(folder: Path, count: int) -> Path:
    """A folder with so many files that look like media, a thousand in each folder below."""
    for first in range(0, count, 1000):
        below = folder / f"{first // 1000:04d}"
        below.mkdir(parents=True, exist_ok=True)
        for number in range(first, min(first + 1000, count)):
            (below / f"video{number:07d}.gif").touch()
    return folder
