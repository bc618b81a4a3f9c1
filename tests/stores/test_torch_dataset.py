"""The torch Dataset: items, and workers that are forked or spawned."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from vlpipe.stores import FeatureDefinition, Features, torch_dataset
from vlpipe.stores.errors import EnvironmentLacks, FeatureMissing, UsageError, VideoMissing


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


def refuse_pages(address, num_bytes):
    raise EnvironmentLacks("no room for the batch", hint="smaller batches")


def test_errors_of_workers_are_raised_as_they_are(store, samples, monkeypatch):
    samples.write(store, ["a", "b", "c"])
    dataset = store.torch_dataset(["rgb"])
    monkeypatch.setattr(torch_dataset, "provide_pages", refuse_pages)
    loader = dataset.loader(2, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(EnvironmentLacks) as caught:
        list(loader)
    assert (caught.value.message, caught.value.hint) == ("no room for the batch", "smaller batches")


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
        if method == "fork":  # where starting two more workers costs little
            batches = list(dataset.loader(7, num_workers=2, multiprocessing_context=method))
            assert sorted(i for batch in batches for i in batch["id"]) == dataset.ids
            for batch in batches:
                own = dataset.batch([dataset.ids.index(i) for i in batch["id"]])
                assert list(batch) == list(own)
                for name in dataset.features:
                    for one, other in (
                        (batch[name], own[name]),
                        (batch["lengths"][name], own["lengths"][name]),
                        (batch["mask"][name], own["mask"][name]),
                    ):
                        assert one.dtype == other.dtype
                        np.testing.assert_array_equal(one.numpy(), other.numpy())

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


def _sizes(store, samples, **sizes):
    for definition in (samples.rgb, samples.audio):
        with store.writer([definition]) as writer:
            for video_id, size in sizes.items():
                writer.add(video_id, {definition.name: samples.rows(definition, video_id, size)})


@pytest.mark.parametrize("pad", ["right", "left"])
def test_padded_batches(store, samples, pad):
    _sizes(store, samples, a=2, b=5, c=0)
    dataset = store.torch_dataset(["rgb", "audio"], ["b", "a", "c"], with_spans=True, pad=pad)
    batch = dataset.batch([1, 0, 2])
    same = dataset.collate([dataset[1], dataset[0], dataset[2]])
    assert batch["id"] == same["id"] == ["a", "b", "c"]
    for name, definition in (("rgb", samples.rgb), ("audio", samples.audio)):
        assert batch[name].shape == (3, 5, *definition.row_shape)
        assert batch["lengths"][name].tolist() == [2, 5, 0]
        for key in ("mask", "spans", "lengths"):
            assert batch[key][name].equal(same[key][name])
        assert batch[name].equal(same[name])
        mask = batch["mask"][name]
        assert mask.sum(dim=1).tolist() == [2, 5, 0]
        assert mask[0, 0 if pad == "right" else -1]
        assert not batch[name][~mask].any()
        np.testing.assert_array_equal(
            batch[name][0][mask[0]], samples.rows(definition, "a", 2).rows
        )
    loader = dataset.loader(2)
    assert [found["id"] for found in loader] == [["b", "a"], ["c"]]
    assert len(loader) == 2
    shuffled = dataset.loader(1, shuffle=True, generator=torch.Generator().manual_seed(1))
    assert sorted(found["id"][0] for found in shuffled) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["id", "lengths", "mask", "spans"])
def test_features_with_names_of_other_things_are_refused(store, samples, name):
    definition = FeatureDefinition(name, "float32", (2,), ("channel",))
    samples.write(store, ["a"], definition)
    with pytest.raises(UsageError, match=f"'{name}'"):
        store.torch_dataset([name])
    full = store[name].name
    assert full in store.torch_dataset([full])[0]


def test_ids_are_any_texts_in_a_row(store, samples):
    samples.write(store, ["v1", "v2", "v3"])
    column = store.videos()["video_id"]
    for ids in (iter(["v3", "v1"]), np.array(["v3", "v1"]), column.take([2, 0])):
        assert store.torch_dataset(["rgb"], ids).ids == ["v3", "v1"]
    with pytest.raises(TypeError, match="features is the text 'rgb'"):
        store.torch_dataset("rgb")
    with pytest.raises(TypeError, match="the id of a video is text, found 0"):
        store["rgb"][0]
    assert store.features["rgb"].shape == store.features["rgb"].row_shape


def test_sampled_rows(store, samples):
    _sizes(store, samples, a=2, b=100)
    even = store.torch_dataset(["rgb"], num_rows=10)
    rows = samples.rows(samples.rgb, "b", 100).rows
    np.testing.assert_array_equal(even[1]["rgb"], rows[5::10])
    assert len(even[0]["rgb"]) == 2
    assert even.batch([0, 1])["rgb"].shape == (2, 10, 6)
    first = store.torch_dataset(["rgb"], num_rows=10, sampling="first")
    np.testing.assert_array_equal(first[1]["rgb"], rows[:10])
    drawn = store.torch_dataset(["rgb"], num_rows=10, sampling="random", with_spans=True)
    torch.manual_seed(1)
    starts = [drawn[1]["spans"]["rgb"][:, 0].tolist() for _ in range(3)]
    assert starts[0] != starts[1]
    assert all([int(start) // 10 for start in each] == list(range(10)) for each in starts)
    torch.manual_seed(1)
    assert drawn[1]["spans"]["rgb"][:, 0].tolist() == starts[0]
    for wrong in ({"num_rows": 0}, {"sampling": "odd"}, {"pad": "top"}, {"join": "audio"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            store.torch_dataset(["rgb"], **wrong)


def test_features_joined_on_time(store, samples):
    fine = Features(np.arange(60, dtype="f2").reshape(10, 6), _spans(0.5, 10))
    coarse = Features(np.arange(12, dtype="f4").reshape(2, 2, 3), _spans(2.5, 2))
    with store.writer([samples.rgb, samples.audio]) as writer:
        writer.add("a", {"rgb": fine, "audio": coarse})
        writer.add("silent", {"rgb": fine, "audio": Features(coarse.rows[:0], coarse.spans[:0])})
    dataset = store.torch_dataset(["rgb", "audio"], ["a"], join="rgb", with_spans=True)
    item = dataset[0]
    np.testing.assert_array_equal(item["audio"], coarse.rows[[0] * 5 + [1] * 5])
    np.testing.assert_array_equal(item["spans"]["audio"], coarse.spans[[0] * 5 + [1] * 5])
    few = store.torch_dataset(["rgb", "audio"], ["a"], join="rgb", num_rows=2)
    np.testing.assert_array_equal(few[0]["rgb"], fine.rows[[2, 7]])
    np.testing.assert_array_equal(few[0]["audio"], coarse.rows)
    with pytest.raises(VideoMissing, match="no rows of audio to join"):
        store.torch_dataset(["rgb", "audio"], join="rgb")[1]


def _spans(seconds, count):
    starts = np.arange(count) * seconds
    return np.stack([starts, starts + seconds], axis=1)
