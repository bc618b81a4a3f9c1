"""What each person track of a video comes to: a row a track.

The track's largest box, the frame that it lies in, how many frames it has, and the four numbers
that CiSIN's model reads (Yu et al., ECCV 2020; code: yj-yu/CiSIN). Reads `person_tracks`.

Data flow: rows (frame, track) of a video -> M tracks by rising id, each with the span from its
first frame to the end of its last: `meta` (M, 4), `track` (M), `length` (M), `frame` (M),
`box` (M, 4), `keypoints` (M, 17, 3).

`meta` is x / W and y / H of the centre of the largest box, its area / (W H), and the length, all
in [0, 1] and in the order of the published code. The length is the number of frames / 300, at most
1, as in that code, or with `length=clip` a share of the clip's duration, as in the thesis.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from vlpipe.extractors.extractor import ExtractorConfig, Output, Source
from vlpipe.extractors.media import MediaInfo
from vlpipe.extractors.people.detectors import NUM_KEYPOINTS
from vlpipe.extractors.people.rows import MadeRows, RowsExtractor
from vlpipe.extractors.people.track_rows import TrackExtractor
from vlpipe.extractors.people.track_summaries import TrackSummaries, TrackSummary
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler, SourceRows

# Frames that count as full length in the published code: 12.5 s at 24 a second.
FULL_LENGTH = 300


class PersonTrackTableConfig(ExtractorConfig):
    """fps: frames a second, as in `person_boxes`.

    length: `frames` counts the track's frames, full at 300, as in the published code; `clip` takes
        the time from its first to its last frame as a share of the clip, as in the thesis.
    """

    fps: float | None = Field(default=24.0, gt=0)
    length: Literal["frames", "clip"] = "frames"


@register("person_track_table")
class PersonTrackTable(TrackExtractor, RowsExtractor):
    """Summaries of the tracks; all outputs share the row index (track)."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = PersonTrackTableConfig
    description: ClassVar[str] = "person tracks summed up: place, length and size, a row a track"

    @classmethod
    def sources(cls, config: ExtractorConfig) -> Mapping[str, Source]:
        settings = cast(PersonTrackTableConfig, config)
        return {"tracks": Source("person_tracks", {"fps": settings.fps})}

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        del config
        keypoints = ((NUM_KEYPOINTS, 3), ("keypoint", "x_y_confidence"), "float32")
        return (
            Output(cls.name, "meta", (4,), ("x_y_size_length",), "float32"),
            Output(f"{cls.name}_id", "track", (), (), "int32"),
            Output(f"{cls.name}_length", "length", (), (), "int32"),
            Output(f"{cls.name}_frame", "frame", (), (), "int32"),
            Output(f"{cls.name}_box", "box", (4,), ("corner",), "float32"),
            Output(f"{cls.name}_keypoints", "keypoints", *keypoints),
        )

    def sampler(self, info: MediaInfo) -> Sampler:
        return _TableSampler(info, cast(PersonTrackTableConfig, self.spec.config))


class _TableSampler:
    """One sample with a row for each track, at the end of the video."""

    def __init__(self, info: MediaInfo, settings: PersonTrackTableConfig) -> None:
        self._info = info
        self._settings = settings
        self._summaries = TrackSummaries()

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, SourceRows):
            raise TypeError(f"expected rows of person_tracks, got {type(block).__name__}")
        self._summaries.add(block)
        return []

    def finish(self) -> Sequence[Sample]:
        tracks = self._summaries.by_id()
        if not tracks:
            return []
        summaries = list(tracks.values())
        rows: dict[str, npt.NDArray[Any]] = {
            "meta": np.stack([self._meta(summary) for summary in summaries]),
            "track": np.array(list(tracks), np.int32),
            "length": np.array([s.num_frames for s in summaries], np.int32),
            "frame": np.array([s.frame for s in summaries], np.int32),
            "box": np.stack([s.box for s in summaries]),
            "keypoints": np.stack([s.keypoints for s in summaries]),
        }
        spans = np.array([s.span for s in summaries], np.float64)
        return [MadeRows(rows, spans).as_sample()]

    def _meta(self, summary: TrackSummary) -> npt.NDArray[np.float32]:
        video = self._info.video
        assert video is not None
        x1, y1, x2, y2 = summary.box.tolist()
        if self._settings.length == "frames":
            length = summary.num_frames / FULL_LENGTH
        else:
            length = (summary.span[1] - summary.span[0]) / max(video.duration_s, 1e-9)
        area = summary.area / (video.width * video.height)
        meta = [(x1 + x2) / 2 / video.width, (y1 + y2) / 2 / video.height, area, length]
        return np.clip(np.array(meta, np.float32), 0, 1)
