"""Rows of several videos in one array: one after the other, or padded to one length."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vlpipe.stores.aligned_arrays import empty_aligned

Pad = Literal["right", "left"]

# an array to read into, or a function that makes one of a shape, or None for a new one
Out = npt.NDArray[Any] | Callable[[tuple[int, ...]], npt.NDArray[Any]] | None


@dataclass(frozen=True)
class BatchRows:
    """What `FeatureReader.read_batch` gives, in the order of the ids asked for.

    rows: padded [B, T, *row_shape], T the longest video or the length asked for; without padding
        [sum of lengths, *row_shape], video after video.
    lengths: [B] int64, rows of each video.
    spans: like rows, with [2] float64 seconds in place of `row_shape`; None if not asked for.
    pad: the side on which short videos are filled up; None: not padded.
    """

    ids: tuple[str, ...]
    rows: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    spans: npt.NDArray[np.float64] | None
    pad: Pad | None

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """[B] where the rows of each video begin: in `rows`, or in its row of the padded array."""
        if self.pad is None:
            return np.asarray(np.cumsum(self.lengths) - self.lengths)
        if self.pad == "left":
            return np.asarray(self.rows.shape[1] - self.lengths)
        return np.zeros(len(self.lengths), np.int64)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """[B, T] True where a row is a video's and not padding; ValueError without padding."""
        if self.pad is None:
            raise ValueError("a batch without padding needs no mask")
        place = np.arange(self.rows.shape[1])
        starts = self.starts[:, None]
        return np.asarray((place >= starts) & (place < starts + self.lengths[:, None]))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> npt.NDArray[Any]:
        """[T, *row_shape]: the rows of one video alone; a view."""
        rows = self.rows if self.pad is None else self.rows[number]
        start = int(self.starts[number])
        return rows[start : start + int(self.lengths[number])]


def targets_in(
    array: npt.NDArray[Any], lengths: list[int], pad: Pad | None
) -> list[npt.NDArray[Any]]:
    """Where the rows of each video go in `array`; what is padding is set to zero."""
    targets = []
    start = 0
    for number, length in enumerate(lengths):
        if pad is None:
            targets.append(array[start : start + length])
            start += length
        elif pad == "right":
            row = array[number]
            row[length:] = 0
            targets.append(row[:length])
        else:
            row = array[number]
            begin = len(row) - length
            row[:begin] = 0
            targets.append(row[begin:])
    return targets


def batch_array(
    out: Out,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> npt.NDArray[Any]:
    """An array of this shape: a new one, or that of the caller."""
    if out is None:
        return empty_aligned(shape, dtype)
    array = out(shape) if callable(out) else out
    is_fit = array.dtype == dtype and array.flags.c_contiguous and array.ndim == len(shape)
    if not is_fit or array.shape[1:] != shape[1:] or len(array) < shape[0]:
        raise ValueError(
            f"out has shape {array.shape} and dtype {array.dtype}, expected C-contiguous {shape} "
            f"of {dtype.name}; only its first axis may be longer"
        )
    return array[: shape[0]]
