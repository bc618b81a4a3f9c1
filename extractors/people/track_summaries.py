"""What is known of the person tracks of a video: how long each is, and where it is largest."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlpipe.extractors.people.rows import Span
from vlpipe.extractors.people.tracking_assignment import box_area
from vlpipe.extractors.samples import SourceRows


@dataclass(slots=True)
class TrackSummary:
    """A track as far as it is known. frame, box, keypoints: of its largest box, the earliest one.

    num_frames: in which it is seen. span: from the first to the end of the last of them, seconds.
    """

    num_frames: int
    span: Span
    frame: int
    box: npt.NDArray[np.float32]
    keypoints: npt.NDArray[np.float32]

    @property
    def area(self) -> float:
        return float(box_area(self.box))


class TrackSummaries:
    """The summaries of all tracks of a video, from its frames one after the other."""

    def __init__(self) -> None:
        self._tracks: dict[int, TrackSummary] = {}

    def add(self, block: SourceRows) -> list[int]:
        """Takes a frame's rows of `person_tracks`; returns the rows that are now the largest."""
        larger: list[int] = []
        rows = block.rows
        for row, track in enumerate(rows["track"].tolist()):
            start, end = block.spans[row].tolist()
            box, frame, keypoints = (rows[key][row] for key in ("boxes", "frame", "keypoints"))
            known = self._tracks.get(track)
            if known is None:
                self._tracks[track] = TrackSummary(1, (start, end), int(frame), box, keypoints)
                larger.append(row)
                continue
            known.num_frames += 1
            known.span = (known.span[0], end)
            if box_area(box) > known.area:
                known.frame, known.box, known.keypoints = int(frame), box, keypoints
                larger.append(row)
        return larger

    def by_id(self) -> dict[int, TrackSummary]:
        """The summaries by rising id."""
        return dict(sorted(self._tracks.items()))
