"""Extraction as a whole: what is stored, what is skipped, what fails, and how it carries on."""

import os
import shutil
import threading

import made_media
import numpy as np
import pytest
import torch

from vlpipe.extractors import create_extractor
from vlpipe.extractors.media import DecodePool
from vlpipe.extractors.resnet import ResNetFeatures
from vlpipe.extractors.samples import FrameSampler, Sample
from vlpipe.pipelines import batches, row_buffer
from vlpipe.pipelines.extraction import Silent, plan_extraction, run_extraction
from vlpipe.pipelines.planning import source_digest
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import EnvironmentLacks, StoreUnwritable, UsageError, VideoMissing
from vlpipe.stores.part import PartWriter

SMALL = {"resnet18": {"resize": 40, "crop": 32}}

ROWS = {"gif0": 6, "gif1": 7, "gif2": 8, "gif3": 9, "sound": 63, "silent": 25}


def contents(url):
    """Everything that counts as equal between two stores."""
    with FeatureStore.open(url) as store:
        return {name: store.digest(name) for name in store.features}


def failed_ids(summary):
    return {failure.id for failure in summary.failed}


def test_rows_and_spans_are_stored(make_job):
    job = make_job()
    summary = run_extraction(job)
    assert summary.exit_code == 0
    assert (summary.selected, summary.extracted) == (6, 6)
    with FeatureStore.open(job.store) as store:
        for video_id, count in ROWS.items():
            rows, spans = store["resnet18"].read(video_id, with_spans=True)
            assert rows.shape == (count, 512)
            assert spans[0, 0] == 0
            assert np.allclose(spans[1:, 0], spans[:-1, 1])
        assert store["vggish"]["sound"].shape == (2, 128)
        notes = {
            row["video_id"]: row["note"]
            for row in store.videos().to_pylist()
            if row["feature"] == "vggish"
        }
        assert notes == dict.fromkeys(ROWS, "no_audio") | {"sound": None}
        assert store.features["resnet18"].is_untrained
        assert store.verify().is_sound


def test_a_second_run_does_nothing(make_job):
    job = make_job()
    run_extraction(job)
    before = contents(job.store)
    with FeatureStore.open(job.store) as store:
        version = store.version
    summary = run_extraction(job)
    assert (summary.extracted, summary.stored_before) == (0, 6)
    assert summary.exit_code == 0
    with FeatureStore.open(job.store) as store:
        assert store.version == version
    assert contents(job.store) == before


def test_stored_rows_are_those_of_the_extractor(make_job, clips):
    job = make_job()
    run_extraction(job)
    extractor = create_extractor("resnet18", weights="untrained", **job.settings["resnet18"])
    wanted = extractor.extract(clips / "sound.mp4")["resnet18"]
    with FeatureStore.open(job.store) as store:
        rows, spans = store["resnet18"].read("sound", with_spans=True)
    assert np.array_equal(rows, wanted.rows.astype(np.float16))
    assert np.array_equal(spans, wanted.spans)


def test_one_pass_equals_a_pass_per_extractor_and_decodes_once(make_job, tmp_path, monkeypatch):
    opened = []
    plain_open = DecodePool.open
    monkeypatch.setattr(
        DecodePool,
        "open",
        lambda self, path, req: opened.append(path) or plain_open(self, path, req),
    )
    job = make_job()
    run_extraction(job)
    assert len(opened) == len(ROWS)
    for name in job.features:
        settings = {k: v for k, v in job.settings.items() if k == name}
        alone = make_job(features=(name,), settings=settings, store=str(tmp_path / name))
        run_extraction(alone)
        assert contents(alone.store)[name] == contents(job.store)[name]


@pytest.mark.parametrize(("workers", "most_videos"), [(3, 256), (1, 2)])
def test_how_work_is_cut_changes_nothing(make_job, tmp_path, monkeypatch, workers, most_videos):
    run_extraction(make_job())
    monkeypatch.setattr(batches, "MAX_VIDEOS", most_videos)
    other = make_job(store=str(tmp_path / "other"), decode_workers=workers)
    assert (len(plan_extraction(other).batches) > 1) == (most_videos == 2)
    run_extraction(other)
    assert contents(str(tmp_path / "other")) == contents(str(tmp_path / "store"))


def test_a_further_feature_leaves_the_rest_alone(make_job):
    run_extraction(make_job(features=("vggish",), settings={}))
    with FeatureStore.open(make_job().store) as store:
        before = store.digest("vggish")
    summary = run_extraction(make_job())
    assert summary.features["vggish"]["rows"] == 0
    with FeatureStore.open(make_job().store) as store:
        assert store.digest("vggish") == before
        assert len(store["resnet18"]) == 6


def bad_media(folder, good):
    """Bad files by id, with the kind of failure that each must give."""
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "zeros.mp4").write_bytes(bytes(5000))
    (folder / "page.gif").write_text("<!DOCTYPE html><html><body>404</body></html>")
    (folder / "text.webm").write_text("no video at all")
    whole = (good / "sound.mp4").read_bytes()
    (folder / "half.mp4").write_bytes(whole[: len(whole) // 2])
    gif = (good / "gif3.gif").read_bytes()
    (folder / "cut.gif").write_bytes(gif[: len(gif) * 2 // 3])
    (folder / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{good / 'sound.mp4'}\n#EXT-X-ENDLIST\n")
    return {
        "empty": "empty",
        "zeros": "not_media",
        "page": "not_media",
        "text": "not_media",
        "half": "damaged",
        "cut": "damaged",
        "list": "format_refused",
    }


def test_bad_media_go_to_quarantine_and_their_siblings_are_stored(make_job, clips, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(clips, folder)
    kinds = bad_media(folder, clips)
    # A one-frame file and a file with the wrong ending are good media.
    made_media.make_gif(folder / "one.gif", [100])
    shutil.copy(clips / "gif0.gif", folder / "wrong_ending.mp4")
    explicit = tuple(folder / name for name in sorted(p.name for p in folder.iterdir()))
    job = make_job(paths=explicit)
    summary = run_extraction(job)
    assert summary.exit_code == 1
    assert failed_ids(summary) == set(kinds)
    for failure in summary.failed:
        assert kinds[failure.id] == failure.kind
        assert str(folder / failure.id) in failure.message
        assert set(failure.features) == {"resnet18", "vggish"}
    with FeatureStore.open(job.store) as store:
        assert len(store["resnet18"]["one"]) == 1
        assert len(store["resnet18"]["wrong_ending"]) == 6
        assert set(ROWS) <= set(store["resnet18"])
        assert not set(kinds) & set(store["resnet18"])
        with pytest.raises(VideoMissing, match="empty"):
            store["resnet18"]["empty"]
        assert {row["video_id"] for row in store.failed().to_pylist()} == set(kinds)
        assert store.verify().is_sound

    again = run_extraction(job)
    assert (again.extracted, len(again.failed), again.exit_code) == (0, 0, 1)
    assert set(again.failed_before) == set(kinds)

    shutil.copy(clips / "gif1.gif", folder / "page.gif")
    retried = run_extraction(job.model_copy(update={"retry_failed": True}))
    assert retried.extracted == 1
    assert failed_ids(retried) == set(kinds) - {"page"}
    with FeatureStore.open(job.store) as store:
        assert len(store["resnet18"]["page"]) == 7


def test_sound_without_pictures_fails_for_frames_only(make_job, tmp_path):
    path = made_media.make_audio(tmp_path / "song.wav", seconds=2)
    job = make_job(paths=(path,))
    summary = run_extraction(job)
    (failure,) = summary.failed
    assert (failure.kind, failure.features) == ("no_video", ("resnet18",))
    with FeatureStore.open(job.store) as store:
        assert len(store["vggish"]["song"]) == 2


def test_ids_that_collide_are_named_and_the_rest_goes_on(make_job, clips, tmp_path):
    folder = tmp_path / "twins"
    folder.mkdir()
    shutil.copy(clips / "gif0.gif", folder / "a.gif")
    shutil.copy(clips / "silent.mp4", folder / "a.mp4")
    shutil.copy(clips / "gif1.gif", folder / "b.gif")
    job = make_job(paths=(folder,))
    summary = run_extraction(job)
    (failure,) = summary.failed
    assert (failure.id, failure.kind) == ("a", "duplicate_id")
    assert "a.gif" in failure.message
    assert "a.mp4" in failure.message
    assert summary.extracted == 1
    assert run_extraction(job).failed_before == ("a",)


def test_a_replaced_file_is_extracted_again_and_a_copied_one_is_not(make_job, clips, tmp_path):
    folder = tmp_path / "changing"
    shutil.copytree(clips, folder)
    job = make_job(paths=(folder,))
    run_extraction(job)
    os.utime(folder / "gif0.gif", (1, 1))
    assert plan_extraction(job).num_tasks == 0
    shutil.copy(folder / "gif3.gif", folder / "gif0.gif")
    summary = run_extraction(job)
    assert summary.extracted == 1
    assert summary.replaced == ("gif0",)
    with FeatureStore.open(job.store) as store:
        assert np.array_equal(store["resnet18"]["gif0"], store["resnet18"]["gif3"])
        found = store.status(store["resnet18"].info.definition, ["gif0"])["gif0"]
        assert found.source == source_digest(folder / "gif0.gif")
    assert run_extraction(job).extracted == 0


def test_deleted_videos_stay_deleted_unless_restored(make_job):
    job = make_job()
    run_extraction(job)
    with FeatureStore.open(job.store) as store:
        store.delete(["gif0"], reason="asked for removal")
    summary = run_extraction(job)
    assert (summary.deleted, summary.extracted) == (1, 0)
    restored = run_extraction(job.model_copy(update={"restore_deleted": True}))
    assert restored.extracted == 1
    with FeatureStore.open(job.store) as store:
        assert "gif0" in store["resnet18"]


def test_other_settings_make_another_generation_which_takes_over_when_complete(make_job):
    run_extraction(make_job())
    other = {"resnet18": {"resize": 64, "crop": 64}}
    part = run_extraction(make_job(settings=other, limit=2))
    assert "4" in part.inactive["resnet18"]
    with FeatureStore.open(make_job().store) as store:
        old = store.features["resnet18"].generation
        assert len(store.generations("resnet18")) == 2
    rest = run_extraction(make_job(settings=other))
    assert rest.stored_before == 2
    assert not rest.inactive
    with FeatureStore.open(make_job().store) as store:
        assert store.features["resnet18"].generation != old
        assert len(store[f"resnet18@{old}"]) == 6


def test_values_that_are_not_numbers_fail_their_video(make_job, monkeypatch):
    plain = ResNetFeatures.forward

    def forward(self, x):
        made = plain(self, x)
        made["pool5"] = made["pool5"] / (x.std(dim=(1, 2, 3), keepdim=False)[:, None] > 1.1)
        return made

    monkeypatch.setattr(ResNetFeatures, "forward", forward)
    job = make_job(features=("resnet18",))
    summary = run_extraction(job)
    assert summary.failed
    assert summary.extracted == 6 - len(summary.failed)
    for failure in summary.failed:
        assert failure.kind == "not_finite"
        assert "resnet18 at fp32 gave NaN or infinite values" in failure.message


def test_values_too_large_for_the_store_are_an_error_and_not_infinite(make_job, monkeypatch):
    plain = ResNetFeatures.forward
    monkeypatch.setattr(
        ResNetFeatures, "forward", lambda s, x: {**plain(s, x), "pool5": torch.full((16, 512), 1e6)}
    )
    job = make_job(features=("resnet18",), limit=1)
    (failure,) = run_extraction(job).failed
    assert "does not fit float16" in failure.message
    wide = job.model_copy(update={"store_dtype": "float32"})
    assert run_extraction(wide).extracted == 1


class StopAfter(Silent):
    """Sets the stop as Ctrl-C does, after so many videos."""

    def __init__(self, stop, count):
        self.stop, self.count = stop, count

    def on_video(self, video_id, failures):
        self.count -= 1
        if self.count == 0:
            self.stop.set()


@pytest.mark.parametrize("count", [1, 3])
def test_an_interrupted_run_keeps_what_is_done_and_carries_on(
    make_job, tmp_path, monkeypatch, count
):
    # Small batches, so that some of them are not begun when the stop comes.
    monkeypatch.setattr(batches, "MAX_VIDEOS", 2)
    job = make_job()
    stop = threading.Event()
    summary = run_extraction(job, observer=StopAfter(stop, count), stop=stop)
    assert summary.exit_code == 130
    assert count <= summary.extracted < 6
    assert summary.not_reached == 6 - summary.extracted
    rest = run_extraction(job)
    assert rest.exit_code == 0
    assert rest.stored_before == summary.extracted
    run_extraction(make_job(store=str(tmp_path / "undisturbed")))
    assert contents(job.store) == contents(str(tmp_path / "undisturbed"))


def test_a_store_that_cannot_be_written_is_the_environments_fault(make_job, tmp_path, monkeypatch):
    job = make_job()

    def fail(*args, **kwargs):
        raise StoreUnwritable("disk full")

    monkeypatch.setattr(PartWriter, "append", fail)
    with pytest.raises(StoreUnwritable):
        run_extraction(job)
    monkeypatch.undo()
    assert run_extraction(job).extracted == 6


def test_a_plan_writes_nothing(make_job, tmp_path):
    plan = plan_extraction(make_job())
    assert plan.num_tasks == 6
    assert plan.to_json()["to_do"] == 6
    assert list(tmp_path.iterdir()) == []


def test_nothing_or_two_things_named_is_a_usage_error(make_job, clips):
    with pytest.raises(UsageError, match="nothing to extract from"):
        plan_extraction(make_job(paths=()))
    with pytest.raises(UsageError, match="not both"):
        plan_extraction(make_job(dataset="tgif", root=clips))
    with pytest.raises(UsageError, match="no splits"):
        plan_extraction(make_job(split="test"))


def write_table(path, columns, *rows):
    lines = ["\t".join(columns), *("\t".join(row) for row in rows)]
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode())


COUNT_COLUMNS = ("gif_name", "question", "answer", "vid_id", "key")


def test_tgif_tables_with_bad_rows_and_a_bad_table_cost_only_themselves(make_job, clips, tmp_path):
    root = tmp_path / "tgif"
    root.mkdir()
    for n in range(2):
        shutil.copy(clips / f"gif{n}.gif", root / f"gif{n}.gif")
    write_table(
        root / "Test_count_question.csv",
        COUNT_COLUMNS,
        ("gif0", "how often ?", "3", "COUNT1", "1"),
        ("../../etc/passwd", "how often ?", "3", "COUNT2", "2"),
        ("gone", "how often ?", "3", "COUNT3", "3"),
        ("gif1", "how often ?", "not a number", "COUNT4", "4"),
    )
    write_table(root / "Train_count_question.csv", ("name", "question"), ("x", "y"))
    job = make_job(paths=(), dataset="tgif", root=root)
    summary = run_extraction(job)
    assert summary.exit_code == 1
    assert (summary.extracted, summary.missing) == (2, ("gone",))
    (failure,) = summary.failed
    assert failure.kind == "bad_id"
    (left_out,) = summary.left_out
    assert "Train_count_question.csv" in left_out
    assert "gif_name" in left_out
    assert run_extraction(job).failed_before == (failure.id,)


def test_a_root_of_bad_tables_only_is_a_usage_error(make_job, tmp_path):
    root = tmp_path / "tgif"
    root.mkdir()
    write_table(root / "Test_count_question.csv", ("name", "question"), ("x", "y"))
    with pytest.raises(UsageError, match="gif_name"):
        plan_extraction(make_job(paths=(), dataset="tgif", root=root))


def test_a_replaced_file_is_noticed_for_each_feature_alone(make_job, clips, tmp_path):
    folder = tmp_path / "changing"
    folder.mkdir()
    shutil.copy(clips / "silent.mp4", folder / "a.mp4")
    job = make_job(paths=(folder,))
    run_extraction(job)
    shutil.copy(clips / "sound.mp4", folder / "a.mp4")
    run_extraction(make_job(paths=(folder,), features=("resnet18",)))
    assert run_extraction(job).features["vggish"]["rows"] == 2
    assert run_extraction(job).extracted == 0


def test_a_file_replaced_by_a_broken_one_keeps_its_rows_and_says_so(make_job, clips, tmp_path):
    folder = tmp_path / "changing"
    shutil.copytree(clips, folder)
    job = make_job(paths=(folder,))
    run_extraction(job)
    (folder / "gif0.gif").write_bytes(b"")
    for _ in range(2):
        summary = run_extraction(job)
        assert summary.exit_code == 1
        (failure,) = summary.failed
        assert "rows of the file that was there before are kept" in failure.message
    with FeatureStore.open(job.store) as store:
        assert len(store["resnet18"]["gif0"]) == 6


def test_random_numbers_never_replace_trained_features(make_job, tmp_path):
    extractor = create_extractor("resnet18", weights="untrained:5")
    torch.save(extractor.network.resnet.state_dict(), tmp_path / "resnet18.pth")
    trained = {"features": ("resnet18",), "weights": {"resnet18": str(tmp_path / "resnet18.pth")}}
    run_extraction(make_job(**trained))
    summary = run_extraction(make_job(features=("resnet18",)))
    assert "trained weights" in summary.inactive["resnet18"]
    with FeatureStore.open(make_job().store) as store:
        assert not store.features["resnet18"].is_untrained
        assert len(store.generations("resnet18")) == 2


OTHER = {"resnet18": {"resize": 64, "crop": 64}}


def test_jobs_with_different_settings_do_not_take_turns(make_job):
    other = make_job(settings=OTHER)
    run_extraction(make_job())
    assert "instead of" in run_extraction(other).activated["resnet18"]
    with FeatureStore.open(other.store) as store:
        version = store.version
    for job in (make_job(), other, make_job()):
        assert not run_extraction(job).activated
    with FeatureStore.open(other.store) as store:
        assert store.version == version


@pytest.mark.parametrize("is_complete", [False, True])
def test_where_readers_get_none_the_next_run_gives_them_its_own(make_job, is_complete):
    job = make_job(features=("resnet18",), settings=SMALL)
    other = make_job(settings=OTHER, features=("resnet18",))
    run_extraction(other if is_complete else other.model_copy(update={"limit": 2}))
    run_extraction(job)
    with FeatureStore.open(other.store) as store:
        store.drop("resnet18", store.features["resnet18"].generation)
    run_extraction(other)
    with FeatureStore.open(other.store) as store:
        assert len(store["resnet18"]) == 6


@pytest.mark.parametrize(
    "error", [EnvironmentLacks("no child process"), OSError(11, "fork failed"), MemoryError()]
)
def test_what_is_the_machines_fault_puts_no_video_in_quarantine(make_job, monkeypatch, error):
    def fail(self, path, requests):
        raise error

    job = make_job()
    monkeypatch.setattr(DecodePool, "open", fail)
    with pytest.raises(type(error)):
        run_extraction(job)
    monkeypatch.undo()
    summary = run_extraction(job)
    assert (summary.extracted, summary.failed_before) == (6, ())


def test_a_file_that_vanishes_is_reported_and_looked_for_again(make_job, clips, tmp_path):
    folder = tmp_path / "vanishing"
    shutil.copytree(clips, folder)

    class Remove(Silent):
        def on_plan(self, plan):
            (folder / "gif0.gif").unlink()

    job = make_job(paths=(folder,))
    (failure,) = run_extraction(job, observer=Remove()).failed
    assert (failure.id, failure.kind) == ("gif0", "missing")
    shutil.copy(clips / "gif0.gif", folder)
    assert run_extraction(job).extracted == 1


def test_rows_that_the_store_refuses_fail_their_video_only(make_job, monkeypatch):
    plain = FrameSampler.push

    def push(self, block):
        samples = plain(self, block)
        if len(samples) == 6:  # gif0
            samples[2] = Sample(samples[2].data, (0.0, 0.0))
        return samples

    monkeypatch.setattr(FrameSampler, "push", push)
    summary = run_extraction(make_job(features=("resnet18",), settings=SMALL))
    (failure,) = summary.failed
    assert (failure.id, failure.kind) == ("gif0", "refused")
    assert summary.extracted == 5


def test_samples_of_a_failed_video_do_not_harm_its_siblings(make_job, clips, tmp_path, monkeypatch):
    # Every row is spilled to a file, which is closed when the video fails at its end.
    monkeypatch.setattr(row_buffer, "SPILL_BYTES", 1)
    folder = tmp_path / "mixed"
    shutil.copytree(clips, folder)
    gif = made_media.make_gif(tmp_path / "long.gif", [50] * 40, seed=9).read_bytes()
    (folder / "cut.gif").write_bytes(gif[: len(gif) * 9 // 10])
    summary = run_extraction(make_job(paths=(folder,)))
    assert failed_ids(summary) == {"cut"}
    assert summary.extracted == 6


def test_an_earlier_failure_stays_in_the_exit_code(make_job, tmp_path):
    path = made_media.make_audio(tmp_path / "song.wav", seconds=2)
    only_frames = make_job(paths=(path,), features=("resnet18",), settings=SMALL)
    assert run_extraction(only_frames).exit_code == 1
    summary = run_extraction(make_job(paths=(path,)))
    assert (summary.exit_code, summary.failed_before, summary.extracted) == (1, ("song",), 0)
    assert summary.features["vggish"]["rows"] == 2


def test_two_writers_count_each_video_once(make_job):
    job = make_job()

    class Rival(Silent):
        """Another process that does the same work between our plan and our commit."""

        def on_plan(self, plan):
            run_extraction(job)

    summary = run_extraction(job, observer=Rival())
    assert (summary.extracted, summary.stored_before) == (0, 6)


def test_a_damaged_video_that_is_kept_carries_a_note(make_job, clips, tmp_path):
    gif = (clips / "gif3.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(gif[: len(gif) * 2 // 3])
    job = make_job(paths=(tmp_path / "cut.gif",), features=("resnet18",), damaged_media="lenient")
    run_extraction(job)
    with FeatureStore.open(job.store) as store:
        (row,) = store.videos().to_pylist()
    assert row["note"] == "damaged"
    assert 0 < row["rows"] < 9
