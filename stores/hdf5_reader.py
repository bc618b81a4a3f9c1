"""Reading one feature of an HDF5 file of features: one system call for a video."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from vlpipe.stores.checksum import crc32c
from vlpipe.stores.errors import StoreDamaged, VideoMissing
from vlpipe.stores.hdf5_index import FeatureIndex, feature_info
from vlpipe.stores.information import FeatureInfo
from vlpipe.stores.row_selection import RowSelection, row_numbers

if TYPE_CHECKING:
    import dask.array

Verify = Literal["always", "first", "never"]


class Hdf5FeatureReader:
    """The videos of one feature generation in the file. Made by `store[name]`; the calls are those
    of `FeatureReader`."""

    def __init__(
        self, url: str, index: FeatureIndex, file: "RangeFile", facts: Mapping[str, Any]
    ) -> None:
        self.index = index
        self._url = url
        self._file = file
        self._facts = facts
        self._numbers = {video_id: n for n, video_id in enumerate(index.video_ids)}
        self._verified = bytearray(2 * len(index.video_ids))

    @property
    def name(self) -> str:
        """`feature@generation`."""
        return f"{self.index.definition.name}@{self.index.definition.generation}"

    @property
    def info(self) -> FeatureInfo:
        return feature_info(self.index, self._facts)

    def __getitem__(self, video_id: str) -> npt.NDArray[Any]:
        """[T, *row_shape] of the stored dtype; VideoMissing when there are none."""
        return self.read(video_id)

    @overload
    def read(
        self,
        video_id: str,
        *,
        with_spans: Literal[False] = False,
        rows: RowSelection | None = None,
        verify: Verify | None = None,
    ) -> npt.NDArray[Any]: ...

    @overload
    def read(
        self,
        video_id: str,
        *,
        with_spans: Literal[True],
        rows: RowSelection | None = None,
        verify: Verify | None = None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]: ...

    def read(
        self,
        video_id: str,
        *,
        with_spans: bool = False,
        rows: RowSelection | None = None,
        verify: Verify | None = None,
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """[T, *row_shape] of the stored dtype; with spans also [T, 2] float64 seconds.

        rows: a slice, row numbers or a mask [T]; only these are returned.
        verify: as `FeatureReader.read`. Raises VideoMissing, StoreDamaged.
        """
        number = self._number(video_id)
        definition = self.index.definition
        values = self._values(
            number, 0, self.index.rows_offset, np.dtype(definition.dtype), definition.row_shape,
            self.index.crc32c, verify,
        )  # fmt: skip
        if rows is not None:
            chosen = rows if isinstance(rows, slice) else row_numbers(rows, len(values))
            values = values[chosen]
        if not with_spans:
            return values
        spans = self._values(
            number, 1, self.index.spans_offset, np.dtype("<f8"), (2,),
            self.index.spans_crc32c, verify,
        )  # fmt: skip
        return values, spans if rows is None else spans[chosen]

    def dask(self, video_id: str) -> "dask.array.Array":
        """The rows as a lazy dask array [T, *row_shape] of one chunk."""
        import dask
        import dask.array

        number = self._number(video_id)
        definition = self.index.definition
        shape = (int(self.index.row_size[number]), *definition.row_shape)
        delayed = dask.delayed(self.__getitem__, pure=True)(video_id)  # type: ignore[attr-defined]
        array: dask.array.Array = dask.array.from_delayed(  # type: ignore[no-untyped-call]
            delayed, shape, np.dtype(definition.dtype)
        )
        return array

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids())

    def ids(self) -> list[str]:
        """Ids of all videos, sorted."""
        return sorted(self._numbers)

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_reader, (self._url, self.name)

    def __repr__(self) -> str:
        return f"<Hdf5FeatureReader {self.name}, {len(self)} videos>"

    def _number(self, video_id: str) -> int:
        number = self._numbers.get(video_id)
        if number is None:
            raise VideoMissing(f"video {video_id!r} has no rows of {self.name} in {self._url}")
        return number

    def _values(
        self,
        number: int,
        array: Literal[0, 1],
        offset: int | None,
        dtype: np.dtype[Any],
        row_shape: tuple[int, ...],
        checksums: npt.NDArray[np.uint32],
        verify: Verify | None,
    ) -> npt.NDArray[Any]:
        values = np.empty((int(self.index.row_size[number]), *row_shape), dtype)
        if values.nbytes:
            row_bytes = values.nbytes // len(values)
            where = (offset or 0) + int(self.index.row_start[number]) * row_bytes
            self._file.read_into(where, values)
        flag = 2 * number + array
        if verify == "always" or (verify != "never" and not self._verified[flag]):
            found, expected = crc32c(values), int(checksums[number])
            if found != expected:
                raise StoreDamaged(
                    f"{self._url}: {('rows', 'spans')[array]} of video "
                    f"{self.index.video_ids[number]!r} of {self.name} have the checksum "
                    f"{found:08x}, expected {expected:08x}"
                )
            self._verified[flag] = 1
        return values


class RangeFile:
    """The file, opened when it is first read, and again in another process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._pid = 0

    def read_into(self, offset: int, target: npt.NDArray[Any]) -> None:
        if self._pid != os.getpid():
            self._descriptor = os.open(self._path, os.O_RDONLY)
            self._pid = os.getpid()
        view: Any = target.reshape(-1).view(np.uint8)
        done = 0
        while done < len(view):
            count = os.preadv(self._descriptor, [view[done:]], offset + done)
            if not count:
                raise StoreDamaged(f"{self._path} ends at byte {offset + done}, in the middle")
            done += count

    def close(self) -> None:
        if self._pid == os.getpid():
            os.close(self._descriptor)
        self._pid = 0

    def __del__(self) -> None:
        self.close()


def _open_reader(path: str, name: str) -> Hdf5FeatureReader:
    from vlpipe.stores.hdf5_store import Hdf5Store

    return Hdf5Store.open(path)[name]
