"""Whose track it is: annotated boxes of characters laid over the tracks of a detector.

An annotated track goes to the detected one that it overlaps most, frame by frame. M-VAD Names has
boxes of faces, which overlap a whole person little: only the order counts.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlpipe.stores.datasets import Track


def label_tracks(
    annotated: Sequence[Track],
    boxes: npt.NDArray[np.floating],
    box_track: npt.NDArray[np.integer],
    box_frame: npt.NDArray[np.integer],
    num_tracks: int,
) -> list[str | None]:
    """The character of each detected track, None where no annotated one is laid over it.

    boxes: [R, 4], x1, y1, x2, y2 in pixels; box_track: [R], which of the num_tracks; box_frame:
    [R], numbers of the frames that the annotators counted. A track that several characters are
    laid over is that of the greatest overlap.
    """
    overlaps = np.array(
        [_overlaps(track, boxes, box_track, box_frame, num_tracks) for track in annotated]
    ).reshape(len(annotated), num_tracks)
    characters: list[str | None] = [None] * num_tracks
    best = np.zeros(num_tracks)
    for track, row in zip(annotated, overlaps, strict=True):
        if num_tracks and row.max() > 0:
            place = int(row.argmax())
            if row[place] > best[place]:
                best[place], characters[place] = row[place], track.character
    return characters


def frames_of_seconds(spans: npt.NDArray[np.floating], fps: float) -> npt.NDArray[np.int64]:
    """int64 [R]: the frame, counted from 0 at fps, that is shown in the middle of spans [R, 2]."""
    middles_s: npt.NDArray[np.float64] = np.asarray(spans, np.float64).reshape(-1, 2).mean(axis=1)
    return np.floor(middles_s * fps).astype(np.int64)


def _overlaps(
    track: Track,
    boxes: npt.NDArray[np.floating],
    box_track: npt.NDArray[np.integer],
    box_frame: npt.NDArray[np.integer],
    num_tracks: int,
) -> npt.NDArray[np.float64]:
    """[num_tracks]: intersection over union with each detected track, summed over frames."""
    table = np.array(track.boxes, np.float64).reshape(-1, 5)
    order = np.argsort(table[:, 0], kind="stable")
    frames, own = table[order, 0], table[order, 1:]
    if not len(frames) or not len(boxes):
        return np.zeros(num_tracks)
    places = np.searchsorted(frames, box_frame).clip(0, len(frames) - 1)
    found = frames[places] == box_frame
    own, theirs = own[places[found]], np.asarray(boxes, np.float64)[found]
    corner, far = np.maximum(own[:, :2], theirs[:, :2]), np.minimum(own[:, 2:], theirs[:, 2:])
    shared = (far - corner).clip(0).prod(axis=1)
    areas = sum((b[:, 2:] - b[:, :2]).clip(0).prod(axis=1) for b in (own, theirs))
    totals = np.zeros(num_tracks)
    np.add.at(totals, np.asarray(box_track)[found], shared / np.maximum(areas - shared, 1e-9))
    return totals
