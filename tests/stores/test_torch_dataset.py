"""The torch Dataset: items, and workers that are forked or spawned."""

import subprocess
import sys

import numpy as np
import pytest

from vlpipe.stores.errors import FeatureMissing, VideoMissing


def test_items(store, samples):
    samples.write(store, ["b", "a"])
    samples.write(store, ["only rgb"], samples.rgb)
    dataset = store.torch_dataset(["rgb", "audio"], with_spans=True)
    assert dataset.ids == ["a", "b"]
    item = dataset[1]
    expected = samples.rows(samples.audio, "b")
    assert item["id"] == "b"
    np.testing.assert_array_equal(item["audio"].numpy(), expected.rows)
    np.testing.assert_array_equal(item["spans"]["audio"].numpy(), expected.spans)
    assert store.torch_dataset(["rgb"], ["only rgb", "a"]).ids == ["only rgb", "a"]
    with pytest.raises(VideoMissing, match="'only rgb' has no rows of audio"):
        store.torch_dataset(["rgb", "audio"], ["a", "only rgb"])
    with pytest.raises(FeatureMissing):
        store.torch_dataset(["nonsense"])
    with pytest.raises(ValueError, match="at least one feature"):
        store.torch_dataset([])


# In a process of its own: what other tests have loaded into this one does not survive a fork.
LOADER = """
import sys, warnings
import numpy as np
from torch.utils.data import DataLoader
from vlpipe.stores import FeatureStore

def main():
    url, method, target = sys.argv[1:]
    with FeatureStore.open(url) as store:
        dataset = store.torch_dataset(["rgb", "audio"])
        dataset[0]  # the parent has read before
        loader = DataLoader(
            dataset, batch_size=None, num_workers=2, multiprocessing_context=method, shuffle=True
        )
        np.savez(target, **{item["id"]: item["rgb"].numpy() for item in loader})

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("method", "has_checkpoint"), [("fork", True), ("fork", False), ("spawn", True)]
)
@pytest.mark.slow
def test_workers(store, samples, method, has_checkpoint, tmp_path):
    ids = [f"v{i}" for i in range(40)]
    samples.write(store, ids)
    if has_checkpoint:
        store.checkpoint()
    script, target = tmp_path / "loader.py", tmp_path / "loaded.npz"
    script.write_text(LOADER)
    subprocess.run([sys.executable, script, store.url, method, target], check=True)
    with np.load(target) as loaded:
        assert sorted(loaded.files) == sorted(ids)
        for video_id in ids:
            expected = samples.rows(samples.rgb, video_id).rows
            np.testing.assert_array_equal(loaded[video_id], expected)
