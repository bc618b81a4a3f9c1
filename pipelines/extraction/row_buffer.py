"""Rows of one feature of one video while they are made, with memory bounded by a constant."""

import tempfile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

SPILL_BYTES = 32 * 2**20


class RowBuffer:
    """Collects rows [n, *row_shape] in order; beyond 32 MiB they go to an unnamed file.

    The values are kept in `dtype`; a float16 that cannot hold them becomes infinite here and is
    found by `is_finite` being False.
    """

    def __init__(self, row_shape: tuple[int, ...], dtype: str) -> None:
        self._row_shape = row_shape
        self._dtype = np.dtype(dtype)
        self._parts: list[npt.NDArray[Any]] = []
        self._file: IO[bytes] | None = None
        self._bytes_held = 0
        self._num_rows = 0
        self.is_finite = True

    def __len__(self) -> int:
        return self._num_rows

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Adds rows [n, *row_shape] of any float dtype."""
        with np.errstate(over="ignore"):
            part = np.ascontiguousarray(rows, self._dtype)
        self.is_finite = self.is_finite and bool(np.isfinite(part).all())
        self._parts.append(part)
        self._num_rows += len(part)
        self._bytes_held += part.nbytes
        if self._bytes_held > SPILL_BYTES:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the buffer
            for held in self._parts:
                self._file.write(held.tobytes())
            self._parts.clear()
            self._bytes_held = 0

    def rows(self) -> npt.NDArray[Any]:
        """All rows [N, *row_shape]; read from the file as they are used when they were spilled."""
        if self._file is None:
            empty = np.zeros((0, *self._row_shape), self._dtype)
            return np.concatenate([empty, *self._parts])
        for held in self._parts:
            self._file.write(held.tobytes())
        self._parts.clear()
        self._file.flush()
        shape = (self._num_rows, *self._row_shape)
        return np.memmap(self._file, self._dtype, mode="r", shape=shape)

    def close(self) -> None:
        """Gives the file's space back."""
        if self._file is not None:
            self._file.close()
