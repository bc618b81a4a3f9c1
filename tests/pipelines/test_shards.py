"""Shards: every video in one of them, whatever the others are, and batches as of the whole."""

from pathlib import Path

import pytest
from extraction_results import contents
from hypothesis import given
from hypothesis import strategies as st

from vlpipe.pipelines.cli import run
from vlpipe.pipelines.extraction.batches import VideoTask, cut_batches
from vlpipe.pipelines.extraction.extract import plan_extraction, run_extraction
from vlpipe.pipelines.extraction.shards import parse_shard, shard_of


@given(st.text(max_size=20), st.integers(1, 1000))
def test_a_video_is_in_one_shard_that_exists(video_id, count):
    assert 1 <= shard_of(video_id, count) <= count


def test_shards_are_of_equal_size_but_for_chance():
    sizes = [0] * 16
    for n in range(16_000):
        sizes[shard_of(f"video{n}", 16) - 1] += 1
    assert min(sizes) > 850
    assert max(sizes) < 1150


@pytest.mark.parametrize("count", [2, 4, 8])
def test_shards_of_a_power_of_two_have_the_batches_of_the_whole(count):
    tasks = [
        VideoTask(id=str(n), path=Path("x"), extractors=("a",), estimated_s=1) for n in range(2000)
    ]
    whole = {b.id for b in cut_batches(tasks, seconds=60, identity=["x"])}
    shards = [[t for t in tasks if shard_of(t.id, count) == k + 1] for k in range(count)]
    of_shards = [b.id for s in shards for b in cut_batches(s, seconds=60, identity=["x"])]
    assert sorted(of_shards) == sorted(whole)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "/", "1/0", "a/b", "-1/4", "1/4/2", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ValueError, match=r"expected k/n"):
        parse_shard(text)


def test_shards_together_make_the_store_of_one_command(make_job, tmp_path):
    job, whole = make_job(), make_job(store=str(tmp_path / "whole"))
    summaries = [run_extraction(job.model_copy(update={"shard": f"{k}/3"})) for k in range(1, 4)]
    assert sum(s.selected for s in summaries) == sum(s.extracted for s in summaries) == 6
    run_extraction(whole)
    assert contents(job.store) == contents(whole.store)
    assert plan_extraction(job).num_tasks == 0


def test_a_shard_without_videos_has_nothing_to_do(make_job, clips):
    job = make_job(paths=(clips / "gif0.gif",), features=("resnet18",))
    empty = 2 if shard_of("gif0", 2) == 1 else 1
    summary = run_extraction(job.model_copy(update={"shard": f"{empty}/2"}))
    assert (summary.selected, summary.exit_code) == (0, 0)


def test_a_wrong_shard_is_explained(clips, capfd):
    words = ["extract", str(clips), "--features", "resnet18", "--weights", "untrained"]
    assert run([*words, "--shard", "0/4"]) == 2
    assert "k from 1 to n" in capfd.readouterr().err
