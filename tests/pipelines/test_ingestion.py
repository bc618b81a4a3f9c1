"""Ingestion: a table of what is on disk, in which only what has changed is probed again."""

import json
import os
import shutil
import threading

import made_media
import pyarrow.parquet as pq
import pytest

from vlpipe.pipelines.cli import run
from vlpipe.pipelines.ingestion import IngestionJob, ingest_dataset
from vlpipe.stores.errors import UsageError


@pytest.fixture
def job(tmp_path, clips):
    """A folder of six good files and a broken one."""
    shutil.copytree(clips, tmp_path / "media")
    (tmp_path / "media" / "page.gif").write_text("<!doctype html><title>404</title>")
    return IngestionJob(
        dataset="folder", root=tmp_path / "media", table=tmp_path / "videos.parquet"
    )


def rows(job):
    return {row["video_id"]: row for row in pq.read_table(job.table).to_pylist()}


def test_every_file_has_its_facts_or_its_reason(job):
    told = []
    report = ingest_dataset(job, progress=lambda done, of: told.append((done, of)))
    assert (report.num_videos, report.num_probed, report.is_complete) == (7, 7, False)
    assert sorted(told) == [(n, 7) for n in range(1, 8)]
    assert [(i, kind) for i, kind, _ in report.bad] == [("page", "not_media")]
    assert report.splits[""]["usable"] == 6
    assert len(report.new) == 7
    found = rows(job)
    assert found["sound"]["audio_codec"] == "aac"
    assert found["sound"]["duration_s"] == pytest.approx(2.5, abs=0.1)
    assert found["silent"]["sample_rate"] is None
    assert (found["gif0"]["container"], found["gif0"]["frames"]) == ("gif", 6)
    assert len(found["gif0"]["sha256"]) == 64
    assert found["page"]["sha256"] is None
    assert not [path for path in job.table.parent.iterdir() if path.name.startswith(".")]


def test_only_what_is_new_or_has_changed_is_probed_again(job):
    ingest_dataset(job)
    assert ingest_dataset(job).num_probed == 0
    assert ingest_dataset(job.model_copy(update={"reprobe": True})).num_probed == 7
    media = job.root
    made_media.make_gif(media / "gif9.gif", [100] * 4, seed=9)
    made_media.make_gif(media / "gif1.gif", [100] * 5, seed=77)
    (media / "gif2.gif").unlink()
    os.utime(media / "gif3.gif")  # looked at again, and found to be the same
    report = ingest_dataset(job)
    assert report.num_probed == 3
    assert (report.new, report.changed, report.gone) == (("gif9",), ("gif1",), ("gif2",))
    assert "gif2" not in rows(job)


def test_what_was_stopped_is_carried_on(job):
    stop = threading.Event()
    stop.set()
    stopped = ingest_dataset(job, stop=stop)
    assert (stopped.was_interrupted, stopped.num_probed) == (True, 0)
    assert ingest_dataset(job).num_probed == 7


def test_another_table_is_not_overwritten(job, tmp_path):
    job.table.write_text("not Parquet")
    with pytest.raises(UsageError, match=r"videos\.parquet cannot be read"):
        ingest_dataset(job)
    shutil.copy(job.root / "gif0.gif", tmp_path / "unrelated")
    pq.write_table(pq.read_table(_other(tmp_path)), job.table)
    with pytest.raises(UsageError, match="no table of videos: it has the columns x"):
        ingest_dataset(job)


def _other(folder):
    import pyarrow as pa

    pq.write_table(pa.table({"x": [1]}), folder / "other.parquet")
    return folder / "other.parquet"


def test_the_command_names_what_cannot_be_used(job, capsys):
    command = ["datasets", "ingest", "folder", "--root", str(job.root), "--table", str(job.table)]
    assert run(command) == 1
    shown = capsys.readouterr()
    assert "usable" in shown.out
    assert "cannot be used: page (not_media)" in shown.err
    assert run([*command, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["num_probed"] == 0
