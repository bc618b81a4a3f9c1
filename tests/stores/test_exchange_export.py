"""Features in the files that papers' code reads: names, shapes, dtypes, checks, repetition."""

import json
import multiprocessing
import os
import signal
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from exchange_samples import IDS, KEYS, fill, key_table, make_store, rows_of, spans_of

from vlpipe.stores import FeatureDefinition, Features, FeatureStore
from vlpipe.stores.errors import (
    FeatureMissing,
    RowsRefused,
    StoreDamaged,
    StoreUnwritable,
    UsageError,
)
from vlpipe.stores.exchange import KeyTable, export_features, list_layouts, read_key_tables

MASN = ["resnet152", "i3d_resnet50", "objects", "objects_spatial", "objects_motion"]


@pytest.fixture(scope="module")
def masn_store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("masn") / "store", MASN)


def bytes_of(folder):
    return {p.name: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_masn_reads_one_dataset_per_key(masn_store, tmp_path):
    keys = read_key_tables([key_table(tmp_path / "Train_count_question.csv")])
    report = export_features(masn_store, "masn", tmp_path / "out", keys=keys)
    assert report.written == dict.fromkeys(
        ("appearance", "regions", "spatial", "motion", "region_motion"), 3
    )
    assert not report.problems
    assert not report.missing
    with h5py.File(tmp_path / "out/res152_avgpool.hdf5") as file:
        assert sorted(file) == sorted(KEYS.values())
        found = np.array(file[KEYS["tumblr_b"]])
        np.testing.assert_array_equal(found, rows_of("resnet152", "tumblr_b", 3))
        assert found.dtype == np.float32
    with h5py.File(tmp_path / "out/tgif_btup_f_obj10.hdf5") as file:
        assert file["/image_features/7"].shape == (2, 10, 2048)
        np.testing.assert_array_equal(
            file["/spatial_features/7"], rows_of("objects_spatial", "tumblr_a", 2)
        )
        assert file["/image_features/7"].fletcher32
    path = tmp_path / "out/tgif_i3d_roialign_hw7_perclip_avgpool_obj10.hdf5"
    with h5py.File(path) as file:
        assert file["4"].dtype == np.float32  # stored as float64
        assert file["4"].shape == (4, 10, 2048)


def test_a_second_export_changes_nothing_and_other_content_is_refused(tmp_path):
    store = make_store(tmp_path / "store", ["resnet152", "i3d_resnet50"])
    first = export_features(store, "masn", tmp_path / "out")
    before = bytes_of(tmp_path / "out")
    again = export_features(store, "masn", tmp_path / "out")
    assert again.is_repeat
    assert again.written == first.written
    assert again.files == first.files
    assert bytes_of(tmp_path / "out") == before
    assert set(first.left_out) == {
        "regions (objects)",
        "spatial (objects_spatial)",
        "region_motion (objects_motion)",
    }
    fill(store, ["resnet152"], ids=["tumblr_d"])
    with pytest.raises(UsageError, match=r"res152_avgpool\.hdf5 is there already"):
        export_features(store, "masn", tmp_path / "out")
    assert bytes_of(tmp_path / "out") == before
    grown = export_features(store, "masn", tmp_path / "out", overwrite=True)
    assert grown.written == {"appearance": 4, "motion": 3}
    assert grown.missing == {"motion": ("tumblr_d",)}
    # A file that somebody damaged in size is written again without being asked.
    (tmp_path / "out/res152_avgpool.hdf5").write_bytes(b"short")
    assert not export_features(store, "masn", tmp_path / "out").is_repeat
    with h5py.File(tmp_path / "out/res152_avgpool.hdf5") as file:
        assert len(file) == 4


def test_videos_whose_rows_do_not_agree_are_named_and_left_out(tmp_path):
    names = ["resnet152", "i3d_resnet50"]
    store = make_store(
        tmp_path / "store",
        names,
        num_rows=lambda name, n: 5 if (name, n) == ("i3d_resnet50", 1) else 3,
    )
    report = export_features(store, "masn", tmp_path / "out")
    ((video_id, what),) = report.problems
    assert video_id == "tumblr_b"
    assert "motion has 5 rows and appearance 3" in what
    assert report.written == {"appearance": 2, "motion": 2}
    with h5py.File(tmp_path / "out/res152_avgpool.hdf5") as file:
        assert "tumblr_b" not in file


def test_rows_of_another_shape_are_refused_before_anything_is_written(tmp_path):
    store = make_store(tmp_path / "store", ["i3d_rgb"])
    with pytest.raises(UsageError, match=r"'appearance'.*\(T, 2048\).*\(1024,\)"):
        export_features(store, "masn", tmp_path / "out", features={"appearance": "i3d_rgb"})
    with pytest.raises(FeatureMissing, match="i3d_rgbb"):
        export_features(store, "masn", tmp_path / "out", features={"appearance": "i3d_rgbb"})
    with pytest.raises(UsageError, match="no slot 'rgb'"):
        export_features(store, "masn", tmp_path / "out", features={"rgb": "i3d_rgb"})
    with pytest.raises(UsageError, match="no feature that layout 'masn' keeps"):
        export_features(store, "masn", tmp_path / "out")
    with pytest.raises(UsageError, match="nearest: masn"):
        export_features(store, "mason", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bmt_files_go_into_its_two_folders(tmp_path):
    names = ["i3d_rgb", "i3d_flow", "vggish"]
    silent = {("vggish", 1): 0, ("vggish", 2): None}
    store = make_store(
        tmp_path / "store", names, num_rows=lambda name, n: silent.get((name, n), n + 1)
    )
    report = export_features(store, "bmt", tmp_path / "out")
    assert report.written == {"rgb": 3, "flow": 3, "vggish": 1}
    assert report.empty == {"vggish": ("tumblr_b",)}
    assert report.missing == {"vggish": ("tumblr_c",)}
    rgb = np.load(tmp_path / "out/i3d_25fps_stack64step64_2stream_npy/tumblr_c_rgb.npy")
    np.testing.assert_array_equal(rgb, rows_of("i3d_rgb", "tumblr_c", 3))
    assert rgb.dtype == np.float32
    assert [p.name for p in (tmp_path / "out/vggish_npy").iterdir()] == ["tumblr_a.npy"]


def test_an_interrupted_export_of_files_per_video_goes_on(tmp_path):
    store = make_store(tmp_path / "store", ["i3d_rgb"])

    def stop(stage, done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_features(store, "bmt", tmp_path / "out", progress=stop)
    folder = tmp_path / "out/i3d_25fps_stack64step64_2stream_npy"
    done = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert len(done) == 2
    short = folder / "tumblr_a_rgb.npy"
    short.write_bytes(short.read_bytes()[:-1])
    report = export_features(store, "bmt", tmp_path / "out")
    assert (report.written["rgb"], report.kept) == (3, 1)
    assert (folder / "tumblr_b_rgb.npy").stat().st_mtime_ns == done[folder / "tumblr_b_rgb.npy"]
    np.testing.assert_array_equal(np.load(short), rows_of("i3d_rgb", "tumblr_a", 2))
    assert not list(folder.glob(".tmp-*"))


def test_files_of_other_features_are_never_taken_for_finished_ones(tmp_path):
    store = make_store(tmp_path / "store", ["i3d_rgb", "i3d_flow"])
    export_features(store, "bmt", tmp_path / "out", features={"rgb": "i3d_rgb"})
    with pytest.raises(UsageError, match="there already"):
        export_features(store, "bmt", tmp_path / "out", features={"rgb": "i3d_flow"})
    export_features(store, "bmt", tmp_path / "out", features={"rgb": "i3d_flow"}, overwrite=True)
    rgb = np.load(tmp_path / "out/i3d_25fps_stack64step64_2stream_npy/tumblr_a_rgb.npy")
    np.testing.assert_array_equal(rgb, rows_of("i3d_flow", "tumblr_a", 2))


def test_mdvc_has_a_group_per_video_and_two_files(tmp_path):
    store = make_store(tmp_path / "store", ["i3d_rgb", "i3d_flow", "vggish"])
    export_features(store, "mdvc", tmp_path, ids=["tumblr_b"])
    name = "sub_activitynet_v1-3.i3d_25fps_stack24step24_2stream.hdf5"
    with h5py.File(tmp_path / name) as file:
        assert list(file) == ["tumblr_b"]
        assert file["tumblr_b/i3d_features/flow"].shape == (3, 1024)
    with h5py.File(tmp_path / "sub_activitynet_v1-3.vggish.hdf5") as file:
        np.testing.assert_array_equal(
            file["tumblr_b/vggish_features"], rows_of("vggish", "tumblr_b", 3)
        )


def test_jsfusion_joins_sound_to_the_frames_that_it_covers(tmp_path):
    store = FeatureStore.create(tmp_path / "store", durability="process")
    frames = FeatureDefinition("resnet152", "float16", (2048,), ("channel",), {})
    sound = FeatureDefinition("vggish", "float32", (128,), ("channel",), {})
    values = np.arange(45 * 2048).reshape(45, 2048) % 100
    with store.writer([frames, sound]) as writer:
        rows = {
            "resnet152": Features(values, spans_of(45, 0.2)),
            "vggish": Features(np.arange(9.0)[:, None].repeat(128, 1), spans_of(9, 0.96)),
        }
        writer.add("loud", rows)
        writer.add("silent", {"resnet152": Features(values[:3], spans_of(3, 0.2))})
    export_features(store, "jsfusion", tmp_path / "a")
    with h5py.File(tmp_path / "a/RESNET_pool5wav.hdf5") as file:
        assert file["loud"].shape == (45, 2176)
        np.testing.assert_array_equal(file["loud"][:, :2048], values)
        middles = np.arange(45) * 0.2 + 0.1
        np.testing.assert_array_equal(file["loud"][:, 2048], np.minimum(middles // 0.96, 8))
        assert not file["silent"][:, 2048:].any()
    report = export_features(store, "jsfusion-padded", tmp_path / "b")
    assert report.shortened == {"frames": ("loud",)}
    with h5py.File(tmp_path / "b/RESNET_pool5wav_padded.hdf5") as file:
        assert file["features"].shape == (2, 40, 2176)
        assert [name.decode() for name in file["ids"]] == ["loud", "silent"]
        assert file["lengths"][:].tolist() == [40, 3]
        np.testing.assert_array_equal(
            file["features"][0, :, :2048], values[np.arange(40) * 45 // 40]
        )
        assert not file["features"][1, :37].any()  # padded in front
        np.testing.assert_array_equal(file["features"][1, 37:, :2048], values[:3])


def test_tgif_qa_keeps_maps_as_vectors(tmp_path):
    store = FeatureStore.create(tmp_path / "store", durability="process")
    maps = FeatureDefinition("resnet152_res5c", "float16", (2048, 7, 7), ("c", "h", "w"), {})
    rows = np.random.default_rng(0).random((1, 2048, 7, 7)).astype("float16")
    with store.writer([maps]) as writer:
        writer.add("tumblr_a", {maps.name: Features(rows, spans_of(1))})
    export_features(store, "tgif-qa", tmp_path, keys=KeyTable(KEYS))
    with h5py.File(tmp_path / "TGIF_RESNET_res5c.hdf5") as file:
        np.testing.assert_array_equal(file["7"][0], rows[0].reshape(-1))


def test_flat_boxes_keep_only_real_boxes(tmp_path):
    store = FeatureStore.create(tmp_path / "store", durability="process")
    regions = FeatureDefinition("objects", "float32", (3, 4), ("o", "c"), {})
    counts = FeatureDefinition("objects_num_boxes", "int32", (1,), ("count",), {})
    rows = np.arange(24.0).reshape(2, 3, 4)
    with store.writer([regions, counts]) as writer:
        for video_id, numbers in (("a", [2, 0]), ("b", [3, 1])):
            writer.add(
                video_id,
                {
                    regions.name: Features(rows, spans_of(2)),
                    counts.name: Features(np.array(numbers)[:, None], spans_of(2)),
                },
            )
    export_features(store, "flat-boxes", tmp_path)
    with h5py.File(tmp_path / "boxes.hdf5") as file:
        assert file["pos_boxes"][:].tolist() == [[0, 2], [2, 2], [2, 5], [5, 6]]
        assert [name.decode() for name in file["ids"]] == ["a/0", "a/1", "b/0", "b/1"]
        np.testing.assert_array_equal(
            file["image_features"], np.concatenate([rows[0, :2], rows[0], rows[1, :1]])
        )


def test_flat_boxes_leave_out_videos_that_lack_rows_of_a_slot(tmp_path):
    """All arrays lie beside each other: what one of them lacks would shift the others."""
    store = FeatureStore.create(tmp_path / "store", durability="process")
    regions = FeatureDefinition("objects", "float32", (3, 4), ("o", "c"), {})
    boxes = FeatureDefinition("objects_boxes", "float32", (3, 4), ("o", "c"), {})
    rows = {video_id: np.full((1, 3, 4), ord(video_id)) for video_id in "abc"}
    with store.writer([regions, boxes]) as writer:
        for video_id, definitions in (("a", [regions]), ("b", [regions, boxes]), ("c", [boxes])):
            features = {d.name: Features(rows[video_id], spans_of(1)) for d in definitions}
            writer.add(video_id, features)
    report = export_features(store, "flat-boxes", tmp_path)
    assert [video_id for video_id, _ in report.problems] == ["a", "c"]
    assert "0 of image_bb" in report.problems[0][1]
    with h5py.File(tmp_path / "boxes.hdf5") as file:
        assert [name.decode() for name in file["ids"]] == ["b/0"]
        np.testing.assert_array_equal(file["image_features"], rows["b"][0])
        np.testing.assert_array_equal(file["image_bb"], rows["b"][0])


def test_bfloat16_is_exported_as_float32_or_refused_by_name(tmp_path):
    store = FeatureStore.create(tmp_path / "store", durability="process")
    definition = FeatureDefinition("x", "bfloat16", (2,), ("channel",), {})
    with store.writer([definition]) as writer:
        writer.add("a", {"x": Features(np.array([[1.5, -2.0]]), spans_of(1))})
    export_features(store, "npy", tmp_path / "npy", places={"x": "{key}.npy"})
    found = np.load(tmp_path / "npy" / "a.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[1.5, -2.0]])
    with pytest.raises(UsageError, match=r"x: .* no bfloat16"):
        export_features(store, "vlpipe-hdf5", tmp_path / "one")
    with pytest.raises(UsageError, match="not bfloat16"):
        export_features(
            store, "hdf5", tmp_path / "linked", places={"x": "x.hdf5:/{key}"}, link=True
        )


def test_linked_files_hold_no_rows_and_read_like_copies(tmp_path):
    store = make_store(tmp_path / "store", ["resnet152", "i3d_resnet50"])
    report = export_features(store, "masn", tmp_path / "out", link=True)
    assert report.written == {"appearance": 3, "motion": 3}
    assert report.num_bytes == 0
    with h5py.File(tmp_path / "out/res152_avgpool.hdf5") as file:
        for n, video_id in enumerate(IDS):
            found = np.array(file[video_id])
            np.testing.assert_array_equal(found, rows_of("resnet152", video_id, n + 2))
            assert found.dtype == np.float16  # as stored
    assert export_features(store, "masn", tmp_path / "out", link=True).is_repeat
    with pytest.raises(UsageError, match="cannot point"):
        export_features(
            store, "npy", tmp_path / "npy", places={"resnet152": "{key}.npy"}, link=True
        )
    memory = fill(FeatureStore.create("memory://linked"), ["resnet152"])
    with pytest.raises(UsageError, match="on this machine"):
        export_features(memory, "masn", tmp_path / "memory", link=True)


def test_two_exports_into_one_folder_do_not_mix(tmp_path):
    store = make_store(tmp_path / "store", ["resnet152"])

    def export_again(stage, done, total):
        with pytest.raises(UsageError, match="another export"):
            export_features(store, "masn", tmp_path / "out")

    assert export_features(store, "masn", tmp_path / "out", progress=export_again).written == {
        "appearance": 3
    }


def test_a_killed_export_leaves_nothing_that_looks_whole(tmp_path):
    make_store(tmp_path / "store", ["resnet152"]).close()

    def work():
        def kill(stage, done, total):
            if done == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        with FeatureStore.open(tmp_path / "store") as store:
            export_features(store, "masn", tmp_path / "out", progress=kill)

    process = multiprocessing.get_context("fork").Process(target=work)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of libraries
        process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not list((tmp_path / "out").glob("res152*"))
    with FeatureStore.open(tmp_path / "store") as store:
        report = export_features(store, "masn", tmp_path / "out")
    assert report.written == {"appearance": 3}
    assert not list((tmp_path / "out").glob(".tmp-*"))
    with h5py.File(tmp_path / "out/res152_avgpool.hdf5") as file:
        assert len(file) == 3


def test_keys_that_cannot_be_names_are_problems_and_unknown_videos_are_named(tmp_path):
    store = make_store(tmp_path / "store", ["i3d_rgb"], ids=["a/b", "plain", "other"])
    report = export_features(store, "bmt", tmp_path / "out")
    ((video_id, what),) = report.problems
    assert video_id == "a/b"
    assert "slash" in what
    assert report.written == {"rgb": 2}
    named = export_features(store, "bmt", tmp_path / "named", keys=KeyTable({"plain": "1"}, "vid"))
    assert set(named.unnamed) == {"a/b", "other"}
    assert [p.name for p in (tmp_path / "named").rglob("*.npy")] == ["vid1_rgb.npy"]
    with pytest.raises(UsageError, match="none of the 3 videos"):
        export_features(store, "bmt", tmp_path / "none", keys=KeyTable({"x": "1"}))
    with pytest.raises(UsageError, match="no rows of video 'nobody'"):
        export_features(store, "bmt", tmp_path / "none", ids=["nobody"])


def test_tables_of_keys_must_be_one_to_one(tmp_path):
    path = key_table(tmp_path / "a.csv")
    assert read_key_tables([path]).keys == KEYS
    (tmp_path / "b.csv").write_text("gif_name\tkey\ntumblr_a\t8\n")
    with pytest.raises(UsageError, match="'tumblr_a' has the keys '7' and '8'"):
        read_key_tables([path, tmp_path / "b.csv"])
    (tmp_path / "c.csv").write_text("gif_name,key\nsomebody,7\n")
    with pytest.raises(UsageError, match="key '7' stands for two videos"):
        read_key_tables([path, tmp_path / "c.csv"])


def test_values_that_do_not_fit_are_refused_and_nothing_gets_a_name(tmp_path):
    store = FeatureStore.create(tmp_path / "store", durability="process")
    wide = FeatureDefinition("resnet152", "float64", (2048,), ("channel",), {})
    with store.writer([wide]) as writer:
        writer.add("a", {"resnet152": Features(np.ones((1, 2048)), spans_of(1))})
        writer.add("b", {"resnet152": Features(np.full((1, 2048), 1e300), spans_of(1))})
    with pytest.raises(RowsRefused, match=r"'b', slot 'appearance'.*float32"):
        export_features(store, "masn", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.hdf5"))
    assert not list((tmp_path / "out").glob(".tmp-*"))
    record = json.loads((tmp_path / "out/vlpipe-export.masn.json").read_text())
    assert not record["is_complete"]


def test_damage_in_the_store_stops_the_export(tmp_path):
    store = make_store(tmp_path / "store", ["resnet152"])
    (rows,) = (tmp_path / "store").glob("data/resnet152/*/*/rows/c.0.0")
    data = bytearray(rows.read_bytes())
    data[4096 + 2 * 4096 + 5] ^= 1  # in the rows of the second video
    rows.write_bytes(data)
    with pytest.raises(StoreDamaged, match="tumblr_b"):
        export_features(store, "masn", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.hdf5"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    store = make_store(tmp_path / "store", ["resnet152", "i3d_rgb"])
    (tmp_path / "file").write_text("in the way")
    for layout in ("masn", "bmt", "vlpipe-hdf5"):
        with pytest.raises(StoreUnwritable, match=str(tmp_path / "file")):
            export_features(store, layout, tmp_path / "file")


def test_progress_and_places(tmp_path):
    store = make_store(tmp_path / "store", ["vggish"])
    heard = []
    places = {"sound": "sounds.h5:/by/name/{key}"}
    export_features(
        store,
        "hdf5",
        tmp_path,
        places=places,
        features={"sound": "vggish"},
        progress=lambda *what: heard.append(what),
    )
    assert heard == [("export", n, 3) for n in (1, 2, 3)]
    with h5py.File(tmp_path / "sounds.h5") as file:
        assert sorted(file["by/name"]) == list(IDS)
    for place in ("sounds.h5", "sounds.h5:/x", "sounds.h5:/{key}/{key}"):
        with pytest.raises(UsageError, match="place"):
            export_features(store, "hdf5", tmp_path / "x", places={"vggish": place})
    with pytest.raises(UsageError, match="needs a place"):
        export_features(store, "hdf5", tmp_path / "x", features={"vggish": "vggish"})
    with pytest.raises(UsageError, match="out of the folder"):
        export_features(store, "npy", tmp_path / "x", places={"vggish": "../{key}.npy"})
    with pytest.raises(UsageError, match="import only"):
        export_features(store, "lmdb", tmp_path / "x", places={"vggish": "{key}"})


def test_every_layout_is_consistent():
    for layout in list_layouts():
        names = [slot.name for slot in layout.slots]
        assert len(set(names)) == len(names)
        for slot in layout.slots:
            assert slot.features, (layout.name, slot.name)
            assert slot.rows_as is None or slot.rows_as in names
            if slot.row_shape is not None and slot.dimensions:
                assert len(slot.dimensions) == len(slot.row_shape)
            if layout.container.is_exported:
                for place in slot.places:
                    layout.container.check_place(slot.name, place)
