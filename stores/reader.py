"""Reading one feature of a store."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import numpy as np
import numpy.typing as npt

from vlpipe.stores.aligned_arrays import LARGE_BYTES, empty_aligned
from vlpipe.stores.batch_rows import BatchRows, Out, Pad, batch_array, targets_in
from vlpipe.stores.checksum import crc32c
from vlpipe.stores.errors import StoreDamaged
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.generation import GenerationState, Location
from vlpipe.stores.information import FeatureInfo, feature_info
from vlpipe.stores.lookup import video_missing
from vlpipe.stores.part_reader import SPANS_DTYPE, ArrayName, OpenRows, PartReader, file_offset
from vlpipe.stores.row_selection import RowSelection, row_numbers
from vlpipe.stores.state import State
from vlpipe.stores.stored_dtypes import BFLOAT16, read_dtype, stored_dtype, widened
from vlpipe.stores.verified_videos import VerifiedVideos

if TYPE_CHECKING:
    import dask.array
    import xarray

Verify = Literal["always", "first", "never"]
_VERIFY = frozenset(get_args(Verify))

_empty = np.empty  # looked up once

_MOST_PLACES = 2**16  # about 20 MB of Python objects


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
        self._is_bfloat16 = generation.definition.dtype == BFLOAT16
        self._verified = {"rows": VerifiedVideos(generation), "spans": VerifiedVideos(generation)}
        # Of some videos whose rows were compared: all that reading them again asks for. The file,
        # the byte and the number of the first row, the shape and size of the rows.
        self._places: dict[str, tuple[OpenRows, int, int, tuple[int, ...], int]] = {}

    @property
    def name(self) -> str:
        """`feature@generation`."""
        return "@".join(self._generation.key)

    @property
    def info(self) -> FeatureInfo:
        return feature_info(self._state, self._generation)

    @property
    def definition(self) -> FeatureDefinition:
        return self._generation.definition

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the arrays that reading gives: the stored dtype, and float32 for bfloat16."""
        return read_dtype(self._generation.definition.dtype)

    def __getitem__(self, video_id: str) -> npt.NDArray[Any]:
        """[T, *row_shape]; VideoMissing says why there are none."""
        try:
            # Copying a short clip takes as long as a few Python calls: hence none here.
            opened, offset, _, shape, num_bytes = self._places[video_id]
            file = opened.file
            if file is not None:
                if num_bytes < LARGE_BYTES:
                    rows = _empty(shape, opened.dtype)
                else:
                    rows = empty_aligned(shape, opened.dtype)
                if file.read_once((rows,), offset) == num_bytes:
                    return rows
        except KeyError:
            pass  # not read before, or not read so simply
        except OSError:
            pass  # once more below, for the error with all its facts
        return self._read_array("rows", video_id, self.locate(video_id), None, "first", True)

    @overload
    def read(
        self,
        video_id: str,
        *,
        with_spans: Literal[False] = False,
        rows: RowSelection | None = None,
        verify: Verify = "first",
        copy: bool = True,
    ) -> npt.NDArray[Any]: ...

    @overload
    def read(
        self,
        video_id: str,
        *,
        with_spans: Literal[True],
        rows: RowSelection | None = None,
        verify: Verify = "first",
        copy: bool = True,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]: ...

    def read(
        self,
        video_id: str,
        *,
        with_spans: bool = False,
        rows: RowSelection | None = None,
        verify: Verify = "first",
        copy: bool = True,
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """[T, *row_shape] of `dtype`; with spans also [T, 2] float64 seconds.

        rows: a slice, row numbers or a mask [T]; only these are read and returned.
        verify: when the checksum of the video's rows is compared: "first" (when this process
            reads the video for the first time), "always" or "never".
        copy: False gives a read-only view of the mapped file where rows are stored as they are
            read. An I/O error behind such a view ends the process with SIGBUS, as with every
            memory map.

        Raises VideoMissing with the reason, StoreDamaged when the bytes are not those committed.
        """
        if rows is None and verify in ("first", "never"):
            place = self._places.get(video_id)
            if place is not None:
                opened, _, start, shape, _ = place
                mapped = opened.rows
                if copy:
                    values = self[video_id]
                elif mapped is not None:
                    values = mapped[start : start + shape[0]]
                else:  # not mapped yet
                    location = self.locate(video_id)
                    values = self._read_array("rows", video_id, location, None, "first", False)
                return (values, self.read_spans(video_id, verify=verify)) if with_spans else values
        location = self.locate(video_id)
        values = self._read_array("rows", video_id, location, rows, verify, copy)
        if not with_spans:
            return values
        return values, self._read_array("spans", video_id, location, rows, verify, True)

    def read_spans(self, video_id: str, *, verify: Verify = "first") -> npt.NDArray[np.float64]:
        """[T, 2] seconds: the half-open interval that each row describes."""
        return self._read_array("spans", video_id, self.locate(video_id), None, verify, True)

    def read_batch(
        self,
        video_ids: Sequence[str],
        *,
        pad: Pad | None = None,
        length: int | None = None,
        with_spans: bool = False,
        verify: Verify = "first",
        out: Out = None,
    ) -> BatchRows:
        """Several videos at once, read in the order of the files straight into one array.

        pad: "right" or "left" gives rows [B, T, *row_shape], filled up with zeros on that side;
            None gives [sum of lengths, *row_shape], video after video.
        length: T; None for the longest video. ValueError when a video is longer.
        out: a C-contiguous array of the stored dtype (bfloat16: uint16) to read into, of the
            shape of the result or with a longer first axis; or a function from shape to array.

        Raises what `read` raises, before or after other videos of the batch were read.
        """
        if pad not in (None, "right", "left"):
            raise ValueError(f"pad is {pad!r}, expected 'right', 'left' or None")
        ids = tuple(video_ids)
        locations = [self.locate(video_id) for video_id in ids]
        lengths = [location[2] for location in locations]
        longest = max(lengths, default=0)
        if length is not None and (pad is None or length < longest):
            raise ValueError(f"length {length} needs padding and no longer video than {length}")
        num_rows = longest if length is None else length
        shape = (sum(lengths),) if pad is None else (len(ids), num_rows)
        definition = self._generation.definition
        rows = batch_array(out, (*shape, *definition.row_shape), stored_dtype(definition.dtype))
        self._read_into(rows, "rows", ids, locations, pad, verify)
        spans = None
        if with_spans:
            spans = np.empty((*shape, 2), SPANS_DTYPE)
            self._read_into(spans, "spans", ids, locations, pad, verify)
        is_to_widen = self._is_bfloat16 and out is None
        return BatchRows(
            ids, widened(rows) if is_to_widen else rows, np.array(lengths, np.int64), spans, pad
        )

    def dask(self, video_id: str | None = None) -> "dask.array.Array":
        """A lazy dask array [T, *row_shape] of one video, in chunks of at most 16 MiB; without an
        id of all of them, one after the other in the order of `ids()` (see `lengths`)."""
        from vlpipe.stores.lazy_rows import dask_rows

        # Equal content has equal names, so that dask recognises it.
        if video_id is None:
            name = f"{self.name}-{self._url}-{self._state.entry_id}"
            return dask_rows(self, self.ids(), name)
        part, _, _, crc, *_ = self.locate(video_id)
        return dask_rows(self, [video_id], f"{self.name}-{part.id}-{video_id}-{crc:08x}")

    def xarray(self, video_id: str) -> "xarray.DataArray":
        """A lazy DataArray [row, *dimensions] with the coordinates `start` and `end` in seconds.

        Needs the extra `xarray`.
        """
        from vlpipe.stores.lazy_rows import xarray_rows

        return xarray_rows(self, video_id)

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self._generation.locate(video_id) is not None

    def __len__(self) -> int:
        return self._generation.counts[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids())

    def ids(self) -> list[str]:
        """Ids of all videos with rows, sorted."""
        return self._generation.video_ids()

    def lengths(self) -> npt.NDArray[np.int64]:
        """[N] rows of each video, in the order of `ids()`."""
        return np.array([self.locate(video_id)[2] for video_id in self.ids()], np.int64)

    def num_rows(self, video_id: str) -> int:
        """How many rows the video has; VideoMissing if it is not here. Reads no rows."""
        return self.locate(video_id)[2]

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_reader, (self._url, self._state.version, self.name)

    def __repr__(self) -> str:
        return f"<FeatureReader {self.name}, {len(self)} videos, version {self._state.version}>"

    def check(self, video_ids: Sequence[str]) -> None:
        """VideoMissing, with the reason, for the first of them that has no rows."""
        missing = self._generation.first_missing(video_ids)
        if missing is not None:
            self.locate(missing)

    # below

    def locate(self, video_id: str) -> Location:
        """The part and the range of rows of a video, with their checksums; or VideoMissing."""
        if not isinstance(video_id, str):
            raise TypeError(f"the id of a video is text, found {video_id!r}")
        location = self._generation.locate(video_id)
        if location is None:
            raise video_missing(self._url, self._state, self._generation.key, video_id)
        return location

    def _read_array(
        self,
        array: ArrayName,
        video_id: str,
        location: Location,
        selection: RowSelection | None,
        verify: Verify,
        copy: bool,
    ) -> npt.NDArray[Any]:
        part, start, size, *_ = location
        is_to_verify = self._is_to_verify(array, video_id, location, verify)
        if not copy and part.is_plain and size and not self._is_bfloat16:
            values = self._parts.view(part, start, size)
            if is_to_verify:
                self._compare(array, video_id, location, crc32c(values))
            if selection is None:
                return values
            chosen = selection if isinstance(selection, slice) else row_numbers(selection, size)
            return values[chosen]
        if selection is None:
            values = self._parts.read(array, part, start, size, video_id)
            if is_to_verify:
                self._compare(array, video_id, location, crc32c(values))
        else:
            if is_to_verify:
                found = self._parts.crc32c(array, part, start, size, video_id)
                self._compare(array, video_id, location, found)
            values = self._parts.read_selected(array, part, start, size, selection, video_id)
        if self._is_bfloat16 and array == "rows":
            values = widened(values)
        if not copy:
            values.flags.writeable = False
        return values

    def _read_into(
        self,
        values: npt.NDArray[Any],
        array: ArrayName,
        ids: tuple[str, ...],
        locations: list[Location],
        pad: Pad | None,
        verify: Verify,
    ) -> None:
        targets = targets_in(values, [location[2] for location in locations], pad)
        items = list(zip(ids, locations, targets, strict=True))
        self._parts.read_many(
            array, [(part, start, target, i) for i, (part, start, *_), target in items]
        )
        for video_id, location, target in items:
            if self._is_to_verify(array, video_id, location, verify):
                self._compare(array, video_id, location, crc32c(target))

    def _is_to_verify(
        self, array: ArrayName, video_id: str, location: Location, verify: Verify
    ) -> bool:
        if verify not in _VERIFY:
            raise ValueError(f"verify is {verify!r}, expected one of {', '.join(sorted(_VERIFY))}")
        if verify == "first":
            return not self._verified[array].has(video_id, location[5])
        return verify == "always"

    def _compare(self, array: ArrayName, video_id: str, location: Location, found: int) -> None:
        """Remembers that a checksum matches; StoreDamaged when it does not."""
        part, start, size, rows_crc, spans_crc, number = location
        expected = rows_crc if array == "rows" else spans_crc
        if found != expected:
            raise StoreDamaged(
                f"{self._url}: {array} of video {video_id!r} of {self.name} in part "
                f"{part.folder} have the checksum {found:08x}, expected {expected:08x}",
                hint="vlpipe store verify lists all damaged videos",
            )
        self._verified[array].add(video_id, number)
        is_simple = array == "rows" and size and part.is_plain and not self._is_bfloat16
        if is_simple and len(self._places) < _MOST_PLACES:
            offset, shape = file_offset("rows", part, start), (size, *part.row_shape)
            num_bytes = size * part.rows_shape.row_bytes
            self._places[video_id] = (self._parts.open_rows(part), offset, start, shape, num_bytes)


def _open_reader(url: str, version: int, name: str) -> FeatureReader:
    from vlpipe.stores.feature_store import FeatureStore

    return FeatureStore.open(url, version)[name]
