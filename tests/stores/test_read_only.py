"""A store that this process may only read, and what is said when it is written to."""

import errno
import os

import pytest

from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import StoreUnwritable


@pytest.mark.folder
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_read_only_store(store, samples, watch_os, number):
    samples.write(store, ["a", "b"])
    store.checkpoint()

    def refuse(count, name, arguments):
        raise OSError(number, os.strerror(number))

    watched = watch_os(refuse)
    reader = FeatureStore.open(store.url)
    samples.check(reader, ["a", "b"])
    assert reader.verify().is_sound
    assert reader["rgb"].read_batch(["a", "b"], pad="right").rows.shape == (2, 4, 6)
    assert reader.status(samples.rgb, ["a"])["a"].standing == "stored"
    assert watched.count == 0  # reading asked for no write at all
    for work in (
        lambda: samples.write(reader, ["c"]),
        lambda: reader.delete(["a"]),
        lambda: reader.tag("baseline"),
        lambda: reader.gc(dry_run=False),
    ):
        with pytest.raises(StoreUnwritable, match="cannot be written") as caught:
            work()
        assert "read-only" in caught.value.hint
    assert reader.gc().is_dry_run  # what could be removed may be asked without writing
    samples.check(reader, ["a", "b"])
