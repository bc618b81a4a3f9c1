"""One HDF5 file in place of a store: the same reading calls, the same content, damage noticed."""

import contextlib
import json
import multiprocessing
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from exchange_samples import IDS, fill, make_store, rows_of

from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import (
    FeatureMissing,
    SnapshotGone,
    StoreDamaged,
    StoreNotFound,
    StoreTooNew,
    UsageError,
    VideoMissing,
)
from vlpipe.stores.exchange import Hdf5Store, export_features, import_features

NAMES = ["i3d_rgb", "objects_spatial", "vggish"]


@pytest.fixture
def made(tmp_path):
    empty = {("vggish", 1): 0, ("vggish", 2): None}
    store = make_store(
        tmp_path / "made", NAMES, num_rows=lambda name, n: empty.get((name, n), n + 2)
    )
    with store.writer([store["vggish"].info.definition]) as writer:
        writer.fail("tumblr_z", None, "decode", "no sound")
    return store


@pytest.fixture
def path(made, tmp_path):
    report = export_features(made, "vlpipe-hdf5", tmp_path / "out")
    assert report.files == ("features.hdf5",)
    return tmp_path / "out/features.hdf5"


def test_it_reads_like_the_store(made, path):
    with Hdf5Store.open(path) as store:
        assert list(store.features) == list(made.features)
        assert store.version == made.version
        for name in NAMES:
            assert store.digest(name) == made.digest(name)
            assert store[name].ids() == made[name].ids()
            assert store[name].info == made[name].info
            assert (store[name].name, len(store[name])) == (made[name].name, len(made[name]))
            for video_id in made[name]:
                for found, expected in zip(
                    store[name].read(video_id, with_spans=True),
                    made[name].read(video_id, with_spans=True),
                    strict=True,
                ):
                    np.testing.assert_array_equal(found, expected)
                    assert found.dtype == expected.dtype
        rows, spans = store["i3d_rgb"].read("tumblr_c", rows=[3, 0], with_spans=True)
        np.testing.assert_array_equal(rows, rows_of("i3d_rgb", "tumblr_c", 4)[[3, 0]])
        assert spans.shape == (2, 2)
        np.testing.assert_array_equal(
            store["i3d_rgb"].dask("tumblr_b").compute(), made["i3d_rgb"]["tumblr_b"]
        )
        assert store.failed().to_pylist() == made.failed().to_pylist()
        assert [row["video_id"] for row in store.failed().to_pylist()] == ["tumblr_z"]
        assert store.videos().drop(["part", "version"]) == made.videos().drop(["part", "version"])
        assert {row["video_id"] for row in store.videos().to_pylist()} == set(IDS)
        assert "vggish" in store
        assert "nothing" not in store
        assert "tumblr_c" not in store["vggish"]
        with pytest.raises(VideoMissing, match="tumblr_c"):
            store["vggish"]["tumblr_c"]
        with pytest.raises(FeatureMissing, match=r"nothing(.|\n)*i3d_rgb"):
            store["nothing"]


def test_all_ways_of_reading(made, path):
    name = "i3d_rgb"
    with Hdf5Store.open(path) as store:
        found, expected = store[name], made[name]
        ids = expected.ids()
        assert found.lengths().tolist() == expected.lengths().tolist()
        assert found.num_rows(ids[0]) == expected.num_rows(ids[0])
        np.testing.assert_array_equal(found.read_spans(ids[1]), expected.read_spans(ids[1]))
        for _ in range(2):  # with and without comparing
            view = found.read(ids[1], copy=False)
            np.testing.assert_array_equal(view, expected[ids[1]])
            assert not view.flags.writeable
        for pad in (None, "left", "right"):
            batch = found.read_batch(ids[::-1], pad=pad, with_spans=True)
            wanted = expected.read_batch(ids[::-1], pad=pad, with_spans=True)
            np.testing.assert_array_equal(batch.rows, wanted.rows)
            np.testing.assert_array_equal(batch.spans, wanted.spans)
        np.testing.assert_array_equal(found.dask().compute(), expected.dask().compute())
        xarray = found.xarray(ids[0])
        assert xarray.equals(expected.xarray(ids[0]))
        assert store.digest(name, ids[:2]) == made.digest(name, ids[:2])
        statuses = store.status(found.definition, [*ids, "tumblr_new"])
        assert [status.standing for status in statuses.values()] == ["stored"] * len(ids) + [
            "absent"
        ]
        vggish = store.status(store["vggish"].definition, ["tumblr_z"])["tumblr_z"]
        assert (vggish.standing, vggish.message) == ("failed", "no sound")
        with pytest.raises(VideoMissing, match="no sound"):
            store["vggish"]["tumblr_z"]
        assert store.log() == []
        assert store.tags() == []
        assert store.refresh() == made.version


# In a process of its own: one that has threads, as that of the tests, is not to be forked.
LOADER = """
import sys
import torch
from vlpipe.stores import FeatureStore

address, target = sys.argv[1:]
with FeatureStore.open(address) as store:
    dataset = store.torch_dataset(["i3d_rgb", "objects_spatial"], with_spans=True, num_rows=3)
    torch.save(list(dataset.loader(2, num_workers=2)), target)
"""


def test_batches_for_pytorch_by_workers(made, path, tmp_path):
    (tmp_path / "loader.py").write_text(LOADER)
    batches = []
    for address in (path, made.url):
        words = (tmp_path / "loader.py", address, tmp_path / "batches.pt")
        subprocess.run([sys.executable, *map(str, words)], check=True)
        batches.append(torch.load(tmp_path / "batches.pt", weights_only=True))
    for found, expected in zip(*batches, strict=True):
        assert found["id"] == expected["id"]
        for name in ("i3d_rgb", "objects_spatial"):
            assert found[name].equal(expected[name])
            assert found["spans"][name].equal(expected["spans"][name])


def test_a_store_is_opened_by_its_path_whatever_it_is(made, path):
    with FeatureStore.open(path, made.version) as store:
        assert isinstance(store, Hdf5Store)
        assert store.url == str(path)
    with FeatureStore.open_or_create(f"file://{path}") as store:
        assert isinstance(store, Hdf5Store)
    for asked in ({"version": made.version + 1}, {"version": "paper"}, {"at": "2026-05-04"}):
        with pytest.raises(UsageError, match=f"holds version {made.version} .* and no other"):
            FeatureStore.open(path, **asked)


def test_nothing_changes_it(path):
    before = path.read_bytes()
    with Hdf5Store.open(path) as store:
        (generation,) = (info.generation for info in store.generations("i3d_rgb"))
        store.pin("training")  # of what is kept anyway
        for change in (
            lambda: store.writer([store["i3d_rgb"].definition]),
            lambda: store.delete(["tumblr_a"]),
            lambda: store.restore(["tumblr_a"]),
            lambda: store.drop("i3d_rgb", generation),
            lambda: store.activate("i3d_rgb", generation),
            lambda: store.tag("paper"),
            lambda: store.checkpoint(),
            lambda: store.compact(),
            lambda: store.gc(dry_run=False),
            lambda: store.verify(repair=True),
        ):
            with pytest.raises(UsageError, match="never changed") as caught:
                change()
            assert "store import" in caught.value.hint
    assert path.read_bytes() == before


def test_another_file_in_its_place_is_never_read_as_this_one(path):
    with Hdf5Store.open(path) as store:
        other = path.with_name("other.hdf5")
        other.write_bytes(path.read_bytes())
        other.replace(path)
        with pytest.raises(SnapshotGone, match="replaced"):
            store["i3d_rgb"]["tumblr_a"]
        path.unlink()
        with pytest.raises(SnapshotGone, match="not there any more"):
            store["i3d_rgb"]["tumblr_a"]


def test_verify_names_what_is_damaged(made, path):
    with Hdf5Store.open(path) as store:
        told = []
        report = store.verify(progress=lambda done, total: told.append((done, total)))
        assert report.is_sound
        assert report.num_videos == sum(len(made[name]) for name in NAMES)
        assert told[-1] == (len(NAMES), len(NAMES))
        part, start, *_ = store["i3d_rgb"].locate("tumblr_b")
    with path.open("r+b") as file:
        file.seek(part.base + start * part.rows_shape.row_bytes)
        file.write(b"damage")
    with Hdf5Store.open(path) as store:
        assert store.verify(deep=False).is_sound
        (problem,) = store.verify().problems
        assert (problem.area, problem.feature, problem.video_id) == ("video", "i3d_rgb", "tumblr_b")
        with pytest.raises(StoreDamaged, match="checksum"):
            store["i3d_rgb"]["tumblr_b"]
        store["i3d_rgb"]["tumblr_a"]


def test_a_quarantine_of_the_first_files(path):
    with h5py.File(path, "a") as file:
        del file["failed"]
        names = ("video_id", "feature", "generation", "kind", "message")
        generation = next(iter(file["vggish"]))
        values = ("tumblr_z", "vggish", generation, "decode", "no sound")
        file["failed"] = json.dumps([dict(zip(names, values, strict=True))])
    with Hdf5Store.open(path) as store:
        (failure,) = store.failed().to_pylist()
        assert (failure["message"], failure["attempt"], failure["retry"]) == ("no sound", 1, False)
        assert failure["version"] == store.version


def test_everything_comes_back_from_it(made, path, tmp_path):
    back = FeatureStore.create(tmp_path / "back", durability="process")
    report = import_features(back, "vlpipe-hdf5", path)
    assert not report.failed
    for name in NAMES:
        assert back.digest(name) == made.digest(name)
        assert back[name].info.generation == made[name].info.generation
        assert back[name].info.provenance == made[name].info.provenance
    facts = ("video_id", "feature", "rows", "note", "seconds", "source", "source_size")
    facts += ("source_mtime_ns",)

    def listed(store):
        return [{f: row[f] for f in facts} for row in store.videos().to_pylist()]

    assert listed(back) == listed(made)
    assert import_features(back, "vlpipe-hdf5", path).added == 0


def test_one_generation_of_several(made, tmp_path):
    info = made["i3d_rgb"].info
    other = fill(FeatureStore.create(tmp_path / "x", durability="process"), ["vggish"])
    with pytest.raises(UsageError):
        export_features(other, "vlpipe-hdf5", tmp_path / "a", features={"a": "i3d_rgb"})
    name = f"i3d_rgb@{info.generation}"
    export_features(made, "vlpipe-hdf5", tmp_path / "a", features={name: name})
    with Hdf5Store.open(tmp_path / "a/features.hdf5") as store:
        assert store.feature_names == ["i3d_rgb"]
        assert store["i3d_rgb"].ids() == sorted(IDS)
        assert store.generations("i3d_rgb")[0].is_active


def test_h5py_alone_reads_it(made, path):
    generation = made["i3d_rgb"].info.generation
    with h5py.File(path) as file:
        group = file["i3d_rgb"][generation]
        ids = [name.decode() for name in group["video_id"]]
        n = ids.index("tumblr_b")
        start, size = group["row_start"][n], group["row_size"][n]
        np.testing.assert_array_equal(
            group["rows"][start : start + size], rows_of("i3d_rgb", "tumblr_b", 3)
        )
        assert group["rows"].id.get_offset() is not None  # contiguous: one range a video
        assert "extractor" in group.attrs["definition"]


def test_handles_pickle_and_work_in_other_processes(path):
    with Hdf5Store.open(path) as store:
        before = store["i3d_rgb"]["tumblr_a"]
        reader = pickle.loads(pickle.dumps(store["i3d_rgb"]))
        np.testing.assert_array_equal(reader["tumblr_a"], before)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            (found,) = pool.map_async(store["i3d_rgb"].read, ["tumblr_a"]).get(60)
        np.testing.assert_array_equal(found, before)


def read_all(path, expected):
    with Hdf5Store.open(path) as store:
        for (name, video_id), (rows, spans) in expected.items():
            found = store[name].read(video_id, with_spans=True)
            np.testing.assert_array_equal(found[0], rows)
            np.testing.assert_array_equal(found[1], spans)


def test_damage_is_noticed_and_never_given_as_data(made, path):
    whole = path.read_bytes()
    expected = {
        (name, video_id): made[name].read(video_id, with_spans=True)
        for name in NAMES
        for video_id in made[name]
    }
    payload = []
    with Hdf5Store.open(path) as store:
        for name in NAMES:
            info = store[name].info
            part, *_ = store[name].locate(store[name].ids()[0])
            payload += range(part.base, part.base + info.num_bytes)
            payload += range(part.spans_base, part.spans_base + 16 * info.num_rows)
    rng = np.random.default_rng(0)
    for at in (*rng.choice(payload, 25), *rng.integers(0, len(whole), 25)):
        data = bytearray(whole)
        data[at] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(data)
        if at in payload:
            with pytest.raises(StoreDamaged, match="checksum"):
                read_all(path, expected)
        else:  # it may lie in unused space, but other rows never come back
            with contextlib.suppress(StoreDamaged, UsageError, VideoMissing):
                read_all(path, expected)


def test_other_and_later_files_are_refused(path, tmp_path):
    with pytest.raises(StoreNotFound):
        Hdf5Store.open(tmp_path / "nothing.hdf5")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["a"] = [1]
    with pytest.raises(UsageError, match="not a file of this layout"):
        Hdf5Store.open(tmp_path / "other.hdf5")
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(StoreTooNew, match="format 2"):
        Hdf5Store.open(path)


def test_truncated_files_are_damaged(path):
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises((StoreDamaged, UsageError)):
        Hdf5Store.open(path)
