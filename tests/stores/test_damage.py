"""Damaged bytes are noticed, by reading or by `verify`, and never come back as rows."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import StoreDamaged, UsageError, VlpipeError

IDS = ["a", "b", "c"]


@pytest.fixture
def small_store(tmp_path, samples):
    """A store with a checkpoint, entries after it, failures, deletions and a tag."""
    store = FeatureStore.create(tmp_path / "small", durability="process")
    samples.write(store, ["a", "gone"], samples.audio)
    with store.writer([samples.audio]) as writer:
        writer.fail("bad", None, "decode", "no frames")
    store.delete(["gone"])
    store.checkpoint()
    samples.write(store, ["b", "c"], samples.audio)
    store.tag("baseline")
    return store


def _notices(url, samples):
    """Whether the damage is noticed; fails the test when wrong rows come back."""
    try:
        store = FeatureStore.open(url)
        report = store.verify()
        is_noticed = not report.is_sound or bool(report.past_damage)
        for video_id in IDS:
            expected = samples.rows(samples.audio, video_id)
            try:
                rows, spans = store["audio"].read(video_id, with_spans=True)
            except StoreDamaged as error:
                is_noticed = url in str(error)
                continue
            np.testing.assert_array_equal(rows, expected.rows)
            np.testing.assert_array_equal(spans, expected.spans)
        assert store.status(samples.audio, ["bad"])["bad"].standing == "failed"
        assert store.status(samples.audio, ["gone"])["gone"].standing == "deleted"
        FeatureStore.open(url, "baseline")
    except VlpipeError:
        return True
    return is_noticed


def _files(store):
    root = Path(store.url)
    hint = root / "ckpt" / "latest.json"
    return sorted(path for path in root.rglob("*") if path.is_file() and path != hint)


@pytest.mark.slow
def test_every_flip_is_noticed(small_store, samples):
    rng = np.random.default_rng(0)
    for path in _files(small_store):
        sound = path.read_bytes()
        positions = {0, len(sound) - 1, *rng.integers(0, len(sound), 5).tolist()}
        if path.parent.name in ("rows", "spans"):  # each region of a row file, not only its header
            positions |= {9, 60, 4095, 4096, 4100, *range(4096, len(sound), 61)}
        for position in sorted(position for position in positions if position < len(sound)):
            damaged = bytearray(sound)
            damaged[position] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(damaged)
            assert _notices(small_store.url, samples), f"{path} at {position}"
        path.write_bytes(sound)
    assert not _notices(small_store.url, samples)


@pytest.mark.slow
def test_sampled_flips_of_a_compacted_store(small_store, samples):
    """Bytes all over parts, manifests and ledger; VLPIPE_DAMAGED_PLACES chooses how many."""
    small_store.compact()
    rng = np.random.default_rng(1)
    files = _files(small_store)
    ends = np.cumsum([path.stat().st_size for path in files])
    num_places = int(os.environ.get("VLPIPE_DAMAGED_PLACES", "150"))
    for place in rng.choice(ends[-1], num_places, replace=False).tolist():
        number = int(np.searchsorted(ends, place, "right"))
        path, offset = files[number], place - (int(ends[number - 1]) if number else 0)
        sound = path.read_bytes()
        damaged = bytearray(sound)
        damaged[offset] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        assert _notices(small_store.url, samples), f"{path} at {offset}"
        path.write_bytes(sound)
    assert not _notices(small_store.url, samples)


def test_every_lost_or_shortened_file_is_noticed(small_store, samples):
    for number, path in enumerate(_files(small_store)):
        sound = path.read_bytes()
        kinds = (None, b"", sound[:-1], sound[: len(sound) // 2], sound + b"x")
        for damaged in {None, kinds[1 + number % 4], kinds[1 + (number + 1) % 4]}:
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            is_needed = damaged is not None or path.name not in ("checkpoint.json", "baseline.json")
            assert _notices(small_store.url, samples) or not is_needed, f"{path}: {damaged!r:.20}"
            path.write_bytes(sound)


def test_messages_name_store_part_and_video(small_store, samples):
    part = next(p for p in _files(small_store) if p.parent.name == "rows" and p.name == "c.0.0.0")
    data = bytearray(part.read_bytes())
    data[4096] ^= 1
    part.write_bytes(data)
    video_id = "a" if "a" in (part.parents[1] / "video_id" / "c.0").read_text("latin1") else "b"
    reader = FeatureStore.open(small_store.url)["audio"]
    with pytest.raises(StoreDamaged, match=f"video '{video_id}'.*{part.parents[1].name}") as caught:
        reader[video_id]
    assert small_store.url in str(caught.value)
    assert caught.value.exit_code == 4
    report = small_store.verify()
    assert [(p.area, p.video_id, p.part) for p in report.problems] == [
        ("video", video_id, part.parents[1].name)
    ]
    assert small_store.verify(deep=False).is_sound


@pytest.mark.folder
def test_verification_of_single_reads(store, samples):
    samples.write(store, ["a"], samples.audio)
    reader = store["audio"]
    reader["a"]
    path = next(p for p in _files(store) if p.parent.name == "rows" and p.name.startswith("c"))
    data = bytearray(path.read_bytes())
    data[4096] ^= 1
    path.write_bytes(data)
    reader["a"]  # was compared before, in this process
    reader.read("a", verify="never")
    reader.read("a", rows=[2], verify="never")
    for rows in (None, [2], slice(1, 2)):
        with pytest.raises(StoreDamaged, match="checksum"):
            reader.read("a", rows=rows, verify="always")
        with pytest.raises(StoreDamaged, match="checksum"):
            FeatureStore.open(store.url)["audio"].read("a", rows=rows)
    with pytest.raises(StoreDamaged, match="checksum"):
        FeatureStore.open(store.url)["audio"].dask("a").compute(scheduler="sync")


@pytest.mark.folder
def test_a_gap_in_the_ledger(store, samples):
    for video_id in IDS:
        samples.write(store, [video_id])
    (Path(store.url) / "log" / f"{2:020d}.json").unlink()
    with pytest.raises(StoreDamaged, match=r"0002\.json is missing, but entry 3 exists") as caught:
        FeatureStore.open(store.url)
    assert "version=1" in str(caught.value)
    before = FeatureStore.open(store.url, 1)
    samples.check(before, ["a"])
    assert [p.area for p in before.verify().problems] == ["gap"]
    assert before.log()[-1].version == 1


@pytest.mark.folder
def test_mixed_histories(store, samples, tmp_path):
    samples.write(store, ["a"])
    shutil.copytree(store.url, tmp_path / "backup")
    other = FeatureStore.open(tmp_path / "backup")
    samples.write(store, ["b"])
    samples.write(other, ["x"])
    samples.write(other, ["y"])
    name = f"log/{3:020d}.json"
    shutil.copy(Path(other.url) / name, Path(store.url) / name)
    with pytest.raises(StoreDamaged, match="two histories of this store are mixed"):
        FeatureStore.open(store.url)


def test_a_damaged_checkpoint_is_skipped(small_store, samples, caplog):
    manifest = next(p for p in _files(small_store) if p.suffix == ".arrow")
    manifest.write_bytes(manifest.read_bytes()[:-9] + b"\0" * 9)
    store = FeatureStore.open(small_store.url)
    assert "a checkpoint is skipped" in caplog.text
    samples.check(store, IDS, samples.audio)
    assert [problem.area for problem in store.verify().problems] == ["checkpoint"]


def test_lost_rows_can_be_made_again(small_store, samples):
    part = next(p for p in _files(small_store) if p.parent.name == "rows" and p.name == "c.0.0.0")
    part.write_bytes(part.read_bytes()[:4100])
    store = FeatureStore.open(small_store.url)
    lost = [p.video_id for p in store.verify().problems if p.area == "video"]
    assert lost
    samples.write(store, lost, samples.audio, mode="replace")
    samples.check(store, IDS, samples.audio)
    assert store.verify().is_sound


def test_versions_below_zero(store):
    with pytest.raises(UsageError, match="versions count from 0"):
        FeatureStore.open(store.url, -1)
