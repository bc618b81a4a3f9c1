"""From the rows that an extractor made to the rows that are stored: cast, and refused if the cast
would not be faithful."""

from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import RowsRefused
from vlpipe.stores.features import FeatureDefinition, Features

_MAX_ROWS = 2**31 - 1  # row_size is int32 in manifests


def stored_rows(
    video_id: str, definition: FeatureDefinition, features: Features
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Rows [T, *row_shape] of the stored dtype and spans [T, 2], C-contiguous, little endian.

    Raises RowsRefused for another shape, values that are not finite, a float16 overflow, numbers
    that the dtype cannot hold exactly, and spans that go backwards.
    """
    where = f"video {video_id!r}, feature {definition.name!r}"
    rows = np.asarray(features.rows)
    if rows.shape[1:] != definition.row_shape:
        raise RowsRefused(
            f"{where}: one row has the shape {rows.shape[1:]}, expected {definition.row_shape}"
        )
    if len(rows) > _MAX_ROWS:
        raise RowsRefused(f"{where}: {len(rows)} rows are too many for one video")
    target = np.dtype(definition.dtype).newbyteorder("<")
    cast = _as_float if target.kind == "f" else _as_integer
    return cast(where, rows, target), _checked_spans(where, features.spans)


def _as_float(where: str, rows: npt.NDArray[Any], target: np.dtype[Any]) -> npt.NDArray[Any]:
    if rows.dtype.kind not in "fiub":
        raise RowsRefused(f"{where}: rows have dtype {rows.dtype}, expected numbers")
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is refused below
        stored = np.ascontiguousarray(rows, target)
    if not np.isfinite(stored).all():
        bad = np.argwhere(~np.isfinite(stored))
        value = rows[tuple(bad[0])]
        place = f"{len(bad)} of {stored.size} values, first in row {bad[0][0]}"
        if np.isfinite(value):
            raise RowsRefused(
                f"{where}: {value} does not fit into {target.name}, which ends at "
                f"{np.finfo(target).max} ({place})",
                hint="store this feature as float32",
            )
        raise RowsRefused(f"{where}: {value} is not finite ({place})")
    if rows.dtype.kind in "iu" and not np.array_equal(stored.astype(rows.dtype), rows):
        raise RowsRefused(f"{where}: {target.name} cannot hold these {rows.dtype} values exactly")
    return stored


def _as_integer(where: str, rows: npt.NDArray[Any], target: np.dtype[Any]) -> npt.NDArray[Any]:
    if rows.dtype.kind not in "iub":
        raise RowsRefused(f"{where}: rows have dtype {rows.dtype}, expected {target.name}")
    limits = np.iinfo(target)
    if rows.size and rows.dtype.kind != "b":
        low, high = int(rows.min()), int(rows.max())
        if low < limits.min or high > limits.max:
            raise RowsRefused(f"{where}: values from {low} to {high} do not fit into {target.name}")
    return np.ascontiguousarray(rows, target)


def _checked_spans(where: str, spans: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    stored = np.ascontiguousarray(spans, "<f8")
    if not np.isfinite(stored).all():
        raise RowsRefused(f"{where}: spans are not finite")
    if (stored[:, 1] < stored[:, 0]).any() or (np.diff(stored[:, 0]) < 0).any():
        raise RowsRefused(f"{where}: spans go backwards in time")
    return stored
