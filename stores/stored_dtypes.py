"""The dtypes of features: how they lie in files, and as what they are read.

NumPy, HDF5 and Zarr have no bfloat16. Its 16 bits are stored as uint16, and read as float32, which
holds each of its values exactly; torch datasets give torch.bfloat16.
"""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

BFLOAT16 = "bfloat16"

FEATURE_DTYPES = (
    *(f"float{bits}" for bits in (16, 32, 64)),
    BFLOAT16,
    *(f"uint{bits}" for bits in (8, 16, 32, 64)),
    *(f"int{bits}" for bits in (8, 16, 32, 64)),
)


@cache
def stored_dtype(name: str) -> np.dtype[Any]:
    """The little-endian dtype of the bytes at rest."""
    return np.dtype("uint16" if name == BFLOAT16 else name).newbyteorder("<")


def read_dtype(name: str) -> np.dtype[Any]:
    """The dtype of the arrays that reading gives."""
    return np.dtype("float32" if name == BFLOAT16 else name)


def widened(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The float32 values of bfloat16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrowed(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bfloat16 bits of finite float32 values, rounded to the nearest, ties to even.

    A value that rounds beyond the largest bfloat16 becomes infinite.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
