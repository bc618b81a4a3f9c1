"""Checkpoints, collection of garbage, and how quickly a plan is answered."""

import errno
import os
import time
from pathlib import Path

import pytest
from store_places import PLACES

from vlpipe.stores import FeatureStore, state
from vlpipe.stores.errors import SnapshotGone
from vlpipe.stores.garbage import collect_garbage
from vlpipe.stores.memory_storage import MemoryStorage
from vlpipe.stores.storage import open_storage


@pytest.mark.folder
def test_commits_write_checkpoints(store, samples, monkeypatch):
    ids = [f"v{i}" for i in range(70)]
    for video_id in ids:
        samples.write(store, [video_id], samples.rgb)
    checkpoints = sorted(path.name for path in Path(store.url, "ckpt").iterdir())
    assert checkpoints == [f"{65:020d}", "latest.json"]
    again = FeatureStore.open(store.url)
    assert again._state.checkpoint_version == 65
    samples.check(again, ids, samples.rgb)
    samples.check(store, ids, samples.rgb)
    assert again.digest("rgb") == store.digest("rgb")
    assert again.videos() == store.videos()
    past = FeatureStore.open(store.url, 30)
    samples.check(past, ids[:30], samples.rgb)


@pytest.mark.folder
def test_one_of_many_writers_makes_each_checkpoint_and_all_use_it(store, samples):
    samples.write(store, ["first"], samples.rgb)
    handles = [FeatureStore.open(store.url) for _ in range(10)]
    for number in range(199):
        samples.write(handles[number % 10], [f"v{number}"], samples.rgb)
    assert [path.name for path in sorted(Path(store.url, "ckpt").glob("0*"))] == [
        f"{version:020d}" for version in (65, 130, 195)
    ]
    assert {handle._newest.checkpoint_version for handle in handles} <= {130, 195}
    every_one = ["first", *(f"v{number}" for number in range(199))]
    samples.check(FeatureStore.open(store.url), every_one, samples.rgb)


@pytest.mark.folder
def test_a_checkpoint_whose_writer_died_is_made_at_a_later_turn(store, samples, monkeypatch):
    with monkeypatch.context() as dying:
        dying.setattr(FeatureStore, "_write_checkpoint", lambda self: None)
        for number in range(70):
            samples.write(store, [f"v{number}"], samples.rgb)
    handles = [FeatureStore.open(store.url) for _ in range(3)]
    for number in range(70, 90):
        samples.write(handles[number % 3], [f"v{number}"], samples.rgb)
    (made,) = Path(store.url, "ckpt").glob("0*")
    assert int(made.name) == 81


@pytest.mark.folder
def test_a_failing_checkpoint_does_not_fail_the_commit(store, samples, monkeypatch, caplog):
    monkeypatch.setattr(state, "LEAST_TAIL", 0)
    Path(store.url, "ckpt").write_text("in the way")
    samples.write(store, ["a"], samples.rgb)
    samples.check(store, ["a"], samples.rgb)
    assert "no checkpoint was written" in caplog.text


@pytest.mark.folder
def test_a_checkpoint_of_another_writer_is_left_alone(store, samples):
    samples.write(store, ["a"], samples.rgb)
    folder = Path(store.url, "ckpt", f"{1:020d}")
    folder.mkdir(parents=True)
    (folder / "parts.parquet").write_bytes(b"by another version of a library")
    assert store.checkpoint() == 1
    assert [path.name for path in folder.iterdir()] == ["parts.parquet"]
    again = FeatureStore.open(store.url)  # an unfinished checkpoint is none
    samples.check(again, ["a"], samples.rgb)
    assert store.checkpoint() == 1
    samples.write(store, ["b"], samples.rgb)
    assert store.checkpoint() == 2
    assert FeatureStore.open(store.url)._state.checkpoint_version == 2


def test_checkpoints_over_checkpoints(store, samples):
    definitions = [samples.rgb, samples.audio]
    for number in range(4):
        samples.write(store, [f"v{number}", f"w{number}"])
        store.checkpoint()
        store.delete([f"w{number}"], ["rgb"])
        samples.write(store, [f"v{number}"], samples.audio, mode="replace")
        store = FeatureStore.open(store.url)
    store.checkpoint()
    store = FeatureStore.open(store.url)
    samples.check(store, [f"v{i}" for i in range(4)], definitions[0])
    samples.check(store, [f"{x}{i}" for i in range(4) for x in "vw"], definitions[1])
    assert store.verify().is_sound
    assert store.features["rgb"].num_videos == 4


def _make_older(path, seconds):
    for file in [path, *Path(path).rglob("*")]:
        then = file.stat().st_mtime - seconds
        os.utime(file, (then, then))


@pytest.mark.folder
def test_collection(store, samples):
    samples.write(store, ["a", "b"], samples.rgb)
    old = samples.definition("clip", version=1)
    samples.write(store, ["a"], old)
    store.drop("clip", old.generation)
    root = Path(store.url)
    orphan = root / "data" / "rgb" / samples.rgb.generation / "0000000000000000-0000000000000000"
    (orphan / "rows").mkdir(parents=True)
    (orphan / "rows" / "c.0.0").write_bytes(b"unfinished")
    leftover = root / "log" / ".tmp-1234"
    leftover.touch()
    assert store.gc().parts == []  # all are young
    assert store.verify().leftovers == ["log/.tmp-1234"]
    report = store.gc(grace_s=0)
    assert (len(report.parts), report.leftovers, report.is_dry_run) == (1, ["log/.tmp-1234"], True)
    assert orphan.exists()
    report = store.gc(grace_s=0, dry_run=False)
    assert report.num_bytes == 10
    assert not orphan.exists()
    assert not leftover.exists()
    samples.check(FeatureStore.open(store.url, 2), ["a"], old)  # dropped, and still retained


@pytest.mark.folder
def test_collection_of_dead_parts(store, samples):
    old = samples.definition("clip", version=1)
    samples.write(store, ["a"], old)
    FeatureStore.open(store.url, 1).tag("baseline")
    store.drop("clip", old.generation)
    samples.write(store, ["a"], samples.rgb)
    _make_older(Path(store.url), 8 * 24 * 3600)
    assert store.gc().parts == []  # the tag holds it
    Path(store.url, "refs", "tags", "baseline.json").unlink()
    FeatureStore.open(store.url, 1).pin("training", hours=1)
    assert store.gc().parts == []
    FeatureStore.open(store.url, 1).pin("training", hours=-1)
    past = FeatureStore.open(store.url, 1)
    (part,) = store.gc(dry_run=False).parts
    assert not Path(store.url, part).exists()
    with pytest.raises(SnapshotGone):
        past["clip"]["a"]
    samples.check(FeatureStore.open(store.url), ["a"], samples.rgb)
    assert store.verify().is_sound


def test_a_clock_of_whole_seconds_spares_nothing_that_is_not_to_be_spared(samples, monkeypatch):
    monkeypatch.setattr(MemoryStorage, "now", lambda storage: 1000.0)
    monkeypatch.setattr(MemoryStorage, "modified", lambda storage, name: 1000.0)
    store = FeatureStore.create("memory://whole-seconds")
    for video_id in "abcd":
        samples.write(store, [video_id], samples.rgb)
        store.checkpoint()
    assert store.gc(1, retention_s=0).checkpoints == []
    report = store.gc(0, retention_s=0)
    assert [folder[-2:] for folder in report.checkpoints] == ["02", "01"]
    assert [entry.partition(".")[0][-1] for entry in report.entries] == ["1", "2", "3"]


def test_outdated_checkpoints_are_collected(store, samples):
    for video_id in "abcd":
        samples.write(store, [video_id], samples.rgb)
        store.checkpoint()
    report = collect_garbage(open_storage(store.url), grace_s=0, is_dry_run=False)
    assert [folder[-2:] for folder in report.checkpoints] == ["02", "01"]
    samples.check(FeatureStore.open(store.url, 2), ["a", "b"], samples.rgb)


def test_where_videos_lie_below_and_above_a_checkpoint(store, samples):
    """What compaction asks for many videos at once is what is known of each."""
    samples.write(store, list("abcd"), samples.rgb)
    samples.write(store, list("efg"), samples.rgb)
    store.checkpoint()
    samples.write(store, ["b", "h"], samples.rgb, mode="replace")
    store.delete(["c"])
    generation = FeatureStore.open(store.url)._state.generations[
        samples.rgb.name, samples.rgb.generation
    ]
    rows = dict(generation.rows())
    ids = list("hgfedcbax")
    expected = [rows[i].part if i in rows else None for i in ids]
    assert generation.parts_of(ids) == expected
    assert [part is None for part in expected] == [i in "cx" for i in ids]
    live = {}
    for part, num_videos, num_rows in generation.live_by_part():
        videos_before, rows_before = live.get(part.id, (0, 0))
        live[part.id] = (videos_before + num_videos, rows_before + num_rows)
    assert live == {
        part.id: (
            sum(row.part is part for row in rows.values()),
            sum(row.row_size for row in rows.values() if row.part is part),
        )
        for part in {row.part for row in rows.values()}
    }


@pytest.mark.parametrize("place", PLACES)
def test_how_old_an_object_of_ones_own_is(address_at, place):
    storage = open_storage(address_at(place))
    storage.prepare()
    storage.write("own", b"x")
    age_s = storage.age_s("own")
    assert age_s is not None
    assert 0 <= age_s < 60
    assert storage.age_s("other") is None
    if storage.local_folder is not None:
        path = Path(storage.local_folder, "own")
        then = path.stat().st_mtime - 20 * 3600
        os.utime(path, (then, then))
        assert storage.age_s("own") == pytest.approx(20 * 3600, abs=60)


def _refused(path):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.mark.folder
@pytest.mark.parametrize("touch", [_refused, lambda path: None], ids=["refused", "without effect"])
def test_a_file_system_that_cannot_touch_still_tells_ages(store, samples, watch_os, touch):
    storage = open_storage(store.url)
    storage.write("own", b"x")
    path = Path(store.url, "own")
    then = path.stat().st_mtime - 20 * 3600
    os.utime(path, (then, then))
    watch_os(lambda count, name, arguments: touch if name == "utime" else None)
    assert storage.age_s("own") == pytest.approx(20 * 3600, abs=60)
    samples.write(store, ["a"], samples.rgb)
    samples.check(store, ["a"], samples.rgb)


def test_old_parts_are_not_committed(store, samples, monkeypatch):
    from vlpipe.stores import part
    from vlpipe.stores.errors import StoreUnwritable

    monkeypatch.setattr(part, "GRACE_S", -1.0)
    with pytest.raises(StoreUnwritable, match="hours old"):
        samples.write(store, ["a"])
    assert store.refresh() == 0


@pytest.mark.slow
def test_a_plan_for_72000_videos_is_quick(store, samples):
    from vlpipe.stores import FeatureDefinition

    definition = FeatureDefinition("level", "uint8", (), ())
    features = samples.rows(definition, "x", 2)
    ids = [f"tumblr_{i:06d}" for i in range(72_000)]
    with store.writer([definition]) as writer:
        for video_id in ids:
            writer.add(video_id, {"level": features}, source="0" * 32, source_size=1)
        for number in range(1000):
            writer.fail(f"bad {number}", None, "decode", "no frames")
    store.checkpoint()
    started = time.process_time()
    again = FeatureStore.open(store.url)
    opened = time.process_time()
    status = again.status(definition, [*ids, *(f"bad {i}" for i in range(1000)), "new"])
    answered = time.process_time()
    assert [status[i].standing for i in (ids[5], "bad 7", "new")] == ["stored", "failed", "absent"]
    assert len(again["level"]) == 72_000
    assert opened - started < 0.5  # a tenth of it on an idle machine
    assert answered - opened < 3  # a sixth of it there
