"""Extraction as a whole: what is stored, what is skipped, what fails, and how it carries on."""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from extraction_results import ROWS, SMALL, contents

from vlpipe.extractors import create_extractor
from vlpipe.extractors.media import DecodePool
from vlpipe.pipelines.extraction import batches
from vlpipe.pipelines.extraction.extract import plan_extraction, run_extraction
from vlpipe.pipelines.extraction.observer import Silent
from vlpipe.pipelines.extraction.planning import source_digest
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange import export_features


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


def test_a_plan_writes_nothing(make_job, tmp_path):
    plan = plan_extraction(make_job())
    assert plan.num_tasks == 6
    assert plan.to_json()["to_do"] == 6
    assert list(tmp_path.iterdir()) == []


def test_one_hdf5_file_can_be_planned_against_but_takes_no_rows(make_job, tmp_path, monkeypatch):
    job = make_job()
    run_extraction(job)
    with FeatureStore.open(job.store) as store:
        export_features(store, "vlpipe-hdf5", tmp_path / "one")
    one = make_job(store=str(tmp_path / "one/features.hdf5"))
    assert plan_extraction(one).num_tasks == 0
    other = make_job(store=one.store, features=("resnet18",), settings={})
    assert plan_extraction(other).num_tasks == 6
    monkeypatch.delattr(DecodePool, "open")  # nothing is decoded in vain
    with pytest.raises(UsageError, match="never changed"):
        run_extraction(other)


def test_a_folder_that_cannot_be_listed_is_named(make_job, clips, tmp_path, monkeypatch):
    (tmp_path / "media/shut").mkdir(parents=True)
    shutil.copy(next(clips.glob("*.mp4")), tmp_path / "media/shown.mp4")
    scandir = os.scandir

    def refuse(path="."):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    plan = plan_extraction(make_job(paths=(tmp_path / "media",)))
    assert plan.num_tasks == 1
    (reason,) = plan.left_out
    assert reason.endswith("shut cannot be listed: Permission denied")


def test_nothing_or_two_things_named_is_a_usage_error(make_job, clips):
    with pytest.raises(UsageError, match="nothing to extract from"):
        plan_extraction(make_job(paths=()))
    with pytest.raises(UsageError, match="not both"):
        plan_extraction(make_job(dataset="tgif", root=clips))
    with pytest.raises(UsageError, match="no splits"):
        plan_extraction(make_job(split="test"))


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


def test_two_writers_count_each_video_once(make_job):
    job = make_job()

    class Rival(Silent):
        """Another process that does the same work between our plan and our commit."""

        def on_plan(self, plan):
            run_extraction(job)

    summary = run_extraction(job, observer=Rival())
    assert (summary.extracted, summary.stored_before) == (0, 6)


def test_several_devices_share_the_batches_and_make_the_same_store(make_job, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "MAX_VIDEOS", 2)
    alone = make_job(store=str(tmp_path / "alone"))
    shared = make_job(store=str(tmp_path / "shared"), device="cpu,cpu")
    run_extraction(alone)
    summary = run_extraction(shared)
    assert (summary.exit_code, summary.extracted) == (0, 6)
    assert len(plan_extraction(make_job(store=str(tmp_path / "new"))).batches) > 1
    assert contents(shared.store) == contents(alone.store)
    with FeatureStore.open(shared.store) as store:
        assert store.verify().is_sound


def test_compiled_networks_are_another_generation(make_job):
    plain, compiled = (make_job(compile=flag).specs()[0].definitions()[0] for flag in (False, True))
    assert plain.generation != compiled.generation
    assert compiled.provenance["compiler"] == "torch.compile"
