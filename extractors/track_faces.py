"""The face of each person track: the mean of the vectors of its faces.

Stage 2.3 of CiSIN (Yu et al., ECCV 2020). Reads `faces` and `person_tracks` of the same frames.

Data flow: in each frame a face goes to the track whose box it overlaps most (intersection over
union; a face in a body's box has a small one, so that only the order counts), or to none -> M
tracks by rising id, each with its own span: `face` (M, 512), `track` (M), `count` (M) of faces. A
track without faces has zeros and count 0: CiSIN's mask is `count > 0`.

With `normalise` the mean is scaled to length 1 again, since CiSIN multiplies the vectors.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from vlpipe.extractors.extractor import ExtractorConfig, Output, Source
from vlpipe.extractors.media import MediaInfo
from vlpipe.extractors.people.face_encoders import FACE_ENCODERS
from vlpipe.extractors.people.rows import MadeRows, RowsExtractor
from vlpipe.extractors.people.track_rows import TrackExtractor
from vlpipe.extractors.people.track_summaries import TrackSummaries
from vlpipe.extractors.people.tracking_assignment import box_iou
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler, SourceRows


class TrackFacesConfig(ExtractorConfig):
    """fps: frames a second, of faces and of tracks. normalise: scale the means to length 1.

    encoder: of `faces`, whose width the rows have.
    """

    fps: float | None = Field(default=24.0, gt=0)
    encoder: str = "iresnet50"
    normalise: bool = True


@register("track_faces")
class TrackFaces(TrackExtractor, RowsExtractor):
    """The face vectors of tracks; all outputs share the row index (track)."""

    version: ClassVar[int] = 1
    has_registered_parts: ClassVar[bool] = True
    Config: ClassVar[type[ExtractorConfig]] = TrackFacesConfig
    description: ClassVar[str] = "ArcFace vectors of person tracks: the mean face, a row a track"

    @classmethod
    def sources(cls, config: ExtractorConfig) -> Mapping[str, Source]:
        settings = cast(TrackFacesConfig, config)
        return {
            "faces": Source("faces", {"fps": settings.fps, "encoder": settings.encoder}),
            "tracks": Source("person_tracks", {"fps": settings.fps}),
        }

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        width = FACE_ENCODERS[cast(TrackFacesConfig, config).encoder].width
        return (
            Output(cls.name, "face", (width,), ("channel",)),
            Output(f"{cls.name}_id", "track", (), (), "int32"),
            Output(f"{cls.name}_count", "count", (), (), "int32"),
        )

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        settings = cast(TrackFacesConfig, self.spec.config)
        (width,) = self.spec.outputs[0].row_shape
        return _FaceSampler(width, is_normalised=settings.normalise)


class _FaceSampler:
    """One sample with a row for each track, at the end of the video."""

    def __init__(self, width: int, *, is_normalised: bool) -> None:
        self._width = width
        self._is_normalised = is_normalised
        self._faces: deque[SourceRows] = deque()
        self._tracks: deque[SourceRows] = deque()
        self._summaries = TrackSummaries()
        self._sums: dict[int, npt.NDArray[np.float64]] = {}
        self._counts: dict[int, int] = {}

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, SourceRows):
            raise TypeError(f"expected rows of faces and tracks, got {type(block).__name__}")
        (self._faces if block.source == "faces" else self._tracks).append(block)
        while self._faces and self._tracks:
            # Both come once a frame, in order.
            self._join(self._faces.popleft(), self._tracks.popleft())
        return []

    def finish(self) -> Sequence[Sample]:
        tracks = self._summaries.by_id()
        if not tracks:
            return []
        rows = {
            "face": np.stack([self._mean(track) for track in tracks]),
            "track": np.array(list(tracks), np.int32),
            "count": np.array([self._counts.get(track, 0) for track in tracks], np.int32),
        }
        spans = np.array([summary.span for summary in tracks.values()], np.float64)
        return [MadeRows(rows, spans).as_sample()]

    def _join(self, faces: SourceRows, tracks: SourceRows) -> None:
        assert faces.span == tracks.span, f"faces at {faces.span}, tracks at {tracks.span}"
        self._summaries.add(tracks)
        joined = join_faces(faces.rows["box"], tracks.rows["boxes"])
        for vector, row in zip(faces.rows["embedding"], joined.tolist(), strict=True):
            if row >= 0:
                track = int(tracks.rows["track"][row])
                known = self._sums.setdefault(track, np.zeros(self._width))
                self._sums[track] = known + vector
                self._counts[track] = self._counts.get(track, 0) + 1

    def _mean(self, track: int) -> npt.NDArray[np.float32]:
        if track not in self._counts:
            return np.zeros(self._width, np.float32)
        mean = self._sums[track] / self._counts[track]
        if self._is_normalised:
            mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return mean.astype(np.float32)


def join_faces(
    faces: npt.NDArray[np.floating], persons: npt.NDArray[np.floating]
) -> npt.NDArray[np.int64]:
    """int64 [F]: for each face box [F, 4] the row of the person box [R, 4] of highest overlap.

    -1 for a face that overlaps no person; the first of equal ones.
    """
    if not len(persons):
        return np.full(len(faces), -1, np.int64)
    overlap = box_iou(faces, persons)  # (F, R)
    best = overlap.argmax(axis=1)
    return np.where(overlap.max(axis=1) > 0, best, -1).astype(np.int64)
