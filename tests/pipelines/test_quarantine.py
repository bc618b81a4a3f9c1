"""What goes wrong: bad media, bad tables, refused rows and faults of the machine."""

import shutil

import made_media
import pytest
import torch
from extraction_results import ROWS, SMALL, failed_ids

from vlpipe.extractors.media import DecodePool
from vlpipe.extractors.resnet import ResNetFeatures
from vlpipe.extractors.samples import FrameSampler, Sample
from vlpipe.pipelines.extraction import row_buffer
from vlpipe.pipelines.extraction.extract import plan_extraction, run_extraction
from vlpipe.pipelines.extraction.observer import Silent
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import EnvironmentLacks, StoreUnwritable, UsageError, VideoMissing
from vlpipe.stores.part import PartWriter


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


def test_a_store_that_cannot_be_written_is_the_environments_fault(make_job, tmp_path, monkeypatch):
    job = make_job()

    def fail(*args, **kwargs):
        raise StoreUnwritable("disk full")

    monkeypatch.setattr(PartWriter, "append", fail)
    with pytest.raises(StoreUnwritable):
        run_extraction(job)
    monkeypatch.undo()
    assert run_extraction(job).extracted == 6


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


def test_a_damaged_video_that_is_kept_carries_a_note(make_job, clips, tmp_path):
    gif = (clips / "gif3.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(gif[: len(gif) * 2 // 3])
    job = make_job(paths=(tmp_path / "cut.gif",), features=("resnet18",), damaged_media="lenient")
    run_extraction(job)
    with FeatureStore.open(job.store) as store:
        (row,) = store.videos().to_pylist()
    assert row["note"] == "damaged"
    assert 0 < row["rows"] < 9
