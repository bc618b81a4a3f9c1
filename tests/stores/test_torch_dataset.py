"""The torch Dataset: items, and workers that are forked or spawned."""

import warnings

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


@pytest.mark.parametrize(
    ("method", "has_checkpoint"), [("fork", True), ("fork", False), ("spawn", True)]
)
@pytest.mark.slow
def test_workers(store, samples, method, has_checkpoint):
    from torch.utils.data import DataLoader

    ids = [f"v{i}" for i in range(40)]
    samples.write(store, ids)
    if has_checkpoint:
        store.checkpoint()
        store = type(store).open(store.url)
    dataset = store.torch_dataset(["rgb", "audio"])
    dataset[0]  # the parent has read before
    loader = DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context=method, shuffle=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads of libraries
        items = list(loader)
    assert sorted(item["id"] for item in items) == sorted(ids)
    for item in items:
        expected = samples.rows(samples.rgb, item["id"]).rows
        np.testing.assert_array_equal(item["rgb"].numpy(), expected)
