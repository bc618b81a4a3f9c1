"""Stores that released versions wrote still open. They are kept as they are, never made again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vlpipe.stores import FeatureStore

OLD_STORES = Path(__file__).parents[1] / "old_stores"


@pytest.mark.parametrize("version", sorted(path.name for path in OLD_STORES.iterdir()))
def test_a_store_of_a_released_version(version, tmp_path):
    shutil.copytree(OLD_STORES / version / "store", tmp_path / "store")
    expected = json.loads((OLD_STORES / version / "expected.json").read_text(encoding="utf-8"))
    store = FeatureStore.open(tmp_path / "store")
    assert store.verify().problems == []
    for name, videos in expected["rows"].items():
        assert store[name].ids() == sorted(videos)
        for video_id, rows in videos.items():
            np.testing.assert_array_equal(store[name][video_id], np.array(rows))
    for name, digest in expected["digests"].items():
        assert store.digest(name) == digest
    assert store.failed().column("video_id").to_pylist() == expected["failed"]
    store.delete(["red"])  # and it can be written
    assert "red" not in store["level"]


def test_versions_of_an_old_store(tmp_path):
    shutil.copytree(OLD_STORES / "0.1" / "store", tmp_path / "store")
    for version in range(5):
        FeatureStore.open(tmp_path / "store", version)
