"""Casting and checking floats, several times as fast as what NumPy offers first."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

_EXPONENT_OF_FLOAT16 = 0x7C00


def cast_floats(values: npt.NDArray[Any], target: np.dtype[Any]) -> npt.NDArray[Any]:
    """C-contiguous values of a float dtype, rounded to the nearest, ties to even; what is too
    large for it becomes infinite."""
    if target == np.float16 and values.dtype == np.float32 and values.flags.writeable:
        torch = sys.modules.get("torch")
        if torch is not None:
            # The same bits fifty times as fast: NumPy casts float16 one by one. Whoever has rows
            # of a network has loaded torch; for others it is not worth the seconds that it takes.
            half = torch.from_numpy(np.ascontiguousarray(values)).to(torch.float16)
            cast: npt.NDArray[Any] = half.numpy()
            return cast
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, target)


def are_within(values: npt.NDArray[Any], limit: float) -> bool:
    """Whether no value is NaN or larger in magnitude than `limit`; of float16, the largest one."""
    if values.size == 0:
        return True
    if values.dtype == np.float16:
        exponents = values.view(np.uint16) & _EXPONENT_OF_FLOAT16
        return bool(exponents.max() < _EXPONENT_OF_FLOAT16)
    # NaN is the least and the greatest wherever it occurs, and compares with nothing.
    low, high = np.minimum.reduce(values, axis=None), np.maximum.reduce(values, axis=None)
    return bool(-limit <= low and high <= limit)
