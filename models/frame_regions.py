"""The regions of a video's frames, and what stands beside each: common sense of the same region."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlpipe.models.frame_rows import equidistant_rows
from vlpipe.stores import Features
from vlpipe.stores.row_choice import rows_at_times

Rows = npt.NDArray[np.float32]
Spans = npt.NDArray[np.float64]


def frame_regions(
    regions: Features,
    commonsense: Features | None,
    *,
    max_frames: int,
    commonsense_width: int | None,
    window_s: tuple[float, float] | None = None,
) -> dict[str, Tensor]:
    """vid, float32 (F, R, C), vid_mask, bool (F, R), and frame_s, float64 (F,), seconds of the
    middles of the frames, in the order of time; places behind the regions of a frame are 0.

    regions: rows [R, C] of a frame each, where rows of zeros are no regions; or rows [C] of a
        region each, of which those with the same span are a frame.
    max_frames: of a longer video equidistant frames are read.
    commonsense_width: None: none is wanted. Else commonsense, float32 (F, R, S), is that of the
        frame nearest in time, region by region; where it has another number of vectors, each
        region gets their mean; where the video has none, zeros.
    """
    spans, frames = _frames_of(regions)
    kept = equidistant_rows(spans, max_frames, window_s)
    chosen = [frames[place] for place in kept]
    longest = max((len(rows) for rows in chosen), default=0)
    width = regions.rows.shape[-1]
    vid = np.zeros((len(kept), max(longest, 1), width), np.float32)
    mask = np.zeros(vid.shape[:2], bool)
    for place, rows in enumerate(chosen):
        vid[place, : len(rows)], mask[place, : len(rows)] = rows, True
    found = {"vid": vid, "vid_mask": mask, "frame_s": spans[kept].mean(axis=1)}
    if commonsense_width is not None:
        sense = np.zeros((*vid.shape[:2], commonsense_width), np.float32)
        if commonsense is not None and len(commonsense.rows) and len(kept):
            sense_spans, vectors = _frames_of(commonsense)
            for place, at in enumerate(rows_at_times(sense_spans, spans[kept])):
                own, count = vectors[at], len(chosen[place])
                if len(own):
                    sense[place, :count] = own if len(own) == count else own.mean(axis=0)
        found["commonsense"] = sense
    return {name: torch.from_numpy(values) for name, values in found.items()}


def _frames_of(features: Features) -> tuple[Spans, list[Rows]]:
    """[F, 2] spans in the order of time, and the regions [R, C] of each frame."""
    rows = np.asarray(features.rows, np.float32)
    if rows.ndim == 3:
        frames = [frame[frame.any(axis=1)] for frame in rows]
        return np.asarray(features.spans, np.float64), frames
    if not len(rows):
        return np.zeros((0, 2)), []
    spans, of_row = np.unique(features.spans, axis=0, return_inverse=True)
    order = np.argsort(of_row.reshape(-1), kind="stable")
    edges = np.cumsum(np.bincount(of_row.reshape(-1)))[:-1]
    return spans, np.split(rows[order], edges)
