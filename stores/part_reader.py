"""Reading rows out of parts: one system call for a video, straight into the caller's array."""

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.checksum import crc32c, extend_crc32c
from vlpipe.stores.errors import StoreDamaged, VlpipeError
from vlpipe.stores.part import Part
from vlpipe.stores.row_file import BASE
from vlpipe.stores.storage import RangeReader, Storage

MAX_OPEN_FILES = 128
_BLOCK_BYTES = 2**20

SPANS_DTYPE = np.dtype("<f8")


class PartReader:
    """Ranges of rows of the parts of one store, by way of a few open files.

    Descriptors are opened again when the process is another one (after a fork).
    """

    def __init__(self, storage: Storage, explain_missing: Callable[[Part], VlpipeError]) -> None:
        self._storage = storage
        self._explain_missing = explain_missing
        self._files: OrderedDict[str, RangeReader] = OrderedDict()
        self._pid = os.getpid()

    def read_rows(self, part: Part, start: int, count: int, video_id: str) -> npt.NDArray[Any]:
        """[count, *row_shape] of the stored dtype."""
        if not part.is_plain:
            return self._read_foreign(part, "rows", start, count)
        shape = part.rows_shape
        rows = np.empty((count, *part.row_shape), shape.dtype)
        if count:
            offset = part.base + start * shape.row_bytes
            self._fill(part, part.rows_file, part.rows_bytes, offset, rows, video_id)
        return rows

    def read_spans(
        self, part: Part, start: int, count: int, video_id: str
    ) -> npt.NDArray[np.float64]:
        """[count, 2] seconds."""
        if not part.is_plain:
            return self._read_foreign(part, "spans", start, count)
        spans = np.empty((count, 2), SPANS_DTYPE)
        if count:
            offset = BASE + start * 16
            self._fill(part, part.spans_file, part.spans_bytes, offset, spans, video_id)
        return spans

    def crc32c(self, array: str, part: Part, start: int, count: int, video_id: str) -> int:
        """CRC-32C of rows or spans, read in pieces: a long video needs no memory for it."""
        read = self.read_rows if array == "rows" else self.read_spans
        row_bytes = part.rows_shape.row_bytes if array == "rows" else 16
        step = max(_BLOCK_BYTES // row_bytes, 1)
        result = crc32c(b"")
        for offset in range(0, count, step):
            piece = read(part, start + offset, min(step, count - offset), video_id)
            result = extend_crc32c(result, piece)
        return result

    def close(self) -> None:
        self._files.clear()

    def _fill(
        self,
        part: Part,
        name: str,
        num_bytes: int,
        offset: int,
        target: npt.NDArray[Any],
        video_id: str,
    ) -> None:
        file = self._file(part, name, num_bytes)
        try:
            num_read = file.read_into(offset, target)
        except OSError as error:
            raise StoreDamaged(
                f"{self._storage.url}/{name}, video {video_id!r}: cannot be read: {error}"
            ) from error
        if num_read != target.nbytes:
            raise StoreDamaged(
                f"{self._storage.url}/{name}, video {video_id!r}: {num_read} of "
                f"{target.nbytes} bytes could be read from byte {offset} on"
            )

    def _file(self, part: Part, name: str, num_bytes: int) -> RangeReader:
        if self._pid != os.getpid():
            self._files, self._pid = OrderedDict(), os.getpid()
        try:
            file = self._files[name]
            self._files.move_to_end(name)
            return file
        except KeyError:  # not open, or another thread has just dropped it
            pass
        try:
            file = self._storage.open(name)
        except FileNotFoundError:
            raise self._explain_missing(part) from None
        except OSError as error:
            raise StoreDamaged(f"{self._storage.url}/{name} cannot be opened: {error}") from error
        if file.size != num_bytes:
            raise StoreDamaged(
                f"{self._storage.url}/{name} has {file.size} bytes, expected {num_bytes}",
                hint="vlpipe store verify lists the videos concerned",
            )
        self._files[name] = file
        while len(self._files) > MAX_OPEN_FILES:
            self._files.popitem(last=False)
        return file

    def _read_foreign(self, part: Part, name: str, start: int, count: int) -> npt.NDArray[Any]:
        """Rows or spans of a part whose codecs are not ours: zarr-python decodes them."""
        folder = self._storage.local_folder
        if folder is None or part.form != "zarr":
            raise StoreDamaged(
                f"{self._storage.url}/{part.folder} has the form {part.form!r} with codec "
                f"{part.codec!r}, which cannot be read from here"
            )
        import zarr

        array = zarr.open_array(f"{folder}/{part.folder}/{name}", mode="r")
        try:
            return np.ascontiguousarray(array[start : start + count])
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreDamaged(f"{self._storage.url}/{part.folder}: {error}") from error
