"""Pickles of plain values (numbers, texts, lists, dicts), read without running what is in them."""

import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vlpipe.stores.errors import AnnotationError

MAX_PICKLE_BYTES = 1 << 30

_ITEM_BYTES = 16  # the widest number of NumPy


def read_plain_pickle(path: Path) -> Any:  # noqa: ANN401 - whatever plain value
    """The value in the file, also of Python 2; an AnnotationError if it asks for anything else."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            unpickler = _PlainUnpickler(file, path)
            if size <= MAX_PICKLE_BYTES:
                return unpickler.load()
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read: {error.strerror}") from error
    except AnnotationError:
        raise
    except Exception as error:  # of a damaged pickle anything can come
        raise AnnotationError(
            f"{path} is not a pickle of plain values: {type(error).__name__}: {error}"
        ) from error
    raise AnnotationError(f"{path} has {size:,} bytes; at most {MAX_PICKLE_BYTES:,} are read")


class _Kind:
    """A NumPy dtype as a pickle describes it: its name, and then its byte order."""

    def __init__(self, name: str, *_: object) -> None:
        self.dtype = np.dtype(name)
        if self.dtype.kind not in "biuf" or self.dtype.itemsize > _ITEM_BYTES:
            raise ValueError(f"numbers of the kind {name!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


def _number(kind: _Kind, data: bytes | str) -> float | int:
    raw = data.encode("latin1") if isinstance(data, str) else data
    value: float | int = np.frombuffer(raw, kind.dtype, count=1)[0].item()
    return value


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    """How older protocols write bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes written as {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): lambda *_: defaultdict(None),
    ("_codecs", "encode"): _bytes,
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
}
for _module in ("builtins", "__builtin__"):
    # What a defaultdict makes of keys that it lacks; none is ever asked for.
    _KNOWN |= {(_module, name): None for name in ("list", "dict", "set")}


# The unpickler that is written in Python: one number in a file makes that in C fill all memory.
class _PlainUnpickler(pickle._Unpickler):
    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str, /) -> Any:  # noqa: ANN401
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise AnnotationError(
                f"{self._path} asks for {module}.{name}, and loading that could run code of its "
                "author; expected numbers, texts, lists and dicts",
                hint="write it as JSON under the same name with .json",
            ) from None
