"""Reading rows out of parts: one system call for a video, straight into the caller's array."""

import resource
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vlpipe.stores.aligned_arrays import empty_aligned
from vlpipe.stores.checksum import crc32c, extend_crc32c
from vlpipe.stores.errors import StoreDamaged, VlpipeError
from vlpipe.stores.part import Part
from vlpipe.stores.row_selection import RowSelection, selected_runs
from vlpipe.stores.storage import RangeReader, Request, Storage

ArrayName = Literal["rows", "spans"]

_BLOCK_BYTES = 2**20
_MOST_TARGETS = 512  # of one request; the kernel takes 1,024

SPANS_DTYPE = np.dtype("<f8")


class OpenRows:
    """The row file of a part while it is open, for reads that look for nothing else.

    file, rows: open for reading, and mapped as one array of all rows; None while it is not, at
        first and when too many are.
    """

    __slots__ = ("dtype", "file", "rows")

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.file: RangeReader | None = None
        self.rows: npt.NDArray[Any] | None = None


class PartReader:
    """Ranges of rows of the parts of one store, by way of a few open files.

    Files that a forked process inherits serve it as well: reads name their offset, so processes
    share no position.
    """

    def __init__(self, storage: Storage, explain_missing: Callable[[Part], VlpipeError]) -> None:
        self._storage = storage
        self._explain_missing = explain_missing
        self._files: dict[str, RangeReader] = {}  # the one opened first is closed first
        self._open_rows: dict[str, OpenRows] = {}  # who has one follows the file through it
        self._maps: dict[str, npt.NDArray[Any]] = {}  # likewise
        self._most_open = most_open_files()

    def open_rows(self, part: Part) -> OpenRows:
        """The row file of a plain part, as long as it is open."""
        opened = self._open_rows.get(part.rows_file)
        if opened is None:
            opened = OpenRows(part.rows_dtype)
            opened.file = self._files.get(part.rows_file)
            opened.rows = self._maps.get(part.rows_file)
            opened = self._open_rows.setdefault(part.rows_file, opened)
        return opened

    def read(
        self, array: ArrayName, part: Part, start: int, count: int, video_id: str
    ) -> npt.NDArray[Any]:
        """Rows [count, *row_shape] of the stored dtype, or spans [count, 2] seconds."""
        if not part.is_plain:
            return self._read_foreign(part, array, start, count)
        values = new_array(array, part, count)
        if count:
            self._fill(part, array, file_offset(array, part, start), values, video_id)
        return values

    def read_selected(
        self,
        array: ArrayName,
        part: Part,
        start: int,
        size: int,
        selection: RowSelection,
        video_id: str,
    ) -> npt.NDArray[Any]:
        """Some rows or spans of the video that lies at `start` and has `size` rows."""
        runs, num_selected = selected_runs(selection, size)
        values = new_array(array, part, num_selected)
        if not part.is_plain:
            for first, count, place in runs:
                values[place : place + count] = self._read_foreign(
                    part, array, start + first, count
                )
            return values
        if not runs:
            return values
        row_bytes = values.nbytes // num_selected
        begin = file_offset(array, part, start)
        # A few rows are read sooner than a few Python calls are made: hence none but one for each.
        file = self._file(part, array)
        read_once = file.read_once
        for first, count, place in runs:
            target, offset = values[place : place + count], begin + first * row_bytes
            try:
                is_read = read_once((target,), offset) == count * row_bytes
            except OSError:
                is_read = False
            if not is_read:  # once more, for what the kernel gives in pieces, and for the error
                self._fill(part, array, offset, target, video_id)
        return values

    def read_many(
        self, array: ArrayName, wanted: Sequence[tuple[Part, int, npt.NDArray[Any], str]]
    ) -> None:
        """Fills many arrays, each from its part and first row on: in the order of the files,
        neighbours by one request, and all announced to the storage together."""
        plain = [item for item in wanted if item[0].is_plain and len(item[2])]
        for part, start, target, _ in wanted:
            if not part.is_plain:
                target[...] = self._read_foreign(part, array, start, len(target))
        plain.sort(key=lambda item: (item[0].rows_file, item[1]))
        requests: list[Request] = []
        owners: list[tuple[Part, int, str, list[npt.NDArray[Any]]]] = []
        end: tuple[Part, int] | None = None
        for part, start, target, video_id in plain:
            if (
                end is not None
                and end[0] is part
                and end[1] == start
                and len(owners[-1][3]) < _MOST_TARGETS
            ):
                owners[-1][3].append(target)
            else:
                offset = file_offset(array, part, start)
                owners.append((part, offset, video_id, [target]))
                requests.append((self._file(part, array), offset, owners[-1][3]))
            end = part, start + len(target)
        try:
            counts = self._storage.read_ranges(requests)
        except OSError:
            counts = [-1] * len(requests)
        for (part, offset, video_id, targets), count in zip(owners, counts, strict=True):
            if count == sum(target.nbytes for target in targets):
                continue
            for target in targets:  # once more, for the error with all its facts
                self._fill(part, array, offset, target, video_id)
                offset += target.nbytes

    def view(self, part: Part, start: int, count: int) -> npt.NDArray[Any]:
        """[count, *row_shape]: a read-only view of the mapped row file of a plain part."""
        rows = self._map(part)[start : start + count]
        if len(rows) != count:
            raise StoreDamaged(
                f"{self._where(part, 'rows')} has {part.num_rows} rows, expected rows {start} to "
                f"{start + count}"
            )
        return rows

    def crc32c(self, array: ArrayName, part: Part, start: int, count: int, video_id: str) -> int:
        """CRC-32C of rows or spans, read in pieces: a long video needs no memory for it."""
        row_bytes = part.rows_shape.row_bytes if array == "rows" else 16
        step = max(_BLOCK_BYTES // row_bytes, 1)
        result = crc32c(b"")
        for offset in range(0, count, step):
            piece = self.read(array, part, start + offset, min(step, count - offset), video_id)
            result = extend_crc32c(result, piece)
        return result

    def close(self) -> None:
        for name in list(self._files):
            self._forget(name)
        for name in list(self._maps):
            self._forget_map(name)

    def _fill(
        self, part: Part, array: ArrayName, offset: int, target: npt.NDArray[Any], video_id: str
    ) -> None:
        file = self._file(part, array)
        try:
            num_read = file.read_into(offset, target)
        except OSError as error:
            raise StoreDamaged(
                f"{self._where(part, array)}, video {video_id!r}: cannot be read: {error}"
            ) from error
        if num_read != target.nbytes:
            raise StoreDamaged(
                f"{self._where(part, array)}, video {video_id!r}: {num_read} of "
                f"{target.nbytes} bytes could be read from byte {offset} on"
            )

    def _file(self, part: Part, array: ArrayName) -> RangeReader:
        name = part.rows_file if array == "rows" else part.spans_file
        file = self._files.get(name)
        if file is not None:
            return file
        try:
            file = self._storage.open(name)
        except FileNotFoundError:
            raise self._explain_missing(part) from None
        except OSError as error:
            raise StoreDamaged(f"{self._where(part, array)} cannot be opened: {error}") from error
        self._check_size(part, array, file.size)
        # In this order: what another thread drops meanwhile is still dropped as a whole.
        if name in self._open_rows:
            self._open_rows[name].file = file
        self._files[name] = file
        while len(self._files) > self._most_open:
            self._forget(next(iter(self._files)))
        return file

    def _forget(self, name: str) -> None:
        """Drops a file; it is closed when no other thread is reading from it any more."""
        self._files.pop(name, None)
        if name in self._open_rows:
            self._open_rows[name].file = None

    def _map(self, part: Part) -> npt.NDArray[Any]:
        """All rows of a plain part, read-only, over the mapped file."""
        name = part.rows_file
        rows = self._maps.get(name)
        if rows is not None:
            return rows
        try:
            data = self._storage.map(name)
        except FileNotFoundError:
            raise self._explain_missing(part) from None
        except OSError as error:
            raise StoreDamaged(f"{self._where(part, 'rows')} cannot be mapped: {error}") from error
        self._check_size(part, "rows", len(data))
        shape = part.rows_shape
        end = part.base + part.num_rows * shape.row_bytes
        if end > len(data):
            raise StoreDamaged(f"{self._where(part, 'rows')} has no room for {part.num_rows} rows")
        rows = data[part.base : end].view(shape.dtype).reshape(part.num_rows, *part.row_shape)
        if name in self._open_rows:  # first, as in `_file`
            self._open_rows[name].rows = rows
        self._maps[name] = rows
        while len(self._maps) > self._most_open:
            self._forget_map(next(iter(self._maps)))
        return rows

    def _forget_map(self, name: str) -> None:
        """Drops a map; its memory goes when no view of it is left."""
        self._maps.pop(name, None)
        if name in self._open_rows:
            self._open_rows[name].rows = None

    def _check_size(self, part: Part, array: ArrayName, found: int) -> None:
        expected = part.rows_bytes if array == "rows" else part.spans_bytes
        if found != expected:
            raise StoreDamaged(
                f"{self._where(part, array)} has {found} bytes, expected {expected}",
                hint="vlpipe store verify lists the videos concerned",
            )

    def _where(self, part: Part, array: ArrayName) -> str:
        return f"{self._storage.url}/{part.rows_file if array == 'rows' else part.spans_file}"

    def _read_foreign(
        self, part: Part, array: ArrayName, start: int, count: int
    ) -> npt.NDArray[Any]:
        """Rows or spans of a part whose codecs are not ours: zarr-python decodes them."""
        folder = self._storage.local_folder
        if folder is None or part.form != "zarr":
            raise StoreDamaged(
                f"{self._storage.url}/{part.folder} has the form {part.form!r} with codec "
                f"{part.codec!r}, which cannot be read from here"
            )
        import zarr

        opened = zarr.open_array(f"{folder}/{part.folder}/{array}", mode="r")
        try:
            return np.ascontiguousarray(opened[start : start + count])
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreDamaged(f"{self._storage.url}/{part.folder}: {error}") from error


def file_offset(array: ArrayName, part: Part, start: int) -> int:
    """The byte of the file of a plain part at which a row begins."""
    if array == "rows":
        return part.base + start * part.rows_shape.row_bytes
    return part.spans_base + start * 16


def new_array(array: ArrayName, part: Part, count: int) -> npt.NDArray[Any]:
    if array == "rows":
        return empty_aligned((count, *part.row_shape), part.rows_dtype)
    return np.empty((count, 2), SPANS_DTYPE)


def most_open_files() -> int:
    """A quarter of what this process may open, so that torch and others have enough."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1024 if soft < 0 else min(max(soft // 4, 16), 1024)
