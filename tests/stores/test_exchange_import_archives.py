"""What lies in archives or lines of text comes into a store: LMDB, WebDataset tars, bottom-up."""

import base64
import io
import os
import pickle
import tarfile
from fractions import Fraction

import lmdb
import numpy as np
import pytest
from exchange_samples import imported, npy_bytes

from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange import RowTimes, import_features

RATE = RowTimes({"*": Fraction(2)})


@pytest.fixture
def store(tmp_path):
    return FeatureStore.create(tmp_path / "imported", durability="process")


def test_lmdb_values(store, tmp_path):
    rows = np.random.default_rng(0).random((3, 4), np.float32)
    archive = io.BytesIO()
    np.savez(archive, x=rows)
    with (
        lmdb.open(str(tmp_path / "db"), map_size=1 << 20) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"rgb/a", npy_bytes(rows))
        transaction.put(b"rgb/b", archive.getvalue())
        transaction.put(b"rgb/c", rows.tobytes())
        transaction.put(b"rgb/d", pickle.dumps(rows))
        transaction.put(b"__keys__", b"whatever")
    places = {"rgb": "rgb/{key}"}
    report = import_features(store, "lmdb", tmp_path / "db", places=places, times=RATE)
    for key in "ab":
        np.testing.assert_array_equal(store["rgb"][key], rows)
    said = {video_id: what for video_id, _, what in report.failed}
    assert "pickle" in said["d"]
    assert "no dtype was given" in said["c"]
    assert report.left_out == ("1 keys that are of no slot",)
    import_features(
        store,
        "lmdb",
        tmp_path / "db",
        places=places,
        times=RATE,
        features={"rgb": "raw"},
        raw_dtype="float32",
        row_shapes={"rgb": (4,)},
    )
    np.testing.assert_array_equal(store["raw"]["c"], rows)


def tar_of(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            else:
                member.type, member.linkname = data
                tar.addfile(member)


def test_webdataset_tars(store, tmp_path):
    (tmp_path / "tars").mkdir()
    rows = np.random.default_rng(0).random((3, 4), np.float32)
    tar_of(
        tmp_path / "tars/shard-0.tar",
        [
            ("a.rgb.npy", npy_bytes(rows)),
            ("a.json", b"{}"),
            ("b.rgb.npy", npy_bytes(rows)[:-1]),
            ("b.pyd", pickle.dumps(rows)),
        ],
    )
    tar_of(
        tmp_path / "tars/shard-1.tar",
        [
            ("sub/c.rgb.npy", npy_bytes(rows)),
            ("a.rgb.npy", npy_bytes(rows)),
            ("../../evil.rgb.npy", npy_bytes(rows)),
            ("link.rgb.npy", (tarfile.SYMTYPE, "/etc/passwd")),
        ],
    )
    report = import_features(
        store, "webdataset", tmp_path / "tars", places={"rgb": "rgb.npy"}, times=RATE
    )
    assert store["rgb"].ids() == ["a", "sub/c"]
    np.testing.assert_array_equal(store["rgb"]["sub/c"], rows)
    ((video_id, _, what),) = report.failed
    assert video_id == "b"
    assert "shard-0.tar" in what
    left_out = " ".join(report.left_out)
    for said in ("b.pyd", "evil", "link.rgb.npy", "a second rgb.npy"):
        assert said in left_out
    assert [file["name"] for file in imported(store, "rgb")["files"]] == [
        "shard-0.tar",
        "shard-1.tar",
    ]
    with pytest.raises(UsageError, match="pickles would run code"):
        import_features(store, "webdataset", tmp_path / "tars", places={"rgb": "pyd"}, times=RATE)
    cut = tmp_path / "tars/shard-1.tar"
    cut.write_bytes(cut.read_bytes()[:700])
    report = import_features(
        store, "webdataset", tmp_path / "tars", places={"rgb": "rgb.npy"}, times=RATE
    )
    assert report.inactive  # other bytes, so another generation
    assert any("damaged tar" in entry for entry in report.left_out) or report.failed


def tsv_line(name, boxes, features, size=(200, 100)):
    fields = [name, *map(str, size), str(len(boxes))]
    fields += [base64.b64encode(a.astype("<f4").tobytes()).decode() for a in (boxes, features)]
    return "\t".join(fields) + "\n"


def test_bottom_up_lines(store, tmp_path):
    rng = np.random.default_rng(0)
    boxes = rng.random((3, 4)) * 100
    features = rng.random((3, 8), np.float32)
    lines = [
        tsv_line("gif_a/10", boxes, features),
        tsv_line("gif_b/1", boxes, features).replace("\t3\t", "\t4\t"),
        tsv_line("gif_a/2", boxes[:2], features[:2]),
        tsv_line("picture", boxes[:1], features[:1]),
        "no columns\n",
    ]
    (tmp_path / "x.tsv").write_text("".join(lines))
    report = import_features(
        store,
        "bottom-up-tsv",
        tmp_path / "x.tsv",
        times=RATE,
        row_shapes={"features": (3, 8)},
    )
    rows = store["objects"]["gif_a"]  # frames 2 and 10, in the order of their numbers
    np.testing.assert_array_equal(rows[1], features)
    np.testing.assert_array_equal(rows[0, :2], features[:2])
    assert not rows[0, 2].any()
    assert store["objects_num_boxes"]["gif_a"].ravel().tolist() == [2, 3]
    x0, y0, x1, y1 = boxes[0].astype(np.float32)
    expected = [x0 / 200, y0 / 100, x1 / 200, y1 / 100, (x1 - x0) / 200, (y1 - y0) / 100]
    np.testing.assert_allclose(store["objects_spatial"]["gif_a"][1, 0], expected, rtol=1e-5)
    assert store["objects_boxes"]["picture"].shape == (1, 3, 4)
    assert {video_id for video_id, _, _ in report.failed} == {"gif_b"}
    assert "says 4 boxes" in report.failed[0][2]
    assert report.left_out == ("x.tsv, line 5: no image_id",)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.99])
def test_an_lmdb_that_was_cut_off_is_refused(store, tmp_path, share):
    """Reading behind its end would kill the process."""
    with (
        lmdb.open(str(tmp_path / "db"), map_size=1 << 22) as environment,
        environment.begin(write=True) as transaction,
    ):
        for n in range(60):
            transaction.put(b"v%d" % n, npy_bytes(np.ones((2, 1000), np.float32)))
    path = tmp_path / "db" / "data.mdb"
    size = path.stat().st_size
    os.truncate(path, int(share * size) // 4096 * 4096)
    with pytest.raises(UsageError, match=f"data.mdb has .* expected {size}"):
        import_features(store, "lmdb", tmp_path / "db", places={"x": "{key}"}, times=RATE)
