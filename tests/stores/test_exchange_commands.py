"""`vlpipe store export`, `import` and `layouts` as a user types them."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from exchange_samples import IDS, KEYS, key_table, make_store, rows_of

from vlpipe.pipelines.cli import run
from vlpipe.stores import FeatureStore


def call(capfd, *words):
    code = run([str(word) for word in words])
    out, err = capfd.readouterr()
    return code, out, err


def test_export_and_import_round_trip(tmp_path, capfd):
    make_store(tmp_path / "store", ["resnet152", "i3d_resnet50"]).close()
    table = key_table(tmp_path / "Test_count_question.csv")
    words = ("store", "export", tmp_path / "store", "--layout", "masn", "--to", tmp_path / "out")
    code, out, err = call(capfd, *words, "--keys", table)
    assert code == 0
    assert "res152_avgpool.hdf5" in out
    assert "export: 3 of 3 videos" in err
    assert "regions (objects)" in err
    code, out, _ = call(capfd, *words, "--keys", table, "--json")
    report = json.loads(out)
    assert (code, report["is_repeat"], report["schema_version"]) == (0, True, 1)
    assert report["written"] == {"appearance": 3, "motion": 3}

    words = ("store", "import", tmp_path / "back", "--layout", "masn", "--from", tmp_path / "out")
    code, _, err = call(capfd, *words, "--keys", table)
    assert code == 2
    assert "--rate" in err
    words = (*words, "--keys", table, "--rate", "2", "--dtype", "float16")
    code, out, _ = call(capfd, *words, "--json")
    report = json.loads(out)
    assert (code, report["added"], report["failed"]) == (0, 6, [])
    with FeatureStore.open(tmp_path / "back") as store:
        assert store["resnet152"].info.dtype == "float16"
        assert store["resnet152"].info.provenance["imported"]["name"] == "out"
        np.testing.assert_array_equal(
            store["resnet152"]["tumblr_c"], rows_of("resnet152", "tumblr_c", 4)
        )
    code, out, _ = call(capfd, *words)
    assert code == 0
    assert "stored before" in out


def test_failures_are_named_and_make_the_exit_code_1(tmp_path, capfd):
    (tmp_path / "npy").mkdir()
    np.save(tmp_path / "npy/a.npy", np.ones((2, 3), np.float32))
    (tmp_path / "npy/b.npy").write_bytes(b"nothing")
    words = ("store", "import", tmp_path / "store", "--layout", "npy", "--from", tmp_path / "npy")
    words = (*words, "--place", "rgb={key}.npy", "--rate", "rgb=1.5")
    code, _, err = call(capfd, *words)
    assert code == 1
    assert "b (rgb): " in err
    code, out, _ = call(capfd, *words, "--json")
    (failure,) = json.loads(out)["failed"]
    assert (code, failure["video"], failure["slot"]) == (1, "b", "rgb")


TWICE = "--place a={key}.npy --place b={key}.npy"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "STORE", "--layout", "masm", "--to", "x"], "nearest: masn"),
        (["export", "nowhere", "--layout", "masn", "--to", "x"], "nowhere"),
        (["export", "STORE", "--layout", "masn", "--to", "x", "--place", "rgb"], "NAME=VALUE"),
        (["export", "STORE", "--layout", "masn", "--to", "x", "--pad", "a=b"], "no number of rows"),
        (["export", "STORE", "--layout", "masn", "--to", "x", "--keys", "no.csv"], "no.csv"),
        (["import", "STORE", "--layout", "masn", "--from", "nowhere"], "nothing at nowhere"),
        (["import", "new", "--layout", "mason", "--from", "."], "nearest: masn"),
        (["import", "STORE", "--layout", "bmt", "--from", ".", "--rate", "fast"], "no rate"),
        (["import", "STORE", "--layout", "bmt", "--from", ".", "--spans", "no.npz"], "no.npz"),
        (
            ["import", "STORE", "--layout", "bmt", "--from", ".", "--dtype", "words"],
            "expected one of",
        ),
        (["import", "STORE", "--layout", "lmdb", "--from", ".", "--raw-dtype", "O"], "'O' is"),
        (
            ["export", "STORE", "--layout", "hdf5", "--to", "x", "--place", "a=../b.h5:/{key}"],
            "leads out",
        ),
        (
            ["export", "STORE", "--layout", "hdf5", "--to", "x", "--place", "a=/b.h5:/{key}"],
            "leads out",
        ),
        (
            f"export STORE --layout npy --to x {TWICE}".split(),
            "more than one slot",
        ),
        (
            f"import STORE --layout npy --from . {TWICE}".split(),
            "more than one slot",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_exit_code_2_with_a_hint(words, said, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "STORE", ["i3d_rgb"]).close()
    code, out, err = call(capfd, "store", *words)
    assert code == 2
    assert said in err.replace("\n", " ")
    assert "Traceback" not in err
    assert not out
    assert not (tmp_path / "new").exists()


def test_layouts_are_listed(capfd):
    code, out, _ = call(capfd, "store", "layouts")
    assert code == 0
    for name in ("masn", "bmt", "mdvc", "jsfusion", "tgif-qa", "webdataset", "vlpipe-hdf5"):
        assert name in out
    code, out, _ = call(capfd, "store", "layouts", "--json")
    layouts = {entry["layout"]: entry for entry in json.loads(out)["layouts"]}
    assert layouts["masn"]["export"]
    assert not layouts["lmdb"]["export"]
    assert layouts["masn"]["slots"][1]["rows"] == "(T, 10, 2048)"


def test_one_file_is_a_store_for_the_commands_that_read(tmp_path, capfd):
    names = ["i3d_rgb", "vggish"]
    make_store(tmp_path / "store", names).close()
    store, file = str(tmp_path / "store"), str(tmp_path / "one/features.hdf5")
    one = ("--layout", "vlpipe-hdf5", "--to", str(tmp_path / "one"))
    assert call(capfd, "store", "export", store, *one)[0] == 0

    def said(*words):
        code, out, _ = call(capfd, "store", *words, "--json")
        assert code == 0
        return json.loads(out)

    found, expected = said("ls", file), said("ls", store)
    assert found["features"] == expected["features"]
    videos = [said("ls", url, "--videos")["videos"] for url in (file, store)]
    for row in (*videos[0], *videos[1]):
        del row["part"], row["version"]
    assert videos[0] == videos[1]
    report = said("verify", file)
    assert report["is_sound"]
    assert report["num_bytes"] == sum(
        feature["bytes"] + 16 * feature["rows"] for feature in found["features"]
    )
    for url, folder in ((file, "again"), (store, "first")):
        there = ("--layout", "hdf5", "--to", str(tmp_path / folder))
        place = ("--feature", "a=i3d_rgb", "--place", "a=a.hdf5:/{key}")
        assert call(capfd, "store", "export", url, *there, *place)[0] == 0
    pairs = [(tmp_path / folder / "a.hdf5") for folder in ("again", "first")]
    with h5py.File(pairs[0]) as again, h5py.File(pairs[1]) as first:
        assert sorted(again) == sorted(first)
        for key in first:
            np.testing.assert_array_equal(again[key][...], first[key][...])
    for words in (("rm", file, "--video", "tumblr_a"), ("gc", file), ("compact", file)):
        code, _, err = call(capfd, "store", *words)
        assert code == 2
        assert "never changed" in err
        assert "vlpipe store import" in err


def test_videos_that_several_features_lack_are_named_once(tmp_path, capfd):
    names = ["i3d_rgb", "objects_spatial", "vggish"]
    store = make_store(
        tmp_path / "store",
        names,
        num_rows=lambda name, n: None if n == 1 and name != "vggish" else 2,
    )
    store.close()
    there = ("--layout", "vlpipe-hdf5", "--to", str(tmp_path / "out"))
    code, _, err = call(capfd, "store", "export", str(tmp_path / "store"), *there)
    assert code == 0
    assert "no rows of i3d_rgb, objects_spatial: 1" in err
    assert err.count(IDS[1]) == 1


def test_damage_of_the_store_is_exit_code_4(tmp_path, capfd):
    make_store(tmp_path / "store", ["i3d_rgb"]).close()
    (rows,) = (tmp_path / "store").glob("data/i3d_rgb/*/*/rows/c.0.0")
    data = bytearray(rows.read_bytes())
    data[5000] ^= 1
    rows.write_bytes(data)
    words = ("store", "export", tmp_path / "store", "--layout", "bmt", "--to", tmp_path / "out")
    code, _, err = call(capfd, *words)
    assert code == 4
    assert IDS[0] in err


@pytest.mark.parametrize(("library", "layout"), [("h5py", "masn"), ("lmdb", "lmdb")])
def test_a_missing_library_is_exit_code_3(library, layout, tmp_path):
    make_store(tmp_path / "store", ["resnet152"]).close()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/res152_avgpool.hdf5").write_bytes(b"")
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from vlpipe.pipelines.cli import run\n"
        f"sys.exit(run(['store', 'import', {str(tmp_path / 'store')!r}, '--layout', {layout!r},"
        f" '--from', {str(tmp_path / 'in')!r}"
        + (", '--place', 'a={key}'" if layout == "lmdb" else "")
        + "]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert f"pip install {library}" in done.stderr


def test_keys_have_prefixes(tmp_path, capfd):
    make_store(tmp_path / "store", ["i3d_rgb"]).close()
    words = ("store", "export", tmp_path / "store", "--layout", "bmt", "--to", tmp_path / "out")
    code, _, _ = call(
        capfd, *words, "--key-prefix", "vid", "--id", "tumblr_a",
        "--keys", key_table(tmp_path / "t.csv"),
    )  # fmt: skip
    assert code == 0
    (path,) = (tmp_path / "out").rglob("*.npy")
    assert path.name == f"vid{KEYS['tumblr_a']}_rgb.npy"
