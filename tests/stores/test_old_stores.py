"""Stores that older versions wrote still open. They are kept as they are, never made again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vlpipe.stores import FeatureStore

FOLDERS = [Path(__file__).parents[1] / "old_stores", Path(__file__).parent / "fixtures"]
OLD_STORES = {path.name: path for folder in FOLDERS for path in sorted(folder.iterdir())}


def assert_content(store, expected):
    report = store.verify()
    assert (report.problems, report.past_damage) == ([], [])
    for feature, videos in expected["rows"].items():
        assert store[feature].ids() == sorted(videos)
        for video_id, rows in videos.items():
            found = store[feature][video_id]
            np.testing.assert_array_equal(found, np.array(rows).reshape(found.shape))
    for feature, digest in expected["digests"].items():
        assert store.digest(feature) == digest
    assert store.failed().column("video_id").to_pylist() == expected["failed"]


@pytest.mark.parametrize("name", OLD_STORES)
def test_an_old_store(name, tmp_path):
    shutil.copytree(OLD_STORES[name] / "store", tmp_path / "store")
    expected = json.loads((OLD_STORES[name] / "expected.json").read_text(encoding="utf-8"))
    store = FeatureStore.open(tmp_path / "store")
    assert_content(store, expected)
    for version in range(store.log()[0].version - 1, store.version + 1):
        FeatureStore.open(tmp_path / "store", version)
    store.delete(["red"])  # and it can be written
    assert "red" not in store[min(expected["rows"])]
    store.compact()
    assert store.verify().is_sound


def test_an_old_store_in_one_hdf5_file():
    folder = OLD_STORES["0.1"]
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    with FeatureStore.open(folder / "one-file.hdf5") as store:
        assert_content(store, expected)


def test_what_a_compacted_store_tells():
    """Rewritten, repaired and collected: operations of which the first stores had none."""
    store = FeatureStore.open(OLD_STORES["0.1-compacted"] / "store")
    done = " ".join(" ".join(entry.operations) for entry in store.log())
    assert "lose " in done
    assert "rewrite " in done
    assert store.features["small"].dtype == "bfloat16"
    assert FeatureStore.open(store.url, "baseline").version == store.version
