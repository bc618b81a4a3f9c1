"""Motion of each person track: the map of I3D averaged over the places where the person is.

Stage 2.4 of CiSIN (Yu et al., ECCV 2020): the mean of `mixed_5c` over the track's box-time tube.
Reads `person_tracks` and the map of `i3d_rgb` (the whole picture squashed to 224 x 224, 24 frames
a second, as in CiSIN) or of `i3d_flow` (a centre crop).

Data flow: maps (1024, 8, 7, 7) of 64 frames each and boxes of all frames -> M tracks by rising
id, each with its own span: `motion` (M, 1024), `track` (M), `cells` (M), how many vectors of the
maps the mean is over. A track that no map shows has zeros and 0 cells.

Step j of a map stands for its frames 8 j to 8 j + 7; frames that only repeat the end of a video to
fill up the last map do not count. A cell counts in a step if a box of the track covers some of it
in any of the step's frames. Boxes are shares of the picture that the network saw: of the whole
frame, or of the crop, after the same resize; what lies outside of the crop has no support.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from vlpipe.extractors.extractor import ExtractorConfig, Output, Source
from vlpipe.extractors.media import FrameRequest, MediaInfo
from vlpipe.extractors.networks.i3d import WIDTH
from vlpipe.extractors.people.rows import MadeRows, RowsExtractor, Span
from vlpipe.extractors.people.track_rows import TrackExtractor
from vlpipe.extractors.people.track_summaries import TrackSummaries
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler, SourceRows

FRAMES_PER_STEP = 8

Box = npt.NDArray[np.float64]


class TrackMotionConfig(ExtractorConfig):
    """fps: frames a second of maps and tracks. network: whose map is read."""

    fps: float = Field(default=24.0, gt=0)
    network: Literal["i3d_rgb", "i3d_flow"] = "i3d_rgb"


@register("track_motion")
class TrackMotion(TrackExtractor, RowsExtractor):
    """Motion of tracks; all outputs share the row index (track)."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = TrackMotionConfig
    description: ClassVar[str] = "I3D map over the tubes of person tracks: a 1024-d row a track"

    @classmethod
    def sources(cls, config: ExtractorConfig) -> Mapping[str, Source]:
        settings = cast(TrackMotionConfig, config)
        maps: dict[str, Any] = {"fps": settings.fps, "outputs": ("mixed_5c",)}
        if settings.network == "i3d_rgb":
            maps["whole_frame"] = True
        return {
            "maps": Source(settings.network, maps),
            "tracks": Source("person_tracks", {"fps": settings.fps}),
        }

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        del config
        return (
            Output(cls.name, "motion", (WIDTH,), ("channel",)),
            Output(f"{cls.name}_id", "track", (), (), "int32"),
            Output(f"{cls.name}_cells", "cells", (), (), "int32"),
        )

    def sampler(self, info: MediaInfo) -> Sampler:
        assert info.video is not None
        maps = self.spec.sources["maps"].request
        assert isinstance(maps, FrameRequest)
        window = seen_window(maps, info.video.width, info.video.height)
        return _TubeSampler(window, cast(TrackMotionConfig, self.spec.config).fps)


def seen_window(request: FrameRequest, width: int, height: int) -> Box:
    """float64 [4], x1, y1, x2, y2 in pixels of a frame: the part that a network saw of it.

    request: with a resize of the whole frame, and perhaps a centre crop after it. The window
    reaches beyond the frame where a crop larger than the picture was filled up.
    """
    if request.center_crop is None:
        return np.array([0, 0, width, height], np.float64)
    scaled = (height, width)
    if request.resize is not None:
        scaled = request.resize.output_size(height, width)
    lengths = np.array([scaled[1], scaled[0]], np.float64)  # x, y
    # Cut at the floor: the crop starts half a pixel early where the rest is odd.
    first = np.floor((lengths - request.center_crop) / 2)
    per_pixel = np.array([width, height]) / lengths
    return np.concatenate([first * per_pixel, (first + request.center_crop) * per_pixel])


def covered_cells(
    box: npt.NDArray[np.floating], window: Box, num_cells: tuple[int, int]
) -> tuple[slice, slice]:
    """The rows and columns of a grid over the window that a box [4] covers some part of.

    num_cells: rows, columns of the grid. Both slices are empty for a box outside of the window.
    """
    columns_rows = np.array([num_cells[1], num_cells[0]])
    edges = window[2:] - window[:2]
    corners = np.asarray(box, np.float64).reshape(2, 2)  # first, last corner; x, y
    places = np.clip((corners - window[:2]) / edges, 0, 1) * columns_rows
    first, last = np.floor(places[0]), np.ceil(places[1])
    if (places[1] <= places[0]).any():
        return slice(0, 0), slice(0, 0)
    (x1, y1), (x2, y2) = first.astype(int).tolist(), last.astype(int).tolist()
    return slice(y1, y2), slice(x1, x2)


def step_of(time: float, span: Span, fps: float, num_steps: int) -> int | None:
    """The step of a map over frames from span[0] on in which a moment lies; None outside of it."""
    if not span[0] <= time < span[1]:
        return None
    step = int((time - span[0]) * fps / FRAMES_PER_STEP)
    return step if step < num_steps else None


@dataclass(frozen=True, slots=True)
class _Seen:
    """A box of a track, at the middle of its frame."""

    time: float
    track: int
    box: npt.NDArray[np.float32]


class _TubeSampler:
    """One sample with a row for each track, at the end of the video.

    Maps wait until the tracks of their last frame have come, and boxes until the maps of their
    time are done.
    """

    def __init__(self, window: Box, fps: float) -> None:
        self._window = window
        self._fps = fps
        self._maps: list[tuple[Span, npt.NDArray[np.float32]]] = []
        self._boxes: list[_Seen] = []
        self._tracked_until = -np.inf
        self._summaries = TrackSummaries()
        self._sums: dict[int, npt.NDArray[np.float64]] = {}
        self._cells: dict[int, int] = {}

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, SourceRows):
            raise TypeError(f"expected rows of maps and tracks, got {type(block).__name__}")
        if block.source == "maps":
            for row, span in zip(block.rows["mixed_5c"], block.spans.tolist(), strict=True):
                self._maps.append(((span[0], span[1]), row))
        else:
            self._summaries.add(block)
            middle = sum(block.span) / 2
            for track, box in zip(block.rows["track"].tolist(), block.rows["boxes"], strict=True):
                self._boxes.append(_Seen(middle, track, box))
            self._tracked_until = block.span[1]
        while self._maps and self._maps[0][0][1] <= self._tracked_until:
            self._pool(*self._maps.pop(0))
        return []

    def finish(self) -> Sequence[Sample]:
        for span, values in self._maps:
            self._pool(span, values)
        tracks = self._summaries.by_id()
        if not tracks:
            return []
        cells = np.array([self._cells.get(track, 0) for track in tracks], np.int32)
        sums = [self._sums.get(track, np.zeros(WIDTH)) for track in tracks]
        rows: dict[str, npt.NDArray[Any]] = {
            "motion": np.stack(sums) / np.maximum(cells, 1)[:, None],
            "track": np.array(list(tracks), np.int32),
            "cells": cells,
        }
        spans = np.array([summary.span for summary in tracks.values()], np.float64)
        return [MadeRows(rows, spans).as_sample()]

    def _pool(self, span: Span, values: npt.NDArray[np.float32]) -> None:
        """Adds a map [1024, steps, rows, columns] to the tracks that it shows."""
        num_steps, *grid = values.shape[1:]
        masks: dict[int, npt.NDArray[np.bool_]] = {}
        for seen in self._boxes:
            step = step_of(seen.time, span, self._fps, num_steps)
            if step is not None:
                mask = masks.setdefault(seen.track, np.zeros(values.shape[1:], bool))
                mask[(step, *covered_cells(seen.box, self._window, (grid[0], grid[1])))] = True
        for track, mask in masks.items():
            covered = values[:, mask].sum(axis=1, dtype=np.float64)
            self._sums[track] = self._sums.get(track, np.zeros(WIDTH)) + covered
            self._cells[track] = self._cells.get(track, 0) + int(mask.sum())
        # The next map may begin before this one ends, but never before it begins.
        self._boxes = [seen for seen in self._boxes if seen.time >= span[0]]
