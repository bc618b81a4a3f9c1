"""Reading one feature of a store."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from vlpipe.stores.checksum import crc32c
from vlpipe.stores.errors import StoreDamaged, VideoMissing
from vlpipe.stores.generation import GenerationState, Location
from vlpipe.stores.information import FeatureInfo, feature_info
from vlpipe.stores.part_reader import PartReader
from vlpipe.stores.state import State

if TYPE_CHECKING:
    import dask.array

Verify = Literal["always", "first", "never"]
RowSelection = slice | Sequence[int] | npt.NDArray[np.integer[Any]]

_DASK_CHUNK_BYTES = 16 * 2**20


class FeatureReader:
    """The videos of one feature generation, as a store sees them. Made by `store[name]`.

    `reader[video_id]` is the array of its rows. It iterates over ids, in sorted order.
    """

    def __init__(
        self, url: str, state: State, generation: GenerationState, parts: PartReader
    ) -> None:
        self._url = url
        self._state = state
        self._generation = generation
        self._parts = parts
        self._rows_verified = _Verified(generation)
        self._spans_verified = _Verified(generation)

    @property
    def name(self) -> str:
        """`feature@generation`."""
        return "@".join(self._generation.key)

    @property
    def info(self) -> FeatureInfo:
        return feature_info(self._state, self._generation)

    def __getitem__(self, video_id: str) -> npt.NDArray[Any]:
        """[T, *row_shape] of the stored dtype; VideoMissing says why there are none."""
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

        rows: a slice or row numbers; only these are read and returned.
        verify: when the checksum of the video's rows is compared: "first" (the default: when this
            process reads the video for the first time), "always" or "never".

        Raises VideoMissing with the reason, StoreDamaged when the bytes are not those committed.
        """
        location = self._generation.locate(video_id)
        if location is None:
            raise self._missing(video_id)
        verify = verify or "first"
        values = self._read_array("rows", video_id, location, rows, verify)
        if not with_spans:
            return values
        return values, self._read_array("spans", video_id, location, rows, verify)

    def dask(self, video_id: str) -> "dask.array.Array":
        """The rows as a lazy dask array [T, *row_shape], in chunks of at most 16 MiB."""
        import dask.array

        lazy = LazyRows(self, video_id)
        row_bytes = max(lazy.nbytes // max(lazy.shape[0], 1), 1)
        chunk_rows = min(max(_DASK_CHUNK_BYTES // row_bytes, 1), max(lazy.shape[0], 1))
        array: dask.array.Array = dask.array.from_array(  # type: ignore[no-untyped-call]
            lazy,
            chunks=(chunk_rows, *lazy.shape[1:]),
            name=f"{self.name}-{lazy.token}",
            meta=np.empty((0,) * lazy.ndim, lazy.dtype),
        )
        return array

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self._generation.locate(video_id) is not None

    def __len__(self) -> int:
        return self._generation.counts[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids())

    def ids(self) -> list[str]:
        """Ids of all videos with rows, sorted."""
        return self._generation.video_ids()

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_reader, (self._url, self._state.version, self.name)

    def __repr__(self) -> str:
        return f"<FeatureReader {self.name}, {len(self)} videos, version {self._state.version}>"

    # below

    def locate(self, video_id: str) -> Location:
        """The part and the range of rows of a video, with their checksums; or VideoMissing."""
        location = self._generation.locate(video_id)
        if location is None:
            raise self._missing(video_id)
        return location

    def _read_array(
        self,
        array: Literal["rows", "spans"],
        video_id: str,
        location: Location,
        selection: RowSelection | None,
        verify: Verify,
    ) -> npt.NDArray[Any]:
        part, start, size, rows_crc, spans_crc, number = location
        if array == "rows":
            read, expected, verified = self._parts.read_rows, rows_crc, self._rows_verified
        else:
            read, expected, verified = self._parts.read_spans, spans_crc, self._spans_verified
        is_to_verify = verify == "always" or (
            verify == "first" and not verified.has(video_id, number)
        )
        if selection is None:
            values = read(part, start, size, video_id)
            found = crc32c(values) if is_to_verify else expected
        else:
            found = expected
            if is_to_verify:
                found = self._parts.crc32c(array, part, start, size, video_id)
            values = _read_selection(
                lambda first, count: read(part, start + first, count, video_id), selection, size
            )
        if found != expected:
            raise StoreDamaged(
                f"{self._url}: {array} of video {video_id!r} of {self.name} in part "
                f"{part.folder} have the checksum {found:08x}, expected {expected:08x}",
                hint="vlpipe store verify lists all damaged videos",
            )
        if is_to_verify:
            verified.add(video_id, number)
        return values

    def _missing(self, video_id: str) -> VideoMissing:
        feature, generation = self._generation.key
        state = self._state
        what = f"video {video_id!r} has no rows of {self.name} in {self._url}"
        deletion = state.deletion(video_id, feature)
        if deletion is not None:
            reason = f" ({deletion.reason})" if deletion.reason else ""
            return VideoMissing(f"{what}: deleted by version {deletion.version}{reason}")
        failure = state.failures.get((feature, generation, video_id))
        if failure is not None:
            return VideoMissing(
                f"{what}: failed ({failure.kind}) at attempt {failure.attempt}: {failure.message}",
                hint="vlpipe extract --retry-failed tries again",
            )
        return VideoMissing(f"{what}: never written", hint="vlpipe extract makes it")


class _Verified:
    """The videos whose checksum matched in this process: a byte each, not a Python object."""

    def __init__(self, generation: GenerationState) -> None:
        manifest = generation.manifest
        self._numbers = bytearray(0 if manifest is None else len(manifest))
        self._others: set[str] = set()  # videos added since the checkpoint

    def has(self, video_id: str, number: int) -> bool:
        return bool(self._numbers[number]) if number >= 0 else video_id in self._others

    def add(self, video_id: str, number: int) -> None:
        if number >= 0:
            self._numbers[number] = 1
        else:
            self._others.add(video_id)


class LazyRows:
    """The rows of one video for dask: shape and dtype now, bytes when indexed. Pickles."""

    def __init__(self, reader: FeatureReader, video_id: str) -> None:
        part, _, size, crc, *_ = reader.locate(video_id)
        self._reader = reader
        self._video_id = video_id
        self.shape = (size, *part.row_shape)
        self.dtype = np.dtype(part.dtype)
        self.ndim = len(self.shape)
        self.nbytes = self.dtype.itemsize * int(np.prod(self.shape))
        # Equal content has equal names, so that dask recognises it.
        self.token = f"{part.id}-{video_id}-{crc:08x}"

    def __getitem__(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        rows, *others = key
        values = self._reader.read(self._video_id, rows=rows)
        return values[(slice(None), *others)]


def _read_selection(
    read: Any,  # noqa: ANN401 - (first row, count) to rows
    selection: RowSelection,
    size: int,
) -> npt.NDArray[Any]:
    if isinstance(selection, slice):
        first, stop, step = selection.indices(size)
        if step == 1:
            return np.asarray(read(first, max(stop - first, 0)))
        numbers = np.arange(first, stop, step)
    else:
        numbers = np.asarray(selection, dtype=np.int64).reshape(-1)
        if ((numbers < -size) | (numbers >= size)).any():
            raise IndexError(f"row numbers {numbers.tolist()} are out of range for {size} rows")
        numbers = np.where(numbers < 0, numbers + size, numbers)
    if not len(numbers):
        return np.asarray(read(0, 0))
    # Rows that follow each other are read by one call.
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return np.concatenate([read(int(run[0]), len(run)) for run in runs])


def _open_reader(url: str, version: int, name: str) -> FeatureReader:
    from vlpipe.stores.feature_store import FeatureStore

    return FeatureStore.open(url, version)[name]
