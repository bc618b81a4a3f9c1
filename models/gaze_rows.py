"""Which gaze belongs to each row of a clip's features, and how clips are cut into sequences."""

import numpy as np
import numpy.typing as npt

from vlpipe.models.gaze_maps import Floats

# Times that were written in thousandths of a second, or computed in another order, miss the edges
# of a frame by as much.
_SLACK_S = 1e-3


def gaze_of_rows(
    subject: npt.NDArray[np.int32], time_s: Floats, xy: Floats, spans: Floats
) -> list[Floats]:
    """For each of the T spans, [start, end) in seconds, float64 (N, 2): the point of each of the N
    subjects who looked at the clip then, of several the one nearest to the middle.

    subject (S,), time_s (S,) rising, xy (S, 2): samples of all subjects.
    """
    first = np.searchsorted(time_s, spans[:, 0] - _SLACK_S)
    last = np.searchsorted(time_s, spans[:, 1] - _SLACK_S)
    found = []
    for begin, end, middle in zip(first, last, spans.mean(axis=1), strict=True):
        nearest = begin + np.argsort(np.abs(time_s[begin:end] - middle), kind="stable")
        _, places = np.unique(subject[nearest], return_index=True)
        found.append(xy[nearest[places]])
    return found


def sequence_rows(num_rows: int, length: int) -> npt.NDArray[np.int64]:
    """int64 (S, length), the rows of each sequence of a clip.

    A clip of fewer rows starts over until the sequence is full. Else there is one sequence after
    the other, and always a last one of the last rows, which may overlap or repeat the one before.
    """
    if num_rows < length:
        return (np.arange(length) % num_rows)[None]
    starts = [*range(0, num_rows - length + 1, length), num_rows - length]
    return np.array(starts)[:, None] + np.arange(length)


def first_readings(
    rows: npt.NDArray[np.int64], num_rows: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(num_rows,) sequence and place in it of each row of a clip, where `sequence_rows` has it
    first: of two readings that is the one that has seen more of the clip before."""
    _, places = np.unique(rows, return_index=True)
    if len(places) != num_rows:
        raise ValueError(f"sequences hold {len(places)} of {num_rows} rows")
    return np.divmod(places, rows.shape[1])
