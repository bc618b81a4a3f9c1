"""Arrays out of a pickle, without running what a pickle can ask for.

Caffe2 and Detectron pickle dicts of NumPy arrays, Caffe2 under Python 2. A pickle is a program that
calls the functions it names; here the only names it may use are those of an array, and they stand
for the classes below, which take notes. NumPy's own code for pickles is not called either: it
trusts what it is told of types, so that a pickle could have it read any memory as objects.
"""

import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from vlpipe.extractors.errors import WeightsRejected

_WRAPPERS = ("blobs", "state_dict", "model_state_dict", "model")


def read_array_pickle(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """The arrays by name, and the names of entries that are none with the reason.

    The pickle is a dict of arrays, or of such a dict under `blobs`, `model` or `state_dict`.
    Raises WeightsRejected where it asks for anything else, is cut off or damaged.
    """
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file).load()
        if isinstance(content, Mapping):
            inner = (content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping))
            content = next(inner, content)
        if not isinstance(content, Mapping):
            raise TypeError(f"holds a {_kind(content)}, expected a dict of arrays")
        arrays: dict[str, npt.NDArray[Any]] = {}
        skipped: dict[str, str] = {}
        for name, value in content.items():
            if isinstance(value, _Array):
                arrays[str(name)] = value.build()
            else:
                skipped[str(name)] = f"a {_kind(value)}, not an array"
    except WeightsRejected as error:
        raise WeightsRejected(f"{path}: {error.message}", hint=error.hint) from None
    except (
        *(pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError),
        *(ArithmeticError, MemoryError, RecursionError, OSError),
    ) as error:
        raise WeightsRejected(
            f"{path}: not a sound pickle of arrays: {error or type(error).__name__}",
            hint="get the file again",
        ) from error
    return arrays, skipped


class _DType:
    """Notes of a dtype: its code, then its byte order."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?([fiu][1248]|b1)", code):
            raise ValueError(f"an array of type {code!r}, expected numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"byte order {order!r}")
        self.dtype = self.dtype.newbyteorder("=" if order == "|" else order)


class _Array:
    """Notes of an array: shape, type and bytes, that are compared before an array is made."""

    def __init__(self, *_: object) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype: np.dtype[Any] | None = None
        self.order: Any = "C"
        self.data = b""

    def note(self, shape: object, dtype: object, order: object, data: object) -> None:
        if isinstance(data, str):
            data = data.encode("latin1")  # Python 2 has one kind of text and bytes
        if not isinstance(dtype, _DType) or not isinstance(data, bytes | bytearray):
            raise TypeError(f"an array of {_kind(dtype)} and {_kind(data)}, expected bytes")
        if not isinstance(shape, tuple) or not all(isinstance(n, int) for n in shape):
            raise TypeError(f"an array of shape {shape!r}")
        self.data, self.shape, self.dtype, self.order = bytes(data), shape, dtype.dtype, order

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *_, shape, dtype, is_fortran, data = state
        self.note(shape, dtype, "F" if is_fortran else "C", data)

    def build(self) -> npt.NDArray[Any]:
        if self.dtype is None:
            raise ValueError("an array without content")
        if min(self.shape, default=0) < 0 or len(self.data) != self.dtype.itemsize * math.prod(
            self.shape
        ):
            raise ValueError(f"an array {self.shape} of {self.dtype} has {len(self.data)} bytes")
        array = np.frombuffer(self.data, self.dtype)
        return array.astype(self.dtype.newbyteorder("=")).reshape(self.shape, order=self.order)


class _Scalar(_Array):
    """A number of NumPy's: `scalar(dtype, bytes)`."""

    def __init__(self, dtype: object, data: object) -> None:
        super().__init__()
        self.note((), dtype, "C", data)


class _BufferArray(_Array):
    """An array of pickle protocol 5: `_frombuffer(bytes, dtype, shape, order)`."""

    def __init__(self, data: object, dtype: object, shape: object, order: object) -> None:
        super().__init__()
        self.note(shape, dtype, order, data)


class _Bytes:
    """`_codecs.encode(text, "latin1")`, or `bytes()`: how Python 3 writes bytes for Python 2."""

    def __new__(cls, text: str = "", encoding: str = "latin1") -> bytes:  # type: ignore[misc]
        del encoding
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        raise TypeError("bytes have no state")


class _NdarrayName:
    """The name of the class of an array, which alone builds nothing."""

    def __setstate__(self, state: object) -> None:
        raise TypeError("a class has no state")


_NAMES: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _NdarrayName,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Bytes,
    ("builtins", "bytes"): _Bytes,
    ("__builtin__", "bytes"): _Bytes,
    ("collections", "OrderedDict"): dict,
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _NAMES |= {
        (f"{_core}.multiarray", "_reconstruct"): _Array,
        (f"{_core}.multiarray", "scalar"): _Scalar,
        (f"{_core}.numeric", "_frombuffer"): _BufferArray,
    }


# The unpickler that is written in Python: one number in a file makes that in C fill all memory.
class _ArrayUnpickler(pickle._Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str, /) -> type:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise WeightsRejected(
                f"the file asks for {module}.{name}, and loading that could run code of its author",
                hint="ask its author for safetensors; vlpipe reads nothing but arrays from pickles",
            ) from None


def _kind(value: object) -> str:
    return type(value).__name__.removeprefix("_").lower()
