"""What people already have comes into a store: every layout, damage, resumption, provenance."""

import io
import json
import warnings
from fractions import Fraction

import h5py
import numpy as np
import pytest
from exchange_samples import IDS, KEYS, imported, make_store, npy_bytes, rows_of, spans_of

from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange import (
    KeyTable,
    RowTimes,
    export_features,
    find_layout,
    import_features,
    parse_rate,
    row_times,
)
from vlpipe.stores.foreign_arrays import ForeignArrayError, read_npy

RATE = RowTimes({"*": Fraction(2)})
NPY = {"rgb": "{key}_rgb.npy"}


@pytest.fixture
def store(tmp_path):
    return FeatureStore.create(tmp_path / "imported", durability="process")


def npy_folder(folder, ids=IDS, num_rows=3, width=4):
    folder.mkdir(exist_ok=True)
    arrays = {}
    for n, video_id in enumerate(ids):
        arrays[video_id] = np.random.default_rng(n).random((num_rows, width), np.float32)
        np.save(folder / f"{video_id}_rgb.npy", arrays[video_id])
    return arrays


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("masn", ["resnet152", "i3d_resnet50", "objects", "objects_spatial"]),
        ("bmt", ["i3d_rgb", "i3d_flow", "vggish"]),
        ("mdvc", ["i3d_rgb", "i3d_flow", "vggish"]),
        ("tgif-qa", ["resnet152"]),
        ("flat-boxes", ["objects", "objects_spatial"]),
    ],
)
def test_what_was_exported_comes_back(layout, names, store, tmp_path):
    made = make_store(tmp_path / "made", names)
    export_features(made, layout, tmp_path / "files", keys=KeyTable(KEYS))
    report = import_features(
        store, layout, tmp_path / "files", keys=KeyTable(KEYS), times=RATE, name="theirs"
    )
    assert not report.failed
    assert not report.unnamed
    absent = {
        "masn": {"region_motion"},
        "tgif-qa": {"resnet_res5c", "resof_pool5", "resof_res5c", "c3d_fc6", "c3d_conv5b"},
        "flat-boxes": {"image_bb"},
    }
    assert {text.partition(" ")[0] for text in report.absent} == absent.get(layout, set())
    assert set(names) <= set(store.features)
    for name in names:
        assert store[name].ids() == sorted(IDS)
        for n, video_id in enumerate(IDS):
            rows, spans = store[name].read(video_id, with_spans=True)
            np.testing.assert_array_equal(rows, rows_of(name, video_id, n + 2))
            np.testing.assert_array_equal(spans, spans_of(n + 2))
        facts = imported(store, name)
        assert (facts["layout"], facts["name"]) == (layout, "theirs")
        assert facts["keys"] == KeyTable(KEYS).digest
        assert facts["times"] == {"rows_per_s": "2"}
    again = import_features(
        store, layout, tmp_path / "files", keys=KeyTable(KEYS), times=RATE, name="theirs"
    )
    assert (again.added, again.kept) == (0, report.added)


def test_the_layout_knows_the_times_of_its_rows(store, tmp_path):
    made = make_store(tmp_path / "made", ["i3d_rgb", "vggish"])
    export_features(made, "bmt", tmp_path / "files")
    import_features(store, "bmt", tmp_path / "files")
    _, spans = store["i3d_rgb"].read("tumblr_c", with_spans=True)
    np.testing.assert_array_equal(spans[2], [2 * 2.56, 3 * 2.56])
    _, spans = store["vggish"].read("tumblr_a", with_spans=True)
    np.testing.assert_allclose(spans[1], [0.96, 1.92])


def test_without_times_nothing_is_imported(store, tmp_path):
    npy_folder(tmp_path / "npy")
    with pytest.raises(UsageError, match=r"which seconds the rows of 'rgb'(.|\n)*--rate"):
        import_features(store, "npy", tmp_path / "npy", places=NPY)
    assert store.version == 0 or not store.features
    assert parse_rate("25/64") == Fraction(25, 64)
    for text in ("0", "-1", "fast", "1/0"):
        with pytest.raises(UsageError, match="no rate"):
            parse_rate(text)


def test_spans_can_be_given(store, tmp_path):
    npy_folder(tmp_path / "npy")
    spans = {video_id: spans_of(3, 0.7) for video_id in IDS}
    np.savez(tmp_path / "spans.npz", **(spans | {IDS[1]: spans_of(2, 0.7)}))
    times = RowTimes(files={"rgb": tmp_path / "spans.npz"})
    report = import_features(store, "npy", tmp_path / "npy", places=NPY, times=times)
    ((video_id, slot, what),) = report.failed
    assert (video_id, slot) == (IDS[1], "rgb")
    assert "(2, 2), expected (3, 2)" in what
    _, found = store["rgb"].read(IDS[0], with_spans=True)
    np.testing.assert_array_equal(found, spans[IDS[0]])
    assert len(imported(store, "rgb")["times"]["spans"]["sha256"]) == 64


def test_damaged_files_are_quarantined_by_name_and_siblings_go_on(store, tmp_path):
    folder = tmp_path / "npy"
    ids = ["cut", "good", "huge", "nan", "object", "text", "wide"]
    npy_folder(folder, ids)
    whole = (folder / "cut_rgb.npy").read_bytes()
    (folder / "cut_rgb.npy").write_bytes(whole[:-3])
    np.save(folder / "nan_rgb.npy", np.full((3, 4), np.nan, np.float32))
    np.save(folder / "object_rgb.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(folder / "text_rgb.npy", np.array(["a"]))
    np.save(folder / "wide_rgb.npy", np.ones((3, 5), np.float32))
    header = whole.replace(b"(3, 4), }", b"(9999999999, 4), }"[:17])
    (folder / "huge_rgb.npy").write_bytes(header)
    report = import_features(store, "npy", folder, places=NPY, times=RATE)
    assert {video_id for video_id, _, _ in report.failed} == set(ids) - {"good"}
    said = {video_id: what for video_id, _, what in report.failed}
    assert "cut_rgb.npy" in said["cut"]
    assert "48 bytes, but 45 follow" in said["cut"]
    assert "pickled objects" in said["object"]
    assert "not finite" in said["nan"]
    assert "(5,), expected (4,)" in said["wide"]
    assert store["rgb"].ids() == ["good"]
    assert {row["video_id"] for row in store.failed().to_pylist()} == set(ids) - {"good"}
    # Mended files come in with the same call.
    npy_folder(folder, ids)
    report = import_features(store, "npy", folder, places=NPY, times=RATE)
    assert (report.added, report.kept, report.failed) == (6, 1, ())
    assert not store.failed().num_rows


def test_no_damage_of_an_npy_file_gives_other_shapes_or_other_errors():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    whole = npy_bytes(array)
    rng = np.random.default_rng(0)
    for _ in range(400):
        data = bytearray(whole)
        for at in rng.integers(0, 128, rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = read_npy(io.BytesIO(bytes(data)), len(data))
            except ForeignArrayError:
                continue
        assert found.nbytes == array.nbytes
    for length in range(len(whole)):
        with pytest.raises(ForeignArrayError):
            read_npy(io.BytesIO(whole[:length]), length)


def test_a_folder_may_grow_and_changed_files_are_noticed(store, tmp_path):
    folder = tmp_path / "npy"
    npy_folder(folder, ["a", "b"])
    first = import_features(store, "npy", folder, places=NPY, times=RATE)
    arrays = npy_folder(folder / "more", ["c"])
    np.save(folder / "a_rgb.npy", np.zeros((2, 4), np.float32))
    second = import_features(store, "npy", folder, places=NPY, times=RATE)
    assert second.generations == first.generations
    assert second.changed == (("a", "rgb"),)
    assert len(store["rgb"]["a"]) == 3
    np.testing.assert_array_equal(store["rgb"]["c"], arrays["c"])
    third = import_features(store, "npy", folder, places=NPY, times=RATE, replace=True)
    assert third.added == 1
    assert not store["rgb"]["a"].any()
    source = store.videos().to_pylist()[0]["source"]
    assert source


def test_an_import_is_in_batches_and_carries_on(store, tmp_path, monkeypatch):
    monkeypatch.setattr("vlpipe.stores.exchange.importing.BATCH_VIDEOS", 4)
    ids = [f"v{n:02}" for n in range(10)]
    npy_folder(tmp_path / "npy", ids)

    def stop(stage, done, total):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_features(
            store, "npy", tmp_path / "npy", places=NPY, times=RATE, name="n", progress=stop
        )
    store.refresh()
    assert store["rgb"].ids() == ids[:4]
    report = import_features(store, "npy", tmp_path / "npy", places=NPY, times=RATE, name="n")
    assert (report.added, report.kept) == (6, 4)
    assert store["rgb"].ids() == ids
    assert store.verify().is_sound


def test_npz_members_dtypes_and_names(store, tmp_path):
    (tmp_path / "npz").mkdir()
    rgb, flow = np.random.default_rng(0).random((2, 3, 4))
    np.savez_compressed(tmp_path / "npz/a.npz", rgb=rgb, flow=flow)
    np.savez(tmp_path / "npz/b.npz", rgb=rgb)
    places = {"rgb": "{key}.npz:rgb", "flow": "{key}.npz:flow"}
    report = import_features(
        store,
        "npy",
        tmp_path / "npz",
        places=places,
        features={"rgb": "their_rgb"},
        dtypes={"rgb": "float16"},
        times=RATE,
    )
    assert store["their_rgb"].info.dtype == "float16"
    assert store["flow"].info.dtype == "float64"  # narrowed only when asked
    np.testing.assert_array_equal(store["flow"]["a"], flow)
    ((video_id, slot, what),) = report.failed
    assert (video_id, slot) == ("b", "flow")
    assert "found: rgb" in what


def test_npz_that_unpacks_to_far_more_is_refused(store, tmp_path):
    (tmp_path / "npz").mkdir()
    np.savez_compressed(tmp_path / "npz/bomb.npz", rgb=np.zeros((1 << 16, 64), np.float32))
    np.savez(tmp_path / "npz/good.npz", rgb=np.ones((2, 64), np.float32))
    report = import_features(
        store, "npy", tmp_path / "npz", places={"rgb": "{key}.npz:rgb"}, times=RATE
    )
    ((video_id, _, what),) = report.failed
    assert video_id == "bomb"
    assert "unpacks from" in what


def test_links_that_leave_the_folder_are_not_followed(store, tmp_path):
    npy_folder(tmp_path / "npy", ["a"])
    np.save(tmp_path / "secret.npy", np.ones((3, 4), np.float32))
    (tmp_path / "npy/b_rgb.npy").symlink_to(tmp_path / "secret.npy")
    report = import_features(store, "npy", tmp_path / "npy", places=NPY, times=RATE)
    assert store["rgb"].ids() == ["a"]
    assert "b_rgb.npy: leads out of" in report.left_out[0]


def test_hdf5_cannot_lead_to_other_files(store, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones((3, 4), np.float32)
    (tmp_path / "raw.bin").write_bytes(bytes(48))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["good"] = np.ones((3, 4), np.float32)
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")
        file["soft"] = h5py.SoftLink("/good")
        file.create_dataset(
            "external",
            (3, 4),
            "f4",
            external=[(str(tmp_path / "raw.bin"), 0, h5py.h5f.UNLIMITED)],
        )
        virtual = h5py.VirtualLayout((3, 4), "f4")
        virtual[:] = h5py.VirtualSource(tmp_path / "other.h5", "secret", (3, 4))
        file.create_virtual_dataset("virtual", virtual)
        file["text"] = ["a", "b"]
        file.create_dataset("hollow", (1 << 40, 4), "f4", chunks=(1024, 4))
        file["sums"] = np.ones((3, 4), np.float32)
        file["folder/inner"] = np.ones((3, 4), np.float32)
    report = import_features(
        store, "hdf5", tmp_path / "x.h5", places={"rgb": "x.h5:/{key}"}, times=RATE
    )
    assert store["rgb"].ids() == ["good", "sums"]
    said = {video_id: what for video_id, _, what in report.failed}
    assert set(said) == {"link", "soft", "external", "virtual", "text", "hollow"}
    assert "link to the file" in said["link"]
    for name in ("external", "virtual"):
        assert "in other files" in said[name]
    assert report.videos == 8  # a group is no video
    assert imported(store, "rgb")["files"][0]["name"] == "x.h5"
    report = import_features(
        store,
        "hdf5",
        tmp_path / "x.h5",
        places={"rgb": "x.h5:/{key}/inner"},
        features={"rgb": "inner"},
        times=RATE,
    )
    assert store["inner"].ids() == ["folder"]


def test_hdf5_with_a_damaged_dataset_gives_its_siblings(store, tmp_path):
    made = make_store(tmp_path / "made", ["resnet152"])
    export_features(made, "masn", tmp_path / "files")
    path = tmp_path / "files/res152_avgpool.hdf5"
    data = bytearray(path.read_bytes())
    at = data.find(rows_of("resnet152", "tumblr_b", 3).astype("f4").tobytes()[:64])
    data[at + 4] ^= 1
    path.write_bytes(data)
    report = import_features(store, "masn", tmp_path / "files", times=RATE)
    ((video_id, slot, what),) = report.failed
    assert (video_id, slot) == ("tumblr_b", "appearance")
    assert "res152_avgpool.hdf5:/tumblr_b" in what
    assert store["resnet152"].ids() == ["tumblr_a", "tumblr_c"]


def test_other_files_are_refused_with_their_name(store, tmp_path):
    (tmp_path / "x.h5").write_bytes(b"no hdf5" * 100)
    with pytest.raises(UsageError, match=r"x\.h5 cannot be opened as HDF5"):
        import_features(store, "hdf5", tmp_path / "x.h5", places={"a": "x:/{key}"}, times=RATE)
    with pytest.raises(UsageError, match="none of the files res152"):
        import_features(store, "masn", tmp_path, times=RATE)
    with pytest.raises(UsageError, match="there is no"):
        import_features(store, "masn", tmp_path / "nowhere", times=RATE)
    with pytest.raises(UsageError, match="needs a place"):
        import_features(store, "npy", tmp_path, times=RATE)
    with pytest.raises(UsageError, match="no videos were found"):
        import_features(store, "npy", tmp_path, places=NPY, times=RATE)
    with pytest.raises(UsageError, match="no slot 'rgb'"):
        import_features(store, "masn", tmp_path, times=RowTimes({"rgb": Fraction(1)}))


def test_padded_arrays_with_and_without_lengths(store, tmp_path):
    array = np.zeros((3, 4, 2), np.float32)
    array[0, :2], array[1, :4] = 1, 2
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["features"], file["ids"] = array, [11, 22, 33]
        file["lengths"] = [3, 4, 9]
    places = {"f": "p.h5:/features"}
    report = import_features(store, "hdf5-padded", tmp_path, places=places, times=RATE)
    assert len(store["f"]["11"]) == 3
    ((video_id, _, what),) = report.failed
    assert video_id == "33"
    assert "/lengths[2] is 9" in what
    with h5py.File(tmp_path / "p.h5", "a") as file:
        del file["lengths"]
    import_features(
        store, "hdf5-padded", tmp_path, places=places, times=RATE, features={"f": "trimmed"}
    )
    assert [len(store["trimmed"][key]) for key in ("11", "22", "33")] == [2, 4, 0]
    with h5py.File(tmp_path / "p.h5", "a") as file:
        del file["ids"]
        file["ids"] = ["a", "a", "b"]
    with pytest.raises(UsageError, match="names a video twice"):
        import_features(store, "hdf5-padded", tmp_path, places=places, times=RATE)


def test_flat_boxes_with_frames_in_json(store, tmp_path):
    values = np.arange(20, dtype=np.float32).reshape(5, 4)
    with h5py.File(tmp_path / "boxes.hdf5", "w") as file:
        file["image_features"] = values
        file["pos_boxes"] = np.array([[3, 5], [0, 2], [2, 3], [4, 9]], np.int32)
    (tmp_path / "boxes.json").write_text(json.dumps({"a/1": 0, "a/0": 1, "b/0": 2, "c/0": 3}))
    report = import_features(
        store, "flat-boxes", tmp_path, times=RATE, row_shapes={"image_features": (2, 4)}
    )
    np.testing.assert_array_equal(store["objects"]["a"], [values[:2], values[3:5]])
    assert store["objects_num_boxes"]["b"].tolist() == [[1]]
    assert [(video_id, slot) for video_id, slot, _ in report.failed] == [("c", "image_features")]


def test_videos_that_are_there_stay_and_imports_need_not_be_active(tmp_path):
    store = make_store(tmp_path / "store", ["i3d_rgb"])
    made = make_store(tmp_path / "made", ["i3d_rgb"], ids=["x"])
    export_features(made, "bmt", tmp_path / "files")
    report = import_features(store, "bmt", tmp_path / "files")
    assert report.inactive == (report.generations["rgb"],)
    assert store["i3d_rgb"].ids() == sorted(IDS)
    assert not import_features(store, "bmt", tmp_path / "files", activate=True).inactive
    assert store["i3d_rgb"].ids() == ["x"]


def test_more_specific_names_win():
    slots = find_layout("bmt").slots
    assert [slot.places[-1] for slot in slots] == ["{key}_rgb.npy", "{key}_flow.npy", "{key}.npy"]


def test_the_published_sample_names_of_bmt(store, tmp_path):
    for name, width in (("rgb", 1024), ("flow", 1024), ("vggish", 128)):
        np.save(tmp_path / f"long_jump_{name}.npy", np.ones((2, width), np.float32))
    np.save(tmp_path / "other.npy", np.ones((2, 128), np.float32))
    report = import_features(store, "bmt", tmp_path)
    assert not report.failed
    assert store["i3d_rgb"].ids() == ["long_jump"]
    assert store["vggish"].ids() == ["long_jump", "other"]


def test_slots_of_other_lengths_are_quarantined(store, tmp_path):
    np.save(tmp_path / "a_rgb.npy", np.ones((3, 1024), np.float32))
    np.save(tmp_path / "a_flow.npy", np.ones((2, 1024), np.float32))
    np.save(tmp_path / "b_flow.npy", np.ones((2, 1024), np.float32))
    report = import_features(store, "bmt", tmp_path)
    assert report.failed == (("a", "flow", "flow has 2 rows and rgb 3: must agree"),)
    assert store["i3d_flow"].ids() == ["b"]


def test_vectors_of_whole_videos_are_one_row_and_single_numbers_are_quarantined(store, tmp_path):
    vectors = np.random.default_rng(0).random((2, 16), np.float32)
    (tmp_path / "npy").mkdir()
    for n, vector in enumerate(vectors):
        np.save(tmp_path / "npy" / f"v{n}_clip.npy", vector)
    np.save(tmp_path / "npy" / "v2_clip.npy", np.float32(1))
    report = import_features(
        store,
        "npy",
        tmp_path / "npy",
        places={"clip": "{key}_clip.npy"},
        times=RowTimes({"*": Fraction(1)}),
    )
    assert report.added == 2
    assert [(video, slot) for video, slot, _ in report.failed] == [("v2", "clip")]
    assert "expected" in report.failed[0][2]
    for n, vector in enumerate(vectors):
        rows, spans = store["clip"].read(f"v{n}", with_spans=True)
        np.testing.assert_array_equal(rows, vector[None])
        assert spans.tolist() == [[0.0, 1.0]]


def test_deleted_videos_stay_away_and_are_counted_until_they_are_restored(store, tmp_path):
    (tmp_path / "npy").mkdir()
    np.save(tmp_path / "npy" / "v_x.npy", np.ones((2, 3), np.float32))
    how = {"places": {"x": "{key}_x.npy"}, "times": RowTimes({"*": Fraction(1)})}
    import_features(store, "npy", tmp_path / "npy", **how)
    store.delete(["v"])
    report = import_features(store, "npy", tmp_path / "npy", **how)
    assert (report.added, report.deleted) == (0, 1)
    report = import_features(store, "npy", tmp_path / "npy", restore=True, **how)
    assert (report.added, report.deleted) == (1, 0)
    assert store["x"]["v"].shape == (2, 3)


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_a_file_of_spans_is_opened_once(store, tmp_path, monkeypatch, suffix):
    npy_folder(tmp_path / "npy")
    path = tmp_path / f"spans{suffix}"
    spans = {video_id: spans_of(3, 0.7) for video_id in IDS}
    if suffix == ".npz":
        np.savez(path, **spans)
    else:
        with h5py.File(path, "w") as file:
            file.update(spans)
    opened = []
    real = row_times._open_spans
    monkeypatch.setattr(row_times, "_open_spans", lambda path: opened.append(path) or real(path))
    report = import_features(
        store, "npy", tmp_path / "npy", places=NPY, times=RowTimes(files={"*": path})
    )
    assert report.added >= len(IDS)
    assert not report.failed
    assert opened == [path]
    np.testing.assert_array_equal(store["rgb"].read_spans(IDS[2]), spans[IDS[2]])


def test_the_name_of_masns_download_is_known(tmp_path):
    made = make_store(tmp_path / "store", ["resnet152", "objects_motion"])
    export_features(made, "masn", tmp_path / "files")
    name = "tgif_i3d_roialign_hw7_perclip_avgpool"
    (tmp_path / "files" / f"{name}_obj10.hdf5").rename(tmp_path / "files" / f"{name}.hdf5")
    store = FeatureStore.create(tmp_path / "again")
    import_features(store, "masn", tmp_path / "files", times=RATE)
    assert store["objects_motion"].ids() == made["objects_motion"].ids()
