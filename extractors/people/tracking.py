"""Tracks of boxes through the frames of a video, one id for each figure.

The tracker joins three published ideas: the Kalman filter and assignment of SORT (Bewley et al.,
2016), a second round for detections of low score as in ByteTrack (Zhang et al., 2022), and an
appearance vector as in DeepSORT (Wojke et al., 2017), here of colours.

In every frame, each round among what the rounds before it left over:
1. detections of at least `start_score` with tracks whose predicted box they overlap, by overlap
   and appearance together;
2. weaker detections with tracks that were seen in the frame before, by overlap alone;
3. strong detections with lost tracks that could have got there, by appearance;
4. strong detections begin a track. It counts once it was seen in `confirm_after` frames without a
   gap; a track that was not seen for more than `max_missed` frames has ended.

Ids are settled at most `confirm_after` frames late, so that memory does not grow with the video.
`register_tracker` makes another tracker known by name.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vlpipe.extractors.people.tracking_assignment import assign, box_iou
from vlpipe.extractors.people.tracking_motion import (
    MotionState,
    centre_distances,
    correct_motion,
    predict_motion,
    start_motion,
)

# Overlap that a weak detection needs, as in ByteTrack.
_MIN_WEAK_IOU = 0.5
# 99 % of a two-dimensional normal distribution lie within this squared Mahalanobis distance.
_MAX_CENTRE_DISTANCE = 9.21
# Most that the appearance of a track and of a detection may differ, of 1. From frame to frame a
# person's hardly changes; after a cut another person may stand in the same place.
_MAX_DIFFERENCE = 0.7
_MAX_LOST_DIFFERENCE = 0.35
# Share of a track's appearance that is kept when it is seen again, as in DeepSORT's successors.
_APPEARANCE_KEPT = 0.9


@dataclass(frozen=True, slots=True)
class TrackingSettings:
    """start_score: of detections that begin a track or find a lost one again.

    confirm_after: frames in a row that make a track count. max_missed: frames for which a track
    that is not seen is kept. min_iou: overlap with the predicted box that a detection needs.
    appearance_weight: of the difference in appearance against that of boxes, 0 to 1.
    """

    start_score: float = 0.6
    confirm_after: int = 3
    max_missed: int = 30
    min_iou: float = 0.2
    appearance_weight: float = 0.5


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """The detections of one frame that belong to tracks, by rising id.

    frame: its number. detections: int64 [R], indices of the frame's detections. ids: int32 [R].
    """

    frame: int
    detections: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int32]


class Tracker(Protocol):
    """Follows the boxes of one video; every frame comes back once and in order."""

    def update(
        self,
        boxes: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float32],
        appearance: npt.NDArray[np.float32],
    ) -> Sequence[TrackedFrame]:
        """The frames whose ids are settled now that the next frame's detections came.

        boxes: [N, 4] x1, y1, x2, y2 in pixels. scores: [N] in [0, 1]. appearance: [N, D] of
        length 1, not negative; D may be 0.
        """
        ...

    def finish(self) -> Sequence[TrackedFrame]:
        """The frames that the end of the video settles."""
        ...


TRACKERS: dict[str, Callable[[TrackingSettings], Tracker]] = {}


def register_tracker(
    name: str,
) -> Callable[[Callable[[TrackingSettings], Tracker]], Callable[[TrackingSettings], Tracker]]:
    """Decorator: makes a tracker known by that name; a name is given only once."""

    def enter(
        make: Callable[[TrackingSettings], Tracker],
    ) -> Callable[[TrackingSettings], Tracker]:
        if name in TRACKERS:
            raise ValueError(f"tracker {name!r} is registered twice")
        TRACKERS[name] = make
        return make

    return enter


@dataclass(eq=False, slots=True)
class _Track:
    motion: MotionState
    appearance: npt.NDArray[np.float32]
    num_seen: int = 1
    num_missed: int = 0
    id: int | None = None
    has_ended: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it may still turn out to be a track or none."""
        return self.id is None and not self.has_ended


@dataclass(frozen=True, slots=True)
class _Held:
    frame: int
    members: list[tuple[int, _Track]] = field(default_factory=list)


@register_tracker("kalman_iou")
class KalmanIouTracker:
    """The tracker that the top of the file describes."""

    def __init__(self, settings: TrackingSettings) -> None:
        self._settings = settings
        self._tracks: list[_Track] = []
        self._held: deque[_Held] = deque()
        self._num_frames = 0
        self._num_ids = 0

    def update(
        self,
        boxes: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float32],
        appearance: npt.NDArray[np.float32],
    ) -> Sequence[TrackedFrame]:
        for track in self._tracks:
            track.motion = predict_motion(track.motion, is_lost=track.num_missed > 0)
        pairs = self._match(boxes, scores, appearance)
        self._see(pairs, boxes, scores, appearance)
        seen = {id(track) for _, track in pairs}
        for track in self._tracks:
            if id(track) not in seen:
                track.num_missed += 1
                track.has_ended = track.id is None or track.num_missed > self._settings.max_missed
        self._tracks = [track for track in self._tracks if not track.has_ended]
        strong = scores >= self._settings.start_score
        taken = {detection for detection, _ in pairs}
        for detection in np.flatnonzero(strong):
            if int(detection) not in taken:
                new = _Track(start_motion(boxes[detection]), appearance[detection])
                self._tracks.append(new)
                pairs.append((int(detection), new))
        for track in self._tracks:
            if track.id is None and track.num_seen >= self._settings.confirm_after:
                self._confirm(track)
        self._held.append(_Held(self._num_frames, pairs))
        self._num_frames += 1
        return self._settled()

    def finish(self) -> Sequence[TrackedFrame]:
        for track in self._tracks:
            # A video of fewer frames than a track needs has tracks all the same.
            if track.id is None and track.num_seen == self._num_frames:
                self._confirm(track)
            track.has_ended = True
        return self._settled()

    def _match(
        self,
        boxes: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float32],
        appearance: npt.NDArray[np.float32],
    ) -> list[tuple[int, _Track]]:
        settings = self._settings
        strong = np.flatnonzero(scores >= settings.start_score)
        weak = np.flatnonzero(scores < settings.start_score)
        pairs: list[tuple[int, _Track]] = []

        overlap = self._overlap(self._tracks, boxes[strong])
        difference = _differences(self._tracks, appearance[strong])
        weight = settings.appearance_weight
        cost = (1 - weight) * (1 - overlap) + weight * difference
        cost[(overlap < settings.min_iou) | (difference > _MAX_DIFFERENCE)] = np.inf
        found = assign(cost)
        pairs += [(int(strong[d]), self._tracks[t]) for t, d in found]
        strong = np.delete(strong, [d for _, d in found])
        left = _without(self._tracks, [t for t, _ in found])

        recent = [track for track in left if track.num_missed == 0]
        overlap = self._overlap(recent, boxes[weak])
        found = assign(np.where(overlap >= _MIN_WEAK_IOU, 1 - overlap, np.inf))
        pairs += [(int(weak[d]), recent[t]) for t, d in found]

        lost = [track for track in left if track.num_missed > 0]
        if lost and len(strong) and appearance.shape[1]:
            difference = _differences(lost, appearance[strong])
            distance = np.stack([centre_distances(track.motion, boxes[strong]) for track in lost])
            far = (distance > _MAX_CENTRE_DISTANCE) | (difference > _MAX_LOST_DIFFERENCE)
            found = assign(np.where(far, np.inf, difference))
            pairs += [(int(strong[d]), lost[t]) for t, d in found]
        return pairs

    def _see(
        self,
        pairs: list[tuple[int, _Track]],
        boxes: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float32],
        appearance: npt.NDArray[np.float32],
    ) -> None:
        for detection, track in pairs:
            track.motion = correct_motion(track.motion, boxes[detection])
            track.num_seen += 1
            track.num_missed = 0
            # A weak detection is often half hidden, and shows the colours of what hides it.
            if scores[detection] >= self._settings.start_score:
                kept = _APPEARANCE_KEPT * track.appearance
                track.appearance = _to_length_1(
                    kept + (1 - _APPEARANCE_KEPT) * appearance[detection]
                )

    @staticmethod
    def _overlap(
        tracks: Sequence[_Track], boxes: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        return box_iou(np.array([t.motion.box for t in tracks]).reshape(-1, 4), boxes)

    def _confirm(self, track: _Track) -> None:
        track.id = self._num_ids
        self._num_ids += 1

    def _settled(self) -> list[TrackedFrame]:
        frames = []
        while self._held and not any(track.is_open for _, track in self._held[0].members):
            held = self._held.popleft()
            rows = sorted((t.id, d) for d, t in held.members if t.id is not None)
            ids = np.array([i for i, _ in rows], np.int32)
            detections = np.array([d for _, d in rows], np.int64)
            frames.append(TrackedFrame(held.frame, detections, ids))
        return frames


def _differences(
    tracks: Sequence[_Track], appearance: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """1 minus the scalar product of the appearances, [tracks, detections], in [0, 1].

    All 0 where there are no appearances to compare.
    """
    width = appearance.shape[1]
    if width == 0:
        return np.zeros((len(tracks), len(appearance)))
    known = np.array([t.appearance for t in tracks], np.float64).reshape(len(tracks), width)
    return 1 - np.clip(known @ appearance.T.astype(np.float64), 0, 1)


def _to_length_1(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    length = float(np.linalg.norm(vector))
    return (vector / length).astype(np.float32) if length > 0 else vector


def _without(tracks: Sequence[_Track], indices: Sequence[int]) -> list[_Track]:
    left_out = set(indices)
    return [track for index, track in enumerate(tracks) if index not in left_out]
