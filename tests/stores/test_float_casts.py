"""Casting to float16 by torch gives the bits of NumPy; what is not finite is found."""

import sys

import numpy as np
import pytest
import torch

from vlpipe.stores.float_casts import are_within, cast_floats

HALF = np.dtype("<f2")


def _values_around_every_float16():
    """All finite float16, the middles between neighbours, and the float32 beside each of these."""
    steps = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (steps[:-1] + steps[1:]) / 2
    exact = np.concatenate([steps, middles, np.float32([65519.9, 65520, 1e9, 1e-9, 1e-40])])
    beside = [np.nextafter(exact, np.float32(side)) for side in (-1e10, 1e10)]
    values = np.concatenate([exact, *beside])
    return np.concatenate([values, -values])


def test_torch_rounds_as_numpy_does(monkeypatch):
    values = _values_around_every_float16()
    assert "torch" in sys.modules
    by_torch = cast_floats(values, HALF)
    monkeypatch.delitem(sys.modules, "torch")
    by_numpy = cast_floats(values, HALF)
    assert by_torch.dtype == by_numpy.dtype == HALF
    np.testing.assert_array_equal(by_torch.view(np.uint16), by_numpy.view(np.uint16))


def test_any_layout_of_the_input():
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    read_only = values.copy()
    read_only.flags.writeable = False
    for given in (values[::-1], values[:, ::2], values.T, read_only, values.astype(np.float64)):
        cast = cast_floats(given, HALF)
        assert cast.flags.c_contiguous
        np.testing.assert_array_equal(cast, given)
    assert torch.from_numpy(cast_floats(values, HALF)).dtype == torch.float16


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_not_finite(dtype):
    values = np.linspace(-60_000, 60_000, 30).astype(dtype).reshape(5, 6)
    largest = float(np.finfo(dtype).max)
    assert are_within(values, largest)
    assert are_within(np.full((2, 3), -largest, dtype), largest)
    assert are_within(values[:0], largest)
    for bad in (np.nan, np.inf, -np.inf):
        spoiled = values.copy()
        spoiled[4, 2] = bad
        assert not are_within(spoiled, largest)
