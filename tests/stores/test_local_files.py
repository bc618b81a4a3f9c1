"""Streams of a folder in pieces, and what goes wrong with them; new arrays."""

import errno

import numpy as np
import pytest

from vlpipe.stores import FeatureDefinition, Features, FeatureStore
from vlpipe.stores.aligned_arrays import LARGE_BYTES, empty_aligned
from vlpipe.stores.errors import StoreUnwritable
from vlpipe.stores.local_storage import LocalStorage

MIB = 2**20


@pytest.mark.parametrize("seed", range(4))
def test_what_is_streamed_is_in_the_file(tmp_path, seed):
    rng = np.random.default_rng(seed)
    storage = LocalStorage(tmp_path)
    stream = storage.stream("file", 100)
    expected = [b"h" * 100]
    memory = np.empty(3 * MIB, np.uint8)  # used again for each piece, as callers may
    for num_bytes in [0, 1, MIB - 101, 1, 2 * MIB, 3 * MIB - 5, *rng.integers(0, MIB, 12).tolist()]:
        piece = memory[:num_bytes]
        piece[:] = rng.integers(0, 256)
        expected.append(piece.tobytes())
        stream.write(piece)
    stream.close(b"h" * 100)
    assert (tmp_path / "file").read_bytes() == b"".join(expected)
    with pytest.raises(ValueError, match="closed"):
        stream.write(b"more")


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_disk_that_is_full_while_a_part_is_written(tmp_path, watch_os, failing):
    """Whichever piece fails: nothing is committed, and the file is named."""
    definition = FeatureDefinition("x", "float32", (1024,), ("channel",))
    store = FeatureStore.create(tmp_path / "store", durability="process")
    rows = Features(np.ones((64, 1024), np.float32), np.stack([np.arange(64.0)] * 2, axis=1))
    large = []

    def fail(count, name, arguments):
        if name == "write" and len(arguments[1]) > 1000:
            large.append(name)
            if len(large) == failing:
                raise OSError(errno.ENOSPC, "No space left on device")

    watch_os(fail)
    with pytest.raises(StoreUnwritable, match=r"rows/c\.0\.0") as caught:
        _write(store, definition, rows, 9)
    assert "make room" in str(caught.value)
    watch_os()
    assert FeatureStore.open(store.url).version == 0
    assert not list((tmp_path / "store").rglob("c.0.0"))
    _write(store, definition, rows, 1)
    np.testing.assert_array_equal(FeatureStore.open(store.url)["x"]["v0"], rows.rows)


def _write(store, definition, rows, number):
    with store.writer([definition]) as writer:
        for n in range(number):
            writer.add(f"v{n}", {"x": rows})


@pytest.mark.parametrize("num_rows", [1, 31, 32, 33, 1000])
def test_large_arrays_begin_at_multiples_of_64_bytes(num_rows):
    array = empty_aligned((num_rows, 1024), np.dtype("<f4"))
    assert array.shape == (num_rows, 1024)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    if array.nbytes >= LARGE_BYTES:
        assert array.__array_interface__["data"][0] % 64 == 0
