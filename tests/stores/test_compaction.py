"""Compaction, repair, collection of history, and snapshots by time."""

import os
import random
import shutil
import threading
import warnings
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import zarr
from store_places import PLACES

from vlpipe.stores import FeatureStore, compaction
from vlpipe.stores.errors import SnapshotGone, StoreDamaged, UsageError, VideoMissing
from vlpipe.stores.garbage import collect_garbage
from vlpipe.stores.history import load_state
from vlpipe.stores.storage import open_storage

IDS = [f"v{i:02d}" for i in range(24)]


@pytest.fixture(params=PLACES)
def many_parts(request, address_at, samples):
    store = FeatureStore.create(address_at(request.param), durability="process")
    order = random.Random(0).sample(IDS, len(IDS))
    for start in range(0, len(order), 3):
        samples.write(store, order[start : start + 3])
    return store


def _parts(store, feature="rgb"):
    table = store.videos().to_pylist()
    return {row["part"] for row in table if row["feature"] == feature}


def test_small_parts_become_one(many_parts, samples):
    store = many_parts
    before, digests = _parts(store), [store.digest(name) for name in ("rgb", "audio")]
    past = FeatureStore.open(store.url)
    versions = dict(
        zip(*(store.videos()[c].to_pylist() for c in ("video_id", "version")), strict=True)
    )
    dry = store.compact(dry_run=True)
    assert (dry.parts_before, dry.parts_after, dry.num_videos) == (16, 2, 48)
    assert _parts(store) == before
    report = store.compact()
    assert (report.parts_before, report.parts_after, report.num_videos) == (16, 2, 48)
    assert len(_parts(store)) == 1
    assert [store.digest(name) for name in ("rgb", "audio")] == digests
    again = dict(
        zip(*(store.videos()[c].to_pylist() for c in ("video_id", "version")), strict=True)
    )
    assert again == versions
    for handle in (store, past, FeatureStore.open(store.url), FeatureStore.open(store.url, 8)):
        samples.check(handle, IDS)
    assert store.verify().is_sound
    assert "rewrite rgb" in str(store.log()[-1].operations) + str(store.log()[-2].operations)
    assert store.compact().parts_after == 0  # nothing is left to do
    location = store["rgb"].locate(IDS[0]), store["rgb"].locate(IDS[1])
    assert location[1][1] == location[0][1] + location[0][2]  # in the order of the ids


def test_one_feature_alone(many_parts):
    store = many_parts
    audio = _parts(store, "audio")
    store.compact(["rgb"])
    assert len(_parts(store)) == 1
    assert _parts(store, "audio") == audio
    with pytest.raises(UsageError, match="'nonsense'"):
        store.compact(["nonsense"])


def test_size_of_new_parts(many_parts, samples, monkeypatch):
    monkeypatch.setattr(compaction, "_PIECE_BYTES", 100)
    many_parts.compact(["audio"], target_bytes=10 * 4 * 24)  # ten videos of four rows
    sizes = [row["part"] for row in many_parts.videos().to_pylist() if row["feature"] == "audio"]
    assert sorted(sizes.count(part) for part in set(sizes)) == [8, 8, 8]
    samples.check(many_parts, IDS)


@pytest.mark.folder
def test_damage_in_a_piece_among_many(store, samples, monkeypatch):
    monkeypatch.setattr(compaction, "_PIECE_BYTES", 300)
    for begin in range(0, len(IDS), 3):
        samples.write(store, IDS[begin : begin + 3])
    part, start, *_ = store["rgb"].locate("v11")
    with (Path(store.url) / part.rows_file).open("r+b") as file:
        file.seek(part.base + start * part.rows_shape.row_bytes)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    report = FeatureStore.open(store.url).compact(["rgb"])
    assert [video_id for _, _, video_id in report.damaged] == ["v11"]
    reader = FeatureStore.open(store.url)["rgb"]
    for video_id in IDS:
        if video_id == "v11":  # stays where it is
            assert reader.locate(video_id)[0].id == part.id
            with pytest.raises(StoreDamaged, match="v11"):
                reader[video_id]
        else:
            assert reader.locate(video_id)[0].id != part.id
            expected = samples.rows(samples.rgb, video_id).rows
            np.testing.assert_array_equal(reader[video_id], expected)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_halfway_leaves_nothing(many_parts, samples, monkeypatch, error):
    monkeypatch.setattr(compaction, "_PIECE_BYTES", 100)
    store = many_parts
    before = store.version, _parts(store)
    calls = []

    def progress(num_bytes):
        calls.append(num_bytes)
        if len(calls) == 3:
            raise error("stopped here")

    with pytest.raises(error, match="stopped here"):
        store.compact(["rgb"], progress=progress)
    assert not [t for t in threading.enumerate() if t.name.startswith("vlpipe-compaction")]
    again = FeatureStore.open(store.url)
    assert (again.version, _parts(again)) == before
    assert again.verify().orphan_parts == []
    samples.check(again, IDS)


def test_what_goes_wrong_while_reading_ahead_is_raised(many_parts, monkeypatch):
    def fail(*_):
        raise MemoryError("too much")

    monkeypatch.setattr(compaction, "_are_sound", fail)
    with pytest.raises(MemoryError, match="too much"):
        many_parts.compact()


@pytest.mark.folder
def test_dead_rows_go(store, samples):
    samples.write(store, IDS, samples.rgb)
    assert store.compact().parts_after == 0
    store.delete(IDS[:2])
    assert store.compact().parts_after == 0  # too few to be worth it
    store.delete(IDS[2:3], purge=True)
    assert store.unpurged() == IDS[2:3]
    store.compact()  # but what is to be purged goes
    part = Path(store.url) / store["rgb"].locate(IDS[5])[0].folder
    assert np.load(part / "rows" / "c.0.0").shape == (21 * 4, 6)
    samples.check(store, IDS[3:], samples.rgb)
    assert store.unpurged() == IDS[2:3]  # the old part is still there
    collect_garbage(open_storage(store.url), grace_s=-1, is_dry_run=False, retention_s=-1)
    assert store.unpurged() == []
    samples.check(FeatureStore.open(store.url), IDS[3:], samples.rgb)


def test_what_others_do_meanwhile_stays(many_parts, samples, monkeypatch):
    """A video deleted, replaced or moved between copying and commit is not brought back."""
    store, other = many_parts, FeatureStore.open(many_parts.url)
    real = compaction._rewrite_op
    done = []

    def disturb(*arguments):
        if not done:
            done.append(1)
            other.delete([IDS[0]])
            samples.write(other, [IDS[1]], mode="replace")
            arguments = (load_state(other._storage), *arguments[1:])
        return real(*arguments)

    monkeypatch.setattr(compaction, "_rewrite_op", disturb)
    store.compact(["rgb"])
    assert IDS[0] not in store["rgb"]
    assert store["rgb"].locate(IDS[1])[0] is not store["rgb"].locate(IDS[2])[0]
    samples.check(store, IDS[1:])
    assert store.verify().is_sound


def test_two_compactions_at_once(many_parts, samples):
    one, two = many_parts, FeatureStore.open(many_parts.url)
    state = two._newest
    two._load_newest = lambda: state  # planned before the other one has committed
    one.compact()
    two.compact()
    two = FeatureStore.open(one.url)
    samples.check(two, IDS)
    assert two.verify().is_sound
    assert len(_parts(two)) == 1


@pytest.mark.folder
@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True])
def test_interrupted_compaction(store, samples, watch_os, run_in_child, is_killed):
    for start in range(0, 12, 2):
        samples.write(store, IDS[start : start + 2], samples.rgb)
    template = Path(store.url)
    watched = watch_os()
    copy = template.parent / "count"
    shutil.copytree(template, copy)
    FeatureStore.open(copy, durability="process").compact()
    num_steps = watched.count
    assert num_steps > 30
    for step in range(1 + 3 * is_killed, num_steps + 1, 9):
        url = template.parent / f"run-{step}"
        shutil.copytree(template, url)

        def stop(number, name, arguments, step=step):
            if number == step:
                if is_killed:
                    os._exit(9)
                raise OSError(28, "No space left on device")

        def child(url=url, stop=stop):
            watch_os(stop)
            FeatureStore.open(url, durability="process").compact()

        assert run_in_child(child) in ((9,) if is_killed else (0, 1))
        again = FeatureStore.open(url)
        samples.check(again, IDS[:12], samples.rgb)
        again.compact()
        samples.check(again, IDS[:12], samples.rgb)
        assert again.verify().is_sound
        shutil.rmtree(url)


def test_compacted_parts_without_vlpipe(many_parts, samples):
    if many_parts.url.startswith("memory"):
        return
    many_parts.compact()
    part, start, size, *_ = many_parts["audio"].locate(IDS[3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(f"{many_parts.url}/{part.folder}", mode="r")
        rows = group["rows"][start : start + size]
        assert list(group["video_id"][:]) == IDS
    np.testing.assert_array_equal(rows, samples.rows(samples.audio, IDS[3]).rows)


# repair


def _file(store, video_id, feature="rgb", array="rows"):
    part = store[feature].locate(video_id)[0]
    return Path(store.url, part.rows_file if array == "rows" else part.spans_file)


def _flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.folder
def test_damaged_videos_become_missing(store, samples):
    samples.write(store, ["a", "b", "c"])
    samples.write(store, ["d"])
    path = _file(store, "b")
    _flip(path, 4096 + store["rgb"].locate("b")[1] * 12)
    _flip(_file(store, "d", "audio", "spans"), 4096)
    report = store.verify()
    assert {(p.feature, p.video_id) for p in report.problems} == {("rgb", "b"), ("audio", "d")}
    report = store.verify(repair=True)
    assert report.is_sound
    assert sorted(lost[::2] for lost in report.lost) == [("audio", "d"), ("rgb", "b")]
    statuses = store.status(samples.rgb, ["a", "b"])
    assert [status.standing for status in statuses.values()] == ["stored", "absent"]
    with pytest.raises(VideoMissing, match="never written"):
        store["rgb"]["b"]
    samples.write(store, ["a", "b", "c", "d"])  # what an extraction does
    samples.check(FeatureStore.open(store.url), ["a", "b", "c", "d"])
    assert store.verify(repair=True).repaired == []
    with pytest.raises(StoreDamaged):
        FeatureStore.open(store.url, 2)["rgb"]["b"]


@pytest.mark.folder
@pytest.mark.parametrize("is_cut", [False, True])
def test_lost_and_shortened_row_files(store, samples, is_cut):
    samples.write(store, ["a", "b"], samples.rgb)
    samples.write(store, ["c"], samples.rgb)
    path = _file(store, "a")
    if is_cut:
        path.write_bytes(path.read_bytes()[:-1])
    else:
        shutil.rmtree(path.parents[1])
    report = store.verify(repair=True)
    assert report.is_sound
    assert [lost[2] for lost in report.lost] == ["a", "b"]
    samples.check(store, ["c"], samples.rgb)


@pytest.mark.folder
def test_damage_around_the_rows(store, samples):
    samples.write(store, ["a", "b"])
    store.checkpoint()
    samples.write(store, ["c"])
    part = _file(store, "a").parents[1]
    other = _file(store, "c").parents[1]
    _flip(part / "crc32c" / "c.0", 0)  # a small array
    _flip(other / "rows" / "c.0.0", 8)  # the header
    (part / "zarr.json").write_text("{}")
    (Path(store.url) / "data" / "rgb" / "zarr.json").unlink()
    _flip(next(Path(store.url).glob("ckpt/*/parts.parquet")), 50)
    assert not store.verify().is_sound
    report = store.verify(repair=True)
    assert report.is_sound, report.problems
    assert report.lost == []
    assert len(report.repaired) >= 5
    samples.check(FeatureStore.open(store.url), ["a", "b", "c"])


@pytest.mark.folder
def test_what_cannot_be_repaired_is_left_and_named(store, samples):
    samples.write(store, ["a"], samples.rgb)
    store.tag("baseline")
    path = Path(store.url, "refs", "tags", "baseline.json")
    _flip(path, 20)
    report = store.verify(repair=True)
    assert [problem.area for problem in report.problems] == ["reference"]
    assert path.exists()


# history


def _age(root, days):
    for path in Path(root).rglob("*"):
        then = path.stat().st_mtime - days * 86400
        os.utime(path, (then, then))


@pytest.mark.folder
def test_entries_below_old_checkpoints_are_collected(store, samples):
    for video_id in "abcd":
        samples.write(store, [video_id], samples.rgb)
        store.checkpoint()
    stale = FeatureStore.open(store.url, 1)
    writer_of_old = FeatureStore.open(store.url)
    writer_of_old._newest = writer_of_old._state = load_state(store._storage, 1)
    assert store.gc(0).entries == []  # all versions of seven days are retained
    _age(store.url, 8)
    samples.write(store, ["e"], samples.rgb)
    dry = store.gc()
    report = store.gc(dry_run=False)
    assert dry.entries == report.entries
    assert [name[-7:-5] for name in report.entries] == ["01", "02", "03"]
    fresh = FeatureStore.open(store.url)
    samples.check(fresh, list("abcde"), samples.rgb)
    samples.check(FeatureStore.open(store.url, 4), list("abcd"), samples.rgb)
    assert fresh.verify().is_sound
    assert [entry.version for entry in fresh.log()] == [4, 5]
    with pytest.raises(SnapshotGone, match="version 1"):
        FeatureStore.open(store.url, 1)
    samples.check(stale, ["a"], samples.rgb)  # a handle that is open goes on
    # A handle that slept through all this does not take the free number for the end.
    samples.write(writer_of_old, ["f"], samples.rgb)
    samples.check(FeatureStore.open(store.url), list("abcdef"), samples.rgb)
    assert not Path(store.url, "log", "00000000000000000002.json").exists()
    _flip(Path(store.url, "log", "00000000000000000005.json"), 30)
    assert not fresh.verify().is_sound


@pytest.mark.folder
def test_retaining_again_after_all_was_collected(store, samples):
    for video_id in "abcd":
        samples.write(store, [video_id], samples.rgb)
        store.checkpoint()
    store.gc(-1, retention_s=-1, dry_run=False)
    assert not Path(store.url, "log", "00000000000000000001.json").exists()
    assert store.gc(dry_run=False).parts == []  # seven days, most of which are gone
    samples.check(FeatureStore.open(store.url), list("abcd"), samples.rgb)


@pytest.mark.folder
def test_collected_history_with_a_damaged_checkpoint(store, samples):
    for video_id in "abcd":
        samples.write(store, [video_id], samples.rgb)
        store.checkpoint()
    _age(store.url, 8)
    store.gc(dry_run=False)
    for number, path in enumerate(sorted(Path(store.url).glob("ckpt/*/checkpoint.json"))[::-1]):
        _flip(path, 40)
        if number == 0:
            samples.check(FeatureStore.open(store.url), list("abcd"), samples.rgb)
    with pytest.raises(StoreDamaged, match="no sound checkpoint"):
        FeatureStore.open(store.url)


def test_versions_by_time(store, samples, monkeypatch):
    from vlpipe.stores import commit

    times = [f"2026-05-04T10:0{minute}:00Z" for minute in (1, 3, 2, 5)]  # one clock is behind
    for video_id, time in zip("abcd", times, strict=True):
        monkeypatch.setattr(commit, "now_utc", lambda time=time: time)
        samples.write(store, [video_id], samples.rgb)
    for at, version in (
        ("2026-05-04T10:00:59Z", 0),
        ("2026-05-04T10:01:00Z", 1),
        ("2026-05-04T10:04:00+00:00", 3),
        ("2026-05-04 12:05:00+02:00", 4),
        (datetime.fromisoformat("2030-01-01"), 4),
        (date(2026, 5, 4), 0),
        (date(2026, 5, 5), 4),
    ):
        assert FeatureStore.open(store.url, at=at).version == version
    with pytest.raises(UsageError, match="only reads"):
        FeatureStore.open(store.url, at=times[0]).delete(["a"])
    with pytest.raises(UsageError, match="not a time"):
        FeatureStore.open(store.url, at="yesterday")
    with pytest.raises(UsageError, match="5 is not a time"):
        FeatureStore.open(store.url, at=5)
    with pytest.raises(UsageError, match="enough"):
        FeatureStore.open(store.url, 1, at=times[0])


def test_clocks_of_writers_do_not_matter(store, samples, monkeypatch):
    """Writers whose clocks are days apart: order, content and collection stay right."""
    from vlpipe.stores import commit, layout

    real = layout.now_utc
    skews = [timedelta(days=days) for days in (-400, 30, 0, 2)]
    handles = [FeatureStore.open(store.url, durability="process") for _ in skews]
    for number, video_id in enumerate(IDS):
        skew = skews[number % 4]

        def now(skew=skew):
            return layout.format_utc(layout.parse_utc(real()) + skew)

        monkeypatch.setattr(commit, "now_utc", now)
        samples.write(handles[number % 4], [video_id, IDS[number - 1]], samples.rgb)
    assert store.refresh() == len(IDS) - 1  # the last had nothing left to do
    samples.check(store, IDS, samples.rgb)
    report = store.gc(dry_run=True)
    assert (report.parts, report.leftovers, report.entries) == ([], [], [])
    assert store.verify().is_sound
