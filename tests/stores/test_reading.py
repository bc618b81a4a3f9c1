"""Reading in other ways than one array at a time: batches, views, bfloat16, dask, xarray."""

import pickle
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import xarray
from store_places import PLACES

from vlpipe.stores import FeatureDefinition, Features, FeatureStore
from vlpipe.stores.errors import RowsRefused, StoreDamaged, VideoMissing
from vlpipe.stores.row_choice import rows_at_times, sampled_rows
from vlpipe.stores.row_selection import selected_runs

SIZES = {"a": 4, "b": 0, "c": 7, "d": 1, "e": 4}


def _write(store, samples, definition):
    with store.writer([definition]) as writer:
        for video_id, size in SIZES.items():
            writer.add(video_id, {definition.name: samples.rows(definition, video_id, size)})


@pytest.fixture(params=[*PLACES, "checkpoint"])
def filled(request, address_at, samples):
    is_checkpoint = request.param == "checkpoint"
    url = address_at("folder" if is_checkpoint else request.param)
    store = FeatureStore.create(url, durability="process")
    _write(store, samples, samples.audio)
    if is_checkpoint:
        store.checkpoint()
        return FeatureStore.open(url)
    return store


def test_ragged_batches(filled, samples):
    ids = ["c", "a", "b", "e", "a"]
    batch = filled["audio"].read_batch(ids, with_spans=True)
    assert batch.lengths.tolist() == [7, 4, 0, 4, 4]
    assert batch.rows.shape == (19, 2, 3)
    for number, video_id in enumerate(ids):
        expected = samples.rows(samples.audio, video_id, SIZES[video_id])
        np.testing.assert_array_equal(batch[number], expected.rows)
        start = batch.starts[number]
        np.testing.assert_array_equal(
            batch.spans[start : start + len(expected.rows)], expected.spans
        )
    with pytest.raises(ValueError, match="no mask"):
        _ = batch.mask


@pytest.mark.parametrize("pad", ["right", "left"])
def test_padded_batches(filled, samples, pad):
    ids = ["d", "c", "b"]
    batch = filled["audio"].read_batch(ids, pad=pad, length=8, with_spans=True)
    assert batch.rows.shape == (3, 8, 2, 3)
    assert batch.mask.sum(axis=1).tolist() == [1, 7, 0]
    assert batch.mask[0, 0 if pad == "right" else -1]
    assert not batch.rows[~batch.mask].any()
    assert not batch.spans[~batch.mask].any()
    for number, video_id in enumerate(ids):
        expected = samples.rows(samples.audio, video_id, SIZES[video_id])
        np.testing.assert_array_equal(batch[number], expected.rows)
        np.testing.assert_array_equal(batch.spans[number][batch.mask[number]], expected.spans)
    assert filled["audio"].read_batch(ids, pad=pad).rows.shape == (3, 7, 2, 3)
    assert filled["audio"].read_batch([], pad=pad).rows.shape == (0, 0, 2, 3)
    with pytest.raises(ValueError, match="length 3"):
        filled["audio"].read_batch(ids, pad=pad, length=3)
    with pytest.raises(VideoMissing):
        filled["audio"].read_batch(["a", "zzz"])


def test_batches_into_memory_of_the_caller(filled, samples):
    out = np.empty((9, 7, 2, 3), np.float32)
    batch = filled["audio"].read_batch(["a", "c"], pad="right", out=out)
    assert np.shares_memory(batch.rows, out)
    np.testing.assert_array_equal(batch[1], samples.rows(samples.audio, "c", 7).rows)
    for wrong in (np.empty(out.shape), out[:, ::2], out[:1]):
        with pytest.raises(ValueError, match="out has shape"):
            filled["audio"].read_batch(["a", "c"], pad="right", out=wrong)


def _flip(store, offset=4096):
    (path,) = [p for p in Path(store.url).rglob("c.0.0.0") if p.parent.name == "rows"]
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.folder
def test_damage_is_noticed_by_every_way_of_reading(store, samples):
    _write(store, samples, samples.audio)
    _flip(store)
    ways = [
        lambda reader: reader["a"],
        lambda reader: reader.read("a", rows=[3]),
        lambda reader: reader.read("a", copy=False),
        lambda reader: reader.read_batch(["c", "a"]),
        lambda reader: reader.read_batch(["c", "a"], pad="left"),
        lambda reader: reader.dask("a").compute(),
        lambda reader: reader.dask().compute(),
    ]
    for way in ways:
        with pytest.raises(StoreDamaged, match="video 'a'"):
            way(FeatureStore.open(store.url)["audio"])
    reader = store["audio"]
    reader["c"]
    _flip(store, 4096 + 4 * 24)  # the first byte of c, after its first read
    reader["c"]
    with pytest.raises(StoreDamaged, match="video 'c'"):
        reader.read("c", verify="always")


def test_views(filled, samples):
    expected = samples.rows(samples.audio, "c", 7).rows
    for rows in (None, slice(1, 6, 2), [3, 1]):
        view = filled["audio"].read("c", copy=False, rows=rows)
        np.testing.assert_array_equal(view, expected if rows is None else expected[rows])
    view = filled["audio"].read("c", copy=False)
    again, spans = filled["audio"].read("c", copy=False, with_spans=True)
    if isinstance(filled.url, str) and "://" not in filled.url:
        assert np.shares_memory(view, again)
    np.testing.assert_array_equal(again, expected)
    assert spans.shape == (7, 2)
    for rows in (view, again):
        with pytest.raises(ValueError, match="read-only"):
            rows[:] = 0
    assert filled["audio"].read("b", copy=False).shape == (0, 2, 3)
    filled.close()
    np.testing.assert_array_equal(view, expected)


def test_more_files_than_may_be_open(store, samples):
    store._parts._most_open = 2
    ids = [f"v{i}" for i in range(6)]
    for video_id in ids:
        samples.write(store, [video_id], samples.rgb)
    reader = store["rgb"]
    reader._parts._most_open = 2
    for video_id in [*ids, *ids[::-1]]:
        expected = samples.rows(samples.rgb, video_id).rows
        np.testing.assert_array_equal(reader[video_id], expected)
        np.testing.assert_array_equal(reader.read(video_id), expected)
        for _ in range(2):
            view = reader.read(video_id, copy=False)
            np.testing.assert_array_equal(view, expected)
    assert len(reader._parts._files) <= 2
    assert len(reader._parts._maps) <= 2
    np.testing.assert_array_equal(
        reader.read_batch(ids).rows,
        np.concatenate([samples.rows(samples.rgb, i).rows for i in ids]),
    )


@pytest.mark.parametrize(
    ("selection", "runs"),
    [
        (slice(2, 5), [(2, 3, 0)]),
        (slice(0, 6, 2), [(0, 1, 0), (2, 1, 1), (4, 1, 2)]),
        (slice(4, 2), []),
        ([1, 2, 3, 7, 0, 1], [(1, 3, 0), (7, 1, 3), (0, 2, 4)]),
        ([-1, -2], [(9, 1, 0), (8, 1, 1)]),
        ([5, 5], [(5, 1, 0), (5, 1, 1)]),
        ([], []),
    ],
)
def test_runs_of_rows(selection, runs):
    assert selected_runs(selection, 10) == (runs, sum(run[1] for run in runs))


def test_rows_out_of_range():
    for number in (10, -11):
        with pytest.raises(IndexError, match="10 rows"):
            selected_runs([number], 10)


def test_rows_by_mask(filled, samples):
    expected = samples.rows(samples.audio, "c", 7)
    mask = np.array([True, False, True, False, False, True, True])
    for verify in ("first", "never", "always"):
        for copy in (True, False):
            found = filled["audio"].read("c", rows=mask, verify=verify, copy=copy)
            np.testing.assert_array_equal(found, expected.rows[mask])
    rows, spans = filled["audio"].read("c", rows=mask.tolist(), with_spans=True)
    np.testing.assert_array_equal(rows, expected.rows[mask])
    np.testing.assert_array_equal(spans, expected.spans[mask])


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("rows", [2, [0.9, 1.9], [[0, 1]], [True], ["a"]])
def test_rows_that_are_no_numbers(filled, rows, copy):
    with pytest.raises((TypeError, IndexError), match=r"expected a slice|mask has 1"):
        filled["audio"].read("c", rows=rows, copy=copy)


def test_no_rows_of_a_video(filled):
    assert filled["audio"].read("c", rows=[]).shape == (0, 2, 3)


@pytest.mark.parametrize("verify", ["alway", True, None])
def test_unknown_words_are_refused(filled, verify):
    filled["audio"]["c"]
    for read in (filled["audio"].read, filled["audio"].read_spans):
        with pytest.raises(ValueError, match="always"):
            read("c", verify=verify)
    with pytest.raises(ValueError, match="left"):
        filled["audio"].read_batch(["c"], pad="Right")


def test_bfloat16(store):
    definition = FeatureDefinition("x", "bfloat16", (2,), ("channel",))
    values = np.array([[1.0, -2.5], [3.140625, 1e-30]], np.float32)
    spans = np.array([[0, 1], [1, 2]], np.float64)
    rounded = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    with store.writer([definition]) as writer:
        writer.add("a", {"x": Features(values, spans)})
        writer.add("b", {"x": Features(values.astype(ml_dtypes.bfloat16), spans)})
        writer.add("c", {"x": Features(np.arange(4).reshape(2, 2), spans)})
        for bad in (np.nan, np.inf, 3.4e38):
            with pytest.raises(RowsRefused):
                writer.add("d", {"x": Features(np.full((2, 2), bad, np.float64), spans)})
        with pytest.raises(RowsRefused, match="exactly"):
            writer.add("d", {"x": Features(np.full((2, 2), 257), spans)})
    reader = store["x"]
    assert (reader.dtype, reader.info.dtype, reader.info.num_bytes) == (np.float32, "bfloat16", 24)
    for video_id in "ab":
        np.testing.assert_array_equal(reader[video_id], rounded)
        np.testing.assert_array_equal(reader.read(video_id, rows=[1]), rounded[[1]])
        np.testing.assert_array_equal(reader.read(video_id, copy=False), rounded)
    np.testing.assert_array_equal(reader.read_batch(["a", "c"])[1], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(reader.dask().compute()[:2], rounded)
    assert store.verify().is_sound
    store.checkpoint()
    item = store.torch_dataset(["x"])[0]
    batch = store.torch_dataset(["x"]).batch([0, 1])
    assert str(item["x"].dtype) == str(batch["x"].dtype) == "torch.bfloat16"
    np.testing.assert_array_equal(batch["x"][0].float().numpy(), rounded)


def test_every_rounding_to_bfloat16(store):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 20_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 3.3e38)].reshape(-1, 1)
    definition = FeatureDefinition("x", "bfloat16", (1,), ("channel",))
    starts = np.arange(len(values), dtype=np.float64)
    with store.writer([definition]) as writer:
        writer.add("a", {"x": Features(values, np.stack([starts, starts], axis=1))})
    expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(store["x"]["a"], expected)


@pytest.mark.parametrize(
    ("dtype", "row_shape"),
    [("int32", ()), ("float32", (4,)), ("float32", (2, 3, 2)), ("uint8", ())],
)
def test_labels_and_boxes(store, samples, dtype, row_shape):
    names = tuple(f"axis{n}" for n in range(len(row_shape)))
    definition = FeatureDefinition("x", dtype, row_shape, names)
    _write(store, samples, definition)
    for video_id, size in SIZES.items():
        expected = samples.rows(definition, video_id, size).rows
        assert store["x"][video_id].dtype == dtype
        np.testing.assert_array_equal(store["x"][video_id], expected)
        np.testing.assert_array_equal(store["x"].read_batch([video_id], pad="left")[0], expected)
    assert store.verify().is_sound


def test_dask_over_a_feature(filled, samples, monkeypatch):
    from vlpipe.stores import lazy_rows

    monkeypatch.setattr(lazy_rows, "_CHUNK_BYTES", 5 * 24)
    expected = np.concatenate(
        [samples.rows(samples.audio, i, SIZES[i]).rows for i in sorted(SIZES)]
    )
    rows = filled["audio"].dask()
    assert rows.chunks[0] == (4, 5, 3, 4)  # whole videos share a chunk, a long one has several
    assert filled["audio"].lengths().tolist() == [4, 0, 7, 1, 4]
    np.testing.assert_array_equal(rows.compute(scheduler="synchronous"), expected)
    np.testing.assert_array_equal(rows[3:9:2].compute(scheduler="synchronous"), expected[3:9:2])
    np.testing.assert_allclose(rows.mean(axis=0).compute(), expected.mean(axis=0), rtol=1e-6)
    if filled.url.startswith("/"):
        again = pickle.loads(pickle.dumps(rows))
        np.testing.assert_array_equal(again.compute(), expected)


def test_xarray(store, samples):
    _write(store, samples, samples.audio)
    array = store["audio"].xarray("c")
    expected = samples.rows(samples.audio, "c", 7)
    assert isinstance(array, xarray.DataArray)
    assert array.dims == ("row", "object", "channel")
    np.testing.assert_array_equal(array.values, expected.rows)
    np.testing.assert_array_equal(array["end"].values, expected.spans[:, 1])
    assert array.attrs["generation"] == samples.audio.generation


def test_sampled_rows():
    assert sampled_rows(4, 4, "even") is None
    assert sampled_rows(10, 5, "even").tolist() == [1, 3, 5, 7, 9]
    assert sampled_rows(10, 3, "first").tolist() == [0, 1, 2]
    assert sampled_rows(10, 5, "random", np.array([0, 0.99, 0.5, 0, 0.99])).tolist() == [
        0,
        3,
        5,
        6,
        9,
    ]


def test_rows_at_times():
    spans = np.array([[0, 1], [1, 2], [2, 3], [1.5, 1.7]])
    wanted = np.array([[0, 0.2], [1.55, 1.65], [2, 2.2], [10, 11], [1, 2]])
    assert rows_at_times(spans, wanted).tolist() == [0, 3, 2, 2, 1]
    assert rows_at_times(spans[:1], wanted).tolist() == [0] * 5
    with pytest.raises(ValueError, match="no rows"):
        rows_at_times(spans[:0], wanted)
