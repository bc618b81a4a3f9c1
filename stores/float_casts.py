"""Casting and checking floats, several times as fast as NumPy where it has no vector code."""

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


def are_finite(values: npt.NDArray[Any]) -> bool:
    """Whether no value is infinite or NaN."""
    if values.dtype == np.float16:
        exponents = values.view(np.uint16) & _EXPONENT_OF_FLOAT16
        return bool(exponents.max(initial=0) < _EXPONENT_OF_FLOAT16)
    return bool(np.isfinite(values).all())
