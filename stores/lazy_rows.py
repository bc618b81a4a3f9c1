"""Rows as dask and xarray see them: shape and dtype now, bytes when they are computed."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import EnvironmentLacks

if TYPE_CHECKING:
    import dask.array
    import xarray

    from vlpipe.stores.reader import FeatureReader

_CHUNK_BYTES = 16 * 2**20


class LazyRows:
    """The rows of some videos, one after the other, [sum of T, *row_shape]. Pickles."""

    def __init__(self, reader: "FeatureReader", ids: Sequence[str]) -> None:
        self._reader = reader
        self._ids = list(ids)
        sizes = [reader.locate(video_id)[2] for video_id in self._ids]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.shape = (int(self._starts[-1]), *reader.definition.row_shape)
        self.dtype = reader.dtype
        self.ndim = len(self.shape)

    @property
    def row_bytes(self) -> int:
        size = self.dtype.itemsize
        for length in self.shape[1:]:
            size *= length
        return size

    def chunks(self) -> tuple[int, ...]:
        """Rows in each chunk: whole videos up to 16 MiB; longer ones in pieces."""
        most = max(_CHUNK_BYTES // self.row_bytes, 1)
        chunks: list[int] = []
        room = 0
        for size in np.diff(self._starts).tolist():
            if size and size <= room:
                chunks[-1] += size
                room -= size
                continue
            pieces = [most] * (size // most) + ([size % most] if size % most else [])
            chunks += pieces
            room = most - pieces[-1] if pieces else room
        return tuple(chunks) or (0,)

    def __getitem__(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        selection, *others = key
        first, stop, step = selection.indices(self.shape[0])
        pieces = []
        number = max(int(np.searchsorted(self._starts, first, "right")) - 1, 0)
        while number < len(self._ids) and self._starts[number] < stop:
            start, end = int(self._starts[number]), int(self._starts[number + 1])
            low, high = max(first - start, 0), min(stop, end) - start
            if low == 0 and high == end - start:
                pieces.append(self._reader[self._ids[number]])
            elif high > low:
                pieces.append(self._reader.read(self._ids[number], rows=slice(low, high)))
            number += 1
        empty = np.empty((0, *self.shape[1:]), self.dtype)
        rows = np.concatenate(pieces) if len(pieces) > 1 else pieces[0] if pieces else empty
        return rows[(slice(None, None, step), *others)]


def dask_rows(reader: "FeatureReader", ids: Sequence[str], name: str) -> "dask.array.Array":
    """A dask array [sum of T, *row_shape] in chunks of at most 16 MiB, where rows allow it."""
    import dask.array

    lazy = LazyRows(reader, ids)
    array: dask.array.Array = dask.array.from_array(  # type: ignore[no-untyped-call]
        lazy,
        chunks=(lazy.chunks(), *((length,) for length in lazy.shape[1:])),
        name=name,
        meta=np.empty((0,) * lazy.ndim, lazy.dtype),
    )
    return array


def xarray_rows(reader: "FeatureReader", video_id: str) -> "xarray.DataArray":
    """The rows of one video as a lazy DataArray with its spans as coordinates."""
    try:
        import xarray
    except ImportError as error:
        raise EnvironmentLacks(
            "xarray is not installed", hint="pip install 'vlpipe[xarray]'"
        ) from error
    info = reader.info
    spans = reader.read_spans(video_id)
    return xarray.DataArray(
        reader.dask(video_id),
        dims=("row", *info.dimensions),
        coords={
            "start": ("row", spans[:, 0], {"units": "seconds"}),
            "end": ("row", spans[:, 1], {"units": "seconds"}),
        },
        name=info.name,
        attrs={
            "video_id": video_id,
            "generation": info.generation,
            "provenance": json.dumps(dict(info.provenance), sort_keys=True),
        },
    )
