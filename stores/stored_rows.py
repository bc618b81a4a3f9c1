"""From the rows that an extractor made to the rows that are stored: cast, and refused if the cast
would not be faithful."""

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import RowsRefused
from vlpipe.stores.features import FeatureDefinition, Features
from vlpipe.stores.float_casts import are_within, cast_floats
from vlpipe.stores.stored_dtypes import BFLOAT16, narrowed, stored_dtype, widened

_SECONDS = np.dtype("<f8")
_MAX_ROWS = 2**31 - 1  # row_size is int32 in manifests
_LARGEST_BFLOAT16 = float(widened(np.array([0x7F7F], np.uint16))[0])


def stored_rows(
    video_id: str, definition: FeatureDefinition, features: Features
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Rows [T, *row_shape] of the stored dtype and spans [T, 2], C-contiguous, little endian.

    Raises RowsRefused for another shape, values that are not finite, an overflow of float16 or
    bfloat16, numbers that the dtype cannot hold exactly, and spans that go backwards.
    """
    try:
        rows = _cast(np.asarray(features.rows), definition)
        return rows, _checked_spans(features.spans)
    except RowsRefused as error:
        raise RowsRefused(
            f"video {video_id!r}, feature {definition.name!r}: {error.message}", hint=error.hint
        ) from None


def _cast(rows: npt.NDArray[Any], definition: FeatureDefinition) -> npt.NDArray[Any]:
    if rows.shape[1:] != definition.row_shape:
        raise RowsRefused(
            f"one row has the shape {rows.shape[1:]}, expected {definition.row_shape}"
        )
    if len(rows) > _MAX_ROWS:
        raise RowsRefused(f"{len(rows)} rows are too many for one video")
    dtype = definition.dtype
    target = stored_dtype(dtype)
    if dtype == BFLOAT16:
        if rows.dtype.name == BFLOAT16:  # of ml_dtypes
            rows = widened(rows.view(np.uint16))
        return narrowed(_as_float(rows, np.dtype("<f4"), limit=_LARGEST_BFLOAT16, name=dtype))
    if target.kind == "f":
        return _as_float(rows, target, limit=_largest(target), name=dtype)
    return _as_integer(rows, target)


def _as_float(
    rows: npt.NDArray[Any], target: np.dtype[Any], *, limit: float, name: str
) -> npt.NDArray[Any]:
    if rows.dtype == target:
        stored = np.ascontiguousarray(rows)
    elif rows.dtype.kind in "fiub":
        stored = cast_floats(rows, target)  # an overflow becomes infinite and is refused below
    else:
        raise RowsRefused(f"rows have dtype {rows.dtype}, expected numbers")
    if not are_within(stored, limit):
        raise _not_storable(rows, stored, limit, name)
    if rows.dtype.kind in "iu":
        kept = widened(narrowed(stored)) if name == BFLOAT16 else stored
        if not np.array_equal(kept.astype(rows.dtype), rows):
            raise RowsRefused(f"{name} cannot hold these {rows.dtype} values exactly")
    return stored


def _not_storable(
    rows: npt.NDArray[Any], stored: npt.NDArray[Any], limit: float, name: str
) -> RowsRefused:
    """Which value it is, and why."""
    bad = np.argwhere(~(np.isfinite(stored) & (np.abs(stored) <= limit)))
    value = rows[tuple(bad[0])]
    place = f"{len(bad)} of {stored.size} values, first in row {bad[0][0]}"
    if np.isfinite(value):
        return RowsRefused(
            f"{value} does not fit into {name}, which ends at {limit:g} ({place})",
            hint="store this feature as float32",
        )
    return RowsRefused(f"{value} is not finite ({place})")


@cache
def _largest(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).max)


def _as_integer(rows: npt.NDArray[Any], target: np.dtype[Any]) -> npt.NDArray[Any]:
    if rows.dtype.kind not in "iub":
        raise RowsRefused(f"rows have dtype {rows.dtype}, expected {target.name}")
    limits = np.iinfo(target)
    if rows.dtype != target and rows.size and rows.dtype.kind != "b":
        low, high = int(rows.min()), int(rows.max())
        if low < limits.min or high > limits.max:
            raise RowsRefused(f"values from {low} to {high} do not fit into {target.name}")
    return np.ascontiguousarray(rows, target)


def _checked_spans(spans: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    stored = np.ascontiguousarray(spans, _SECONDS)
    if len(stored) == 0:
        return stored
    # Nothing compares with NaN, and all lies between the first start and the last end.
    edges = stored.ravel()
    num_rising = np.count_nonzero(edges[:-1] <= edges[1:])
    if num_rising == len(edges) - 1 and -math.inf < edges.item(0) and edges.item(-1) < math.inf:
        return stored  # the usual case, first: one row after the other
    starts, ends = stored[:, 0], stored[:, 1]
    is_ordered = (starts <= ends).all() and (starts[:-1] <= starts[1:]).all()
    if is_ordered and -np.inf < starts[0] and ends.max() < np.inf:
        return stored
    if not np.isfinite(stored).all():
        raise RowsRefused("spans are not finite")
    raise RowsRefused("spans go backwards in time")
