"""Arrays in bytes that others wrote: `.npy`, `.npz`, raw numbers. Never pickles, never more memory
than the bytes that are really there."""

import io
import tokenize
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80"
# NotImplementedError: of zipfile, for a compression that it does not know.
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError)
_MAX_NPZ_RATIO = 1000  # zeros deflate by about this much, nothing real does by more
_NUMBER_KINDS = "fiub"
# What NumPy's parser of headers lets through when a header is damaged.
_HEADER_ERRORS = (
    ValueError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    OverflowError,
    RecursionError,
    MemoryError,
    EOFError,
    OSError,
)


class ForeignArrayError(ValueError):
    """Bytes that are no array that may be read; the message says why."""


def read_npy(stream: BinaryIO, num_bytes: int) -> npt.NDArray[Any]:
    """The array of `num_bytes` of `.npy`: numbers only, C order.

    Raises ForeignArrayError for pickled objects, and for a header that does not fit the size.
    """
    begin = stream.tell()
    shape, is_fortran, dtype = read_npy_header(stream)
    check_numbers(dtype)
    present = num_bytes - (stream.tell() - begin)
    expected = dtype.itemsize * int(np.prod(shape, dtype=object))
    if present != expected or any(size < 0 for size in shape):
        raise ForeignArrayError(
            f"the header says shape {shape} of {dtype}, {expected} bytes, but {present} follow"
        )
    data = stream.read(expected)
    if len(data) != expected:
        raise ForeignArrayError("the file ends too early")
    values = np.frombuffer(data, dtype) if data else np.empty(0, dtype)
    return np.ascontiguousarray(values.reshape(shape, order="F" if is_fortran else "C"))


def read_npy_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype of `.npy`; ForeignArrayError for anything else."""
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream)
    except _HEADER_ERRORS as error:
        raise ForeignArrayError(f"no npy header: {error}") from None
    raise ForeignArrayError(f"npy format {version} is unknown")


class NpzArchive:
    """The arrays of an `.npz`, by name. A file stays open while this lives."""

    def __init__(self, file: Path | BinaryIO) -> None:
        """Raises ForeignArrayError when it is none."""
        try:
            self._archive = zipfile.ZipFile(file)
        except _ZIP_ERRORS as error:
            raise ForeignArrayError(f"no npz archive: {error}") from None
        self._members: dict[str, list[zipfile.ZipInfo]] = {}
        for member in self._archive.infolist():
            if member.filename.endswith(".npy"):
                self._members.setdefault(member.filename.removesuffix(".npy"), []).append(member)

    def read(self, name: str | None) -> npt.NDArray[Any]:
        """The array of that name; without a name the only one.

        Raises ForeignArrayError, also for members that unpack to far more than they are.
        """
        found = self._members.values() if name is None else [self._members.get(name, [])]
        wanted = [member for members in found for member in members]
        if len(wanted) != 1:
            names = ", ".join(list(self._members)[:10]) or "none"
            raise ForeignArrayError(
                f"expected {'one array' if name is None else f'an array {name!r}'}, found: {names}"
            )
        member = wanted[0]
        if member.file_size > _MAX_NPZ_RATIO * max(member.compress_size, 1) + 4096:
            raise ForeignArrayError(
                f"{member.filename} unpacks from {member.compress_size} to {member.file_size} bytes"
            )
        try:
            data = self._archive.read(member)
        except _ZIP_ERRORS as error:
            raise ForeignArrayError(f"no npz archive: {error}") from None
        return read_npy(io.BytesIO(data), len(data))


def read_npz(stream: BinaryIO, name: str | None) -> npt.NDArray[Any]:
    """One array of an `.npz`; see `NpzArchive.read`."""
    return NpzArchive(stream).read(name)


def read_value(
    data: bytes, raw_dtype: str | None, row_shape: tuple[int, ...] | None
) -> npt.NDArray[Any]:
    """The array in a value of a database or a tar: npy, npz, or with a dtype plain numbers.

    Raises ForeignArrayError.
    """
    if data.startswith(_NPY_MAGIC):
        return read_npy(io.BytesIO(data), len(data))
    if data.startswith(_ZIP_MAGIC):
        return read_npz(io.BytesIO(data), None)
    if raw_dtype is None:
        if data.startswith(_PICKLE_MAGIC):
            raise ForeignArrayError("looks like a pickle, which would run code: not read")
        raise ForeignArrayError("neither npy nor npz, and no dtype was given for raw numbers")
    dtype = np.dtype(raw_dtype).newbyteorder("<")
    row_bytes = dtype.itemsize * int(np.prod(row_shape or ()))
    if row_bytes == 0 or len(data) % row_bytes:
        raise ForeignArrayError(
            f"{len(data)} bytes are no whole number of rows {row_shape or ()} of {dtype.name}"
        )
    return np.frombuffer(data, dtype).reshape(-1, *(row_shape or ()))


def check_numbers(dtype: np.dtype[Any]) -> None:
    """Raises ForeignArrayError unless these are plain numbers."""
    if dtype.hasobject:
        raise ForeignArrayError("holds pickled objects, which would run code: not read")
    if dtype.kind not in _NUMBER_KINDS:
        raise ForeignArrayError(f"holds {dtype}, expected numbers")
