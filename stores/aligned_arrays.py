"""New arrays to read files into."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_LINE_BYTES = 64
# From here on the allocator of the C library maps each array by itself, and begins it 16 bytes
# behind the start of a page.
LARGE_BYTES = 128 * 1024


def empty_aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An array of undefined values, which begins at a multiple of 64 bytes if it is large.

    Rows mostly lie at multiples of 64 bytes in their files. Where the target lies 1 to 31 bytes
    further within its page than the source, copying takes four times as long on some processors
    (each load waits for a store that only seems to overlap it).
    """
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes < LARGE_BYTES:
        return np.empty(shape, dtype)
    memory = np.empty(num_bytes + _LINE_BYTES, np.uint8)
    address: int = memory.__array_interface__["data"][0]
    return np.ndarray(shape, dtype, memory, -address % _LINE_BYTES)
