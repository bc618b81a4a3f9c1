"""Writing, reading, and the rules of what a commit does."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from vlpipe.stores import FeatureDefinition, Features, FeatureStore, batch_parts
from vlpipe.stores.commit import commit
from vlpipe.stores.errors import (
    FeatureMissing,
    RowsRefused,
    SnapshotGone,
    StoreDamaged,
    StoreNotFound,
    StoreTooNew,
    UsageError,
    VideoMissing,
)
from vlpipe.stores.history import load_state
from vlpipe.stores.sealed_json import seal
from vlpipe.stores.storage import open_storage


def test_what_is_written_is_read(any_store, samples):
    receipt = samples.write(any_store, ["b", "a"])
    assert (receipt.version, receipt.added, receipt.failed) == (1, 4, 0)
    samples.check(any_store, ["a", "b"])
    again = FeatureStore.open(any_store.url)
    samples.check(again, ["a", "b"])
    again.checkpoint()
    samples.check(FeatureStore.open(any_store.url), ["a", "b"])
    info = again.features["rgb"]
    assert (info.num_videos, info.num_rows, info.num_bytes) == (2, 8, 96)
    assert info.is_untrained
    assert info.time_units == "seconds"
    assert not again.features["audio"].is_untrained
    assert "rgb" in again
    assert "nonsense" not in again
    assert "a" in again["rgb"]
    assert list(again["rgb"]) == ["a", "b"]
    assert len(again["rgb"]) == 2


def test_row_selections(store, samples):
    with store.writer([samples.rgb]) as writer:
        writer.add("a", {"rgb": samples.rows(samples.rgb, "a", 50)})
    rows = samples.rows(samples.rgb, "a", 50).rows
    reader = store["rgb"]
    for selection in (
        slice(3, 9),
        slice(None, None, 7),
        slice(40, 99),
        slice(9, 3),
        slice(8, 2, -2),
    ):
        np.testing.assert_array_equal(reader.read("a", rows=selection), rows[selection])
    for selection in ([0], [5, 6, 7, 2, -1], [], np.array([3, 3])):
        found = reader.read("a", rows=selection)
        np.testing.assert_array_equal(found, rows[np.asarray(selection, int)])
    with pytest.raises(IndexError, match="50 rows"):
        reader.read("a", rows=[50])
    part, spans = reader.read("a", rows=[1, 4], with_spans=True)
    assert part.shape == (2, 6)
    assert spans.tolist() == [[1, 2.5], [4, 5.5]]


def test_dask(store, samples):
    samples.write(store, ["a"])
    lazy = store["audio"].dask("a")
    expected = samples.rows(samples.audio, "a").rows
    assert lazy.shape == expected.shape
    assert lazy.dtype == expected.dtype
    np.testing.assert_array_equal(lazy[1:3].compute(scheduler="threads"), expected[1:3])


def test_facts_of_a_video(any_store, samples):
    with any_store.writer([samples.rgb], run="a run", batch="0123456789abcdef") as writer:
        writer.add(
            "a",
            {"rgb": samples.rows(samples.rgb, "a")},
            source="ab" * 32,
            seconds=1.25,
            source_size=12,
            source_mtime_ns=10**18,
        )
        writer.add("b", {"rgb": samples.rows(samples.rgb, "b", 0)}, note="no_audio")
    for _ in range(2):
        a, b = any_store.videos().to_pylist()
        assert a == {
            "video_id": "a",
            "feature": "rgb",
            "generation": samples.rgb.generation,
            "is_active": True,
            "rows": 4,
            "seconds": 1.25,
            "source": "ab" * 16,
            "source_size": 12,
            "source_mtime_ns": 10**18,
            "note": None,
            "version": 1,
            "part": a["part"],
        }
        assert a["part"].startswith("0123456789abcdef-")
        assert (b["rows"], b["note"], b["source"]) == (0, "no_audio", None)
        status = any_store.status(samples.rgb, ["a", "b", "c"])
        assert [s.standing for s in status.values()] == ["stored", "stored", "absent"]
        assert status["a"].source == "ab" * 16
        assert (status["a"].source_size, status["a"].source_mtime_ns) == (12, 10**18)
        assert status["b"].note == "no_audio"
        any_store.checkpoint()  # the second time from tables
        any_store = FeatureStore.open(any_store.url)
    (entry,) = any_store.log()
    assert entry.run == "a run"
    assert entry.operations[-1] == f"add rgb@{samples.rgb.generation} 2 videos"


def test_keep_and_replace(any_store, samples):
    samples.write(any_store, ["a"], samples.rgb)
    other = Features(np.ones((2, 6)), np.array([[0, 1], [1, 2.0]]))
    with any_store.writer([samples.rgb]) as writer:
        writer.add("a", {"rgb": other})
    assert (writer.receipt.added, writer.receipt.kept, writer.receipt.version) == (0, 1, 1)
    assert any_store.version == 1  # nothing left to commit
    assert any_store.verify().orphan_parts == []
    with any_store.writer([samples.rgb], mode="replace") as writer:
        writer.add("a", {"rgb": other})
    assert writer.receipt.added == 1
    assert any_store["rgb"]["a"].shape == (2, 6)


def test_failures(any_store, samples):
    with any_store.writer([samples.rgb, samples.audio]) as writer:
        writer.add("a", {"rgb": samples.rows(samples.rgb, "a")})
        writer.fail("a", None, "no_audio_track", "it is silent", retry=True)
        writer.fail("b", ["rgb"], "decode", "x" * 1000)
    assert writer.receipt.failed == 2
    assert "a" in any_store["rgb"]
    with pytest.raises(VideoMissing, match=r"failed \(no_audio_track\) at attempt 1: it is silent"):
        any_store["audio"]["a"]
    failed = {(row["video_id"], row["feature"]): row for row in any_store.failed().to_pylist()}
    assert len(failed["b", "rgb"]["message"]) == 500
    with any_store.writer([samples.rgb, samples.audio]) as writer:
        writer.fail("a", ["rgb", "audio"], "decode", "again")  # rgb is stored: stays
    assert (writer.receipt.failed, writer.receipt.kept) == (1, 1)
    any_store.checkpoint()
    any_store = FeatureStore.open(any_store.url)
    status = any_store.status(samples.audio, ["a"])["a"]
    assert (status.standing, status.kind, status.attempt, status.retry) == (
        "failed",
        "decode",
        2,
        False,
    )
    samples.write(any_store, ["a"], samples.audio)  # a success supersedes the failure
    assert any_store.status(samples.audio, ["a"])["a"].standing == "stored"
    assert [row["video_id"] for row in any_store.failed().to_pylist()] == ["b"]


def test_deleted_videos_stay_away(any_store, samples):
    samples.write(any_store, ["a", "b"])
    straggler = any_store.writer([samples.rgb], mode="replace")
    version = any_store.delete(["a", "never seen"], reason="asked for")
    with pytest.raises(VideoMissing, match=rf"deleted by version {version} \(asked for\)"):
        any_store["rgb"]["a"]
    with straggler as writer:
        writer.add("a", {"rgb": samples.rows(samples.rgb, "a")})
        writer.fail("never seen", None, "decode", "too late")
    assert (writer.receipt.added, writer.receipt.deleted) == (0, 2)
    any_store.checkpoint()
    any_store = FeatureStore.open(any_store.url)
    assert any_store.status(samples.rgb, ["a"])["a"].standing == "deleted"
    samples.check(any_store, ["b"])
    samples.write(any_store, ["a"], samples.rgb, restore=True)
    samples.check(any_store, ["a", "b"], samples.rgb)
    assert any_store.status(samples.audio, ["a"])["a"].standing == "deleted"
    any_store.restore(["a"])
    assert any_store.status(samples.audio, ["a"])["a"].standing == "absent"


def test_delete_from_one_feature(any_store, samples):
    samples.write(any_store, ["a", "b"])
    any_store.delete(["a"], ["rgb"])
    samples.check(any_store, ["b"], samples.rgb)
    samples.check(any_store, ["a", "b"], samples.audio)
    with pytest.raises(FeatureMissing, match="audio, rgb"):
        any_store.delete(["a"], ["nonsense"])


def test_generations(any_store, samples):
    old, new = samples.definition("clip", version=1), samples.definition("clip", version=2)
    samples.write(any_store, ["a", "b"], old)
    samples.write(any_store, ["a"], new)
    samples.check(any_store, ["a", "b"], old)
    assert any_store["clip"].info.generation == old.generation
    assert [info.is_active for info in any_store.generations("clip")] == [True, False]
    with pytest.raises(UsageError, match="lacks 1 of 2 videos, among them b"):
        any_store.activate("clip", new.generation)
    any_store.activate("clip", new.generation, allow_missing=True)
    assert any_store["clip"].info.generation == new.generation
    version = any_store.version
    any_store.activate("clip", new.generation)
    assert any_store.version == version
    any_store.drop("clip", old.generation)
    with pytest.raises(FeatureMissing, match="it has: clip"):
        any_store[f"clip@{old.generation}"]
    any_store.drop("clip", new.generation)
    assert any_store.features == {}
    with pytest.raises(FeatureMissing, match="it has: none"):
        any_store["clip"]
    samples.write(any_store, ["b"], old)  # a writer that begins after the drop may define it anew
    samples.check(any_store, ["b"], old)


def test_activation_by_the_writer(any_store, samples):
    old, new = samples.definition("clip", version=1), samples.definition("clip", version=2)
    samples.write(any_store, ["a"], old, activate=False)
    assert any_store.features == {}
    samples.write(any_store, ["a"], new)
    assert any_store["clip"].info.generation == new.generation
    samples.write(any_store, ["a"], old, activate=True)  # kept, and activated all the same
    assert any_store["clip"].info.generation == old.generation


def test_a_generation_dropped_while_it_is_written(any_store, samples):
    samples.write(any_store, ["a"], samples.rgb)

    def write():
        with any_store.writer([samples.rgb]) as writer:
            writer.add("b", {"rgb": samples.rows(samples.rgb, "b")})
            FeatureStore.open(any_store.url).drop("rgb", samples.rgb.generation)

    with pytest.raises(UsageError, match="dropped by entry 2 while it was written"):
        write()
    any_store.refresh()
    assert any_store.version == 2


def test_an_exception_abandons_the_batch(any_store, samples):
    def write():
        with any_store.writer([samples.rgb]) as writer:
            writer.add("a", {"rgb": samples.rows(samples.rgb, "a")})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert any_store.refresh() == 0
    assert any_store.verify().orphan_parts == []


def test_a_subset_of_features(any_store, samples):
    with any_store.writer([samples.rgb, samples.audio]) as writer:
        writer.add("a", {"rgb": samples.rows(samples.rgb, "a")})
        writer.add("a", {"audio": samples.rows(samples.audio, "a")})
    samples.check(any_store, ["a"])
    assert any_store.version == 1


BAD_ROWS = {
    "overflow": (np.full((2, 6), 70_000.0), "70000.0 does not fit into float16"),
    "nan": (np.full((2, 6), np.nan), "nan is not finite"),
    "infinite": (np.full((2, 6), -np.inf, "f4"), "-inf is not finite"),
    "shape": (np.zeros((2, 5)), r"has the shape \(5,\), expected \(6,\)"),
    "kind": (np.full((2, 6), "x"), "expected numbers"),
    "inexact": (np.full((2, 6), 4097), "cannot hold these int64 values exactly"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_rows_that_are_refused(store, samples, name):
    rows, message = BAD_ROWS[name]
    spans = np.array([[0, 1], [1, 2.0]])
    with store.writer([samples.audio, samples.rgb]) as writer:
        with pytest.raises(ValueError, match=message) as caught:
            writer.add(
                "odd", {"audio": samples.rows(samples.audio, "odd"), "rgb": Features(rows, spans)}
            )
        assert isinstance(caught.value, RowsRefused)
        assert "video 'odd', feature 'rgb'" in str(caught.value)
        writer.fail("odd", None, "refused", str(caught.value))
        writer.add("good", {"rgb": samples.rows(samples.rgb, "good")})
    assert (writer.receipt.added, writer.receipt.failed) == (1, 2)


@pytest.mark.parametrize("spans", [[[0, 1], [1, np.nan]], [[2, 3], [1, 2]], [[1, 0], [1, 2]]])
def test_spans_that_are_refused(store, samples, spans):
    with store.writer([samples.rgb]) as writer, pytest.raises(RowsRefused, match="spans"):
        writer.add("a", {"rgb": Features(np.zeros((2, 6)), np.array(spans, float))})


def test_integers(store, samples):
    definition = samples.definition("tokens", "uint8")
    spans = np.array([[0, 1.0]])
    with store.writer([definition]) as writer:
        writer.add("a", {"tokens": Features(np.array([[0, 9, 255]]), spans)})
        for rows, message in (([[0, 1, 256]], "from 0 to 256"), ([[0.5, 1, 2]], "dtype float64")):
            with pytest.raises(RowsRefused, match=message):
                writer.add("b", {"tokens": Features(np.array(rows), spans)})
    assert store["tokens"]["a"].tolist() == [[0, 9, 255]]
    assert store["tokens"]["a"].dtype == np.uint8


def test_largest_float16_and_one_dimension(store):
    definition = FeatureDefinition("level", "float16", (), ())
    with store.writer([definition]) as writer:
        writer.add("a", {"level": Features(np.array([65504.0, -1]), np.array([[0, 1], [1, 2.0]]))})
    assert store["level"]["a"].tolist() == [65504, -1]
    assert store.verify().problems == []


@pytest.mark.parametrize("video_id", ["", "a\nb", "\x7f", "x" * 1025, "\ud800", "\u00e9" * 513])
def test_ids_that_are_refused(store, samples, video_id):
    with store.writer([samples.rgb]) as writer, pytest.raises(ValueError, match="video id"):
        writer.add(video_id, {"rgb": samples.rows(samples.rgb, "a")})


def test_misuse_of_a_writer(store, samples):
    rows = samples.rows(samples.rgb, "a")
    with store.writer([samples.rgb]) as writer:
        writer.add("a", {"rgb": rows})
        with pytest.raises(ValueError, match="added twice"):
            writer.add("a", {"rgb": rows})
        with pytest.raises(ValueError, match=r"not one of this writer: \['rgb'\]"):
            writer.add("a", {"nonsense": rows})
        with pytest.raises(ValueError, match="without features"):
            writer.add("b", {})
        with pytest.raises(ValueError, match="digest"):
            writer.add("b", {"rgb": rows}, source="abc")
        with pytest.raises(ValueError, match="receipt"):
            _ = writer.receipt
    with pytest.raises(ValueError, match="inside its with block"):
        writer.add("b", {"rgb": rows})
    with pytest.raises(ValueError, match="dtype 'complex64'"):
        store.writer([FeatureDefinition("x", "complex64", (), ())])
    with pytest.raises(ValueError, match="16 hex digits"):
        store.writer([samples.rgb], batch="xyz")


def test_pickle_keeps_the_version(any_store, samples):
    samples.write(any_store, ["a"], samples.rgb)
    store, reader = pickle.loads(pickle.dumps((any_store, any_store["rgb"])))
    samples.write(any_store, ["b"], samples.rgb)
    assert (store.version, reader.ids()) == (1, ["a"])
    samples.check(store, ["a"], samples.rgb)
    samples.write(store, ["c"], samples.rgb)
    samples.check(store, ["a", "b", "c"], samples.rgb)


def test_never_written_and_unknown_features(store, samples):
    samples.write(store, ["a"])
    with pytest.raises(VideoMissing, match="never written"):
        store["rgb"]["z"]
    with pytest.raises(FeatureMissing, match="'i3d'; it has: audio, rgb"):
        store["i3d"]
    with pytest.raises(KeyError):
        store["rgb"]["z"]


def test_digest_depends_on_content_alone(tmp_path, samples):
    ids = [f"v{i}" for i in range(20)]
    one = FeatureStore.create(tmp_path / "one")
    samples.write(one, ids)
    two = FeatureStore.create(f"file://{tmp_path}/two", durability="process")
    for video_id in reversed(ids):
        samples.write(two, [video_id])
    two.checkpoint()
    samples.write(two, ["more"], samples.rgb)
    two.delete(["more"])
    assert one.digest("rgb") == two.digest("rgb") == FeatureStore.open(two.url).digest("rgb")
    two.delete(["v3"])
    assert one.digest("rgb") != two.digest("rgb")


def test_parts_are_closed_when_full(store, samples, monkeypatch):
    monkeypatch.setattr(batch_parts, "PART_MAX_VIDEOS", 3)
    ids = [f"v{i}" for i in range(8)]
    samples.write(store, ids)
    samples.check(store, ids)
    report = store.verify()
    assert (report.num_parts, report.problems, store.version) == (6, [], 1)
    with store.writer([samples.rgb]) as writer:
        for video_id in ("x", "y", "z"):
            writer.add(video_id, {"rgb": samples.rows(samples.rgb, video_id)})
        with pytest.raises(ValueError, match="added twice"):
            writer.add("x", {"rgb": samples.rows(samples.rgb, "x")})


def test_opening_what_is_not_a_store(tmp_path, store):
    with pytest.raises(StoreNotFound, match="no feature store at"):
        FeatureStore.open(tmp_path / "nothing")
    with pytest.raises(UsageError, match="already"):
        FeatureStore.create(store.url)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"not empty: it holds thesis\.tex"):
        FeatureStore.open_or_create(tmp_path / "full")
    with pytest.raises(UsageError, match="scheme 'gopher'"):
        FeatureStore.open("gopher://x")
    with pytest.raises(ValueError, match="durability"):
        FeatureStore.open(store.url, durability="none")
    assert FeatureStore.open_or_create(store.url).version == 0


def test_newer_formats_are_refused(tmp_path, samples):
    def add_op(url, op):
        storage = open_storage(url)
        commit(storage, load_state(storage), lambda _: [op])

    store = FeatureStore.create(tmp_path / "a")
    add_op(store.url, {"op": "require", "min_reader": 1, "min_writer": 2})
    assert store.refresh() == 1
    with pytest.raises(StoreTooNew, match="format 2"):
        samples.write(store, ["a"])
    store.checkpoint()
    with pytest.raises(StoreTooNew, match="upgrade vlpipe"):
        samples.write(FeatureStore.open(store.url), ["a"])
    for number, op in enumerate(
        (
            {"op": "require", "min_reader": 2, "min_writer": 2},
            {"op": "unheard_of"},
            {"op": "add", "table": {}},
        )
    ):
        other = FeatureStore.create(tmp_path / f"b{number}")
        with pytest.raises(StoreTooNew):
            add_op(other.url, op)
        with pytest.raises(StoreTooNew):
            FeatureStore.open(other.url)
    body = {"format": "vlpipe-store", "format_version": 2}
    (tmp_path / "a" / "vlpipe-store.json").write_bytes(seal(body))
    with pytest.raises(StoreTooNew, match="store format 2"):
        FeatureStore.open(tmp_path / "a")


@pytest.mark.folder
def test_collected_versions(store, samples):
    samples.write(store, ["a"], samples.rgb)
    past = FeatureStore.open(store.url, 1)
    store.delete(["a"])
    shutil.rmtree(Path(store.url) / "data" / "rgb")
    with pytest.raises(SnapshotGone, match=r"version 1 .* were collected; the newest version is 2"):
        past["rgb"]["a"]
    other = FeatureStore.create(f"{store.url}-2")
    samples.write(other, ["a"], samples.rgb)
    shutil.rmtree(Path(other.url) / "data" / "rgb")
    with pytest.raises(StoreDamaged, match="has lost a file"):
        other["rgb"]["a"]


def test_marks_for_all_features_are_lifted_as_a_whole(any_store, samples):
    samples.write(any_store, ["a"], samples.rgb)
    any_store.delete(["a"])
    with pytest.raises(UsageError, match="'a' was deleted from all features"):
        any_store.restore(["a"], ["rgb"])
    any_store.restore(["a"])
    samples.write(any_store, ["a"], samples.rgb)
    any_store.delete(["a"], ["rgb"])
    any_store.restore(["a"], ["rgb"])
    with pytest.raises(TypeError, match="a list of ids"):
        any_store.delete("a")
