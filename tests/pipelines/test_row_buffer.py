"""Rows of long videos: the same values, memory bounded by a constant."""

import numpy as np
import pytest

from vlpipe.pipelines.extraction import row_buffer
from vlpipe.pipelines.extraction.row_buffer import RowBuffer


@pytest.mark.parametrize("spill_bytes", [1, 1000, 10**9])
def test_rows_come_back_as_they_went_in(monkeypatch, spill_bytes):
    monkeypatch.setattr(row_buffer, "SPILL_BYTES", spill_bytes)
    random = np.random.default_rng(0)
    parts = [random.normal(size=(n, 3, 2)).astype(np.float32) for n in (4, 0, 1, 90)]
    buffer = RowBuffer((3, 2), "float16")
    for part in parts:
        buffer.append(part)
    rows = buffer.rows()
    assert np.array_equal(rows, np.concatenate(parts).astype(np.float16))
    assert len(buffer) == 95
    assert buffer.is_finite
    del rows
    buffer.close()


def test_no_rows_have_the_shape_of_the_feature():
    assert RowBuffer((7, 2), "float32").rows().shape == (0, 7, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
def test_what_the_dtype_cannot_hold_is_noticed(value):
    buffer = RowBuffer((1,), "float16")
    buffer.append(np.array([[1.0], [value]], np.float32))
    assert not buffer.is_finite
