"""How the box of each person track moves: some numbers a track, without a network.

A cheap stand-in for `track_motion`: it tells who jumps, ducks, goes left or is gone for a moment,
where I3D on a CPU takes seconds. Reads `person_tracks`.

Data flow: rows (frame, track) of a video -> signals of each track over its frames, in units of the
height of its median box and relative to that box: centre x, top, bottom, width, height -> of each,
and of its change a second, seven numbers: mean, deviation, lowest, highest, 10th, 50th and 90th
percentile -> `path` (M, 71): 5 x 2 x 7, and the share of frames from the first to the last in which
the track is not seen. `track` (M): its id.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from vlpipe.extractors.extractor import ExtractorConfig, Output, Source
from vlpipe.extractors.media import MediaInfo
from vlpipe.extractors.people.rows import MadeRows, RowsExtractor
from vlpipe.extractors.people.track_rows import TrackExtractor
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler, SourceRows

WIDTH = 71


class TrackPathsConfig(ExtractorConfig):
    """fps: frames a second, as in `person_tracks`."""

    fps: float | None = Field(default=24.0, gt=0)


@register("track_paths")
class TrackPaths(TrackExtractor, RowsExtractor):
    """Movements of boxes; all outputs share the row index (track)."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = TrackPathsConfig
    description: ClassVar[str] = "how the boxes of person tracks move: 71 numbers a track"

    @classmethod
    def sources(cls, config: ExtractorConfig) -> Mapping[str, Source]:
        return {"tracks": Source("person_tracks", {"fps": cast(TrackPathsConfig, config).fps})}

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        del config
        return (
            Output(cls.name, "path", (WIDTH,), ("number",), "float32"),
            Output(f"{cls.name}_id", "track", (), (), "int32"),
        )

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        return _PathSampler()


class _PathSampler:
    """One sample with a row for each track, at the end of the video."""

    def __init__(self) -> None:
        self._boxes: dict[int, list[npt.NDArray[np.float32]]] = {}
        self._frames: dict[int, list[int]] = {}
        self._spans: dict[int, list[tuple[float, float]]] = {}

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, SourceRows):
            raise TypeError(f"expected rows of person_tracks, got {type(block).__name__}")
        rows = block.rows
        for row, track in enumerate(rows["track"].tolist()):
            self._boxes.setdefault(track, []).append(rows["boxes"][row])
            self._frames.setdefault(track, []).append(int(rows["frame"][row]))
            start, end = block.spans[row].tolist()
            self._spans.setdefault(track, []).append((start, end))
        return []

    def finish(self) -> Sequence[Sample]:
        tracks = sorted(self._boxes)
        if not tracks:
            return []
        paths = [
            describe_path(
                np.stack(self._boxes[track]),
                np.array(self._frames[track]),
                np.array([start for start, _ in self._spans[track]]),
            )
            for track in tracks
        ]
        spans = np.array([(self._spans[t][0][0], self._spans[t][-1][1]) for t in tracks])
        rows = {"path": np.stack(paths), "track": np.array(tracks, np.int32)}
        return [MadeRows(rows, spans).as_sample()]


def describe_path(
    boxes: npt.NDArray[np.floating],
    frames: npt.NDArray[np.integer],
    seconds: npt.NDArray[np.floating],
) -> npt.NDArray[np.float32]:
    """float32 [71] of a track's boxes [R, 4], the numbers of their frames and when these start."""
    x1, y1, x2, y2 = np.asarray(boxes, np.float64).T
    signals = np.stack([(x1 + x2) / 2, y1, y2, x2 - x1, y2 - y1])  # (5, R)
    unit = max(float(np.median(signals[4])), 1.0)
    signals = (signals - np.median(signals, axis=1, keepdims=True)) / unit
    steps = np.maximum(np.diff(np.asarray(seconds, np.float64)), 1e-3)
    speeds = np.diff(signals, axis=1) / steps if len(steps) else np.zeros((5, 1))
    found = [_numbers(values) for values in (*signals, *speeds)]
    unseen = 1 - len(frames) / max(int(frames[-1]) - int(frames[0]) + 1, 1)
    return np.concatenate([*found, [unseen]]).astype(np.float32)


def _numbers(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shares = np.percentile(values, (10, 50, 90))
    return np.array([values.mean(), values.std(), values.min(), values.max(), *shares])
