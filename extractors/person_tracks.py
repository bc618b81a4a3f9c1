"""Tracks of persons through a video: in every frame, who of the frames before stands where.

Stage 2.2 of CiSIN (Yu et al., ECCV 2020), with the tracker of `people/tracking.py` in place of
DeepSORT. Reads the rows of `person_boxes`; has no network of its own.

Data flow: for every frame boxes (N, 4), scores (N), appearances (N, 128) -> R <= N rows of boxes
that belong to a track, by rising id: `boxes` (R, 4), `track` (R), `score` (R), `frame` (R),
`keypoints` (R, 17, 3). Boxes that no track takes in, such as those that flash up for a frame, are
left out.

Ids count from 0 in each video, in the order in which figures appear. What each track comes to is
in `person_track_table`.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from vlpipe.extractors.extractor import ExtractorConfig, Output, Source
from vlpipe.extractors.media import MediaInfo
from vlpipe.extractors.people.detectors import NUM_KEYPOINTS
from vlpipe.extractors.people.rows import MadeRows, RowsExtractor
from vlpipe.extractors.people.tracking import TRACKERS, TrackedFrame, Tracker, TrackingSettings
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler, SourceRows


class PersonTracksConfig(ExtractorConfig):
    """How boxes are joined to tracks; see `people/tracking.py`.

    fps: frames a second, as in `person_boxes`.
    tracker: a name of `TRACKERS`.
    start_score: of boxes that begin a track or find a lost one again.
    confirm_after: frames in a row in which a figure has to be seen.
    max_missed: frames for which a figure may be hidden, 1.25 s at 24 a second.
    min_iou: overlap of a box with the place where its track is expected.
    appearance_weight: of colours against overlap, 0 to 1.
    """

    fps: float | None = Field(default=24.0, gt=0)
    tracker: str = "kalman_iou"
    start_score: float = Field(default=0.6, ge=0, le=1)
    confirm_after: PositiveInt = 3
    max_missed: NonNegativeInt = 30
    min_iou: float = Field(default=0.2, gt=0, le=1)
    appearance_weight: float = Field(default=0.5, ge=0, le=1)

    @field_validator("tracker")
    @classmethod
    def _tracker_is_known(cls, name: str) -> str:
        if name not in TRACKERS:
            raise ValueError(f"expected one of {', '.join(sorted(TRACKERS))}")
        return name

    def make_tracker(self) -> Tracker:
        """A fresh tracker for one video."""
        return TRACKERS[self.tracker](
            TrackingSettings(
                self.start_score,
                self.confirm_after,
                self.max_missed,
                self.min_iou,
                self.appearance_weight,
            )
        )


@register("person_tracks")
class PersonTracks(RowsExtractor):
    """Boxes with the ids of their tracks; all outputs share the row index (frame, track).

    A detector without key points leaves them at the origin with confidence 0.
    """

    version: ClassVar[int] = 1
    has_registered_parts: ClassVar[bool] = True
    Config: ClassVar[type[ExtractorConfig]] = PersonTracksConfig
    description: ClassVar[str] = "person tracks: box, id and key points, a row a person and frame"

    @classmethod
    def sources(cls, config: ExtractorConfig) -> Mapping[str, Source]:
        return {"boxes": Source("person_boxes", {"fps": cast(PersonTracksConfig, config).fps})}

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        del config
        return (
            Output(cls.name, "boxes", (4,), ("corner",), "float32"),
            Output(f"{cls.name}_id", "track", (), (), "int32"),
            Output(f"{cls.name}_score", "score", (), (), "float32"),
            Output(f"{cls.name}_frame", "frame", (), (), "int32"),
            Output(
                f"{cls.name}_keypoints",
                "keypoints",
                (NUM_KEYPOINTS, 3),
                ("keypoint", "x_y_confidence"),
                "float32",
            ),
        )

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        del info
        return "no_persons" if num_rows == 0 else None

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        return _TrackSampler(cast(PersonTracksConfig, self.spec.config).make_tracker())


class _TrackSampler:
    """One sample a frame, with the rows of the persons that are tracked in it."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._held: deque[SourceRows] = deque()

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, SourceRows):
            raise TypeError(f"expected rows of person_boxes, got {type(block).__name__}")
        self._held.append(block)
        rows = block.rows
        settled = self._tracker.update(rows["boxes"], rows["score"], rows["appearance"])
        return [self._release(frame) for frame in settled]

    def finish(self) -> Sequence[Sample]:
        return [self._release(frame) for frame in self._tracker.finish()]

    def _release(self, tracked: TrackedFrame) -> Sample:
        # Trackers hand every frame back once and in order.
        block = self._held.popleft()
        chosen = tracked.detections
        no_keypoints = np.zeros((len(block.spans), NUM_KEYPOINTS, 3), np.float32)
        rows = {
            "boxes": block.rows["boxes"][chosen],
            "track": tracked.ids,
            "score": block.rows["score"][chosen],
            "frame": np.full(len(chosen), tracked.frame, np.int32),
            "keypoints": block.rows.get("keypoints", no_keypoints)[chosen],
        }
        return MadeRows(rows, block.spans[chosen]).as_sample(block.span)
