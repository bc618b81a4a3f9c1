"""Batches: every video once, bounded work, and stable when videos are added."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from vlpipe.pipelines.extraction.batches import MAX_VIDEOS, Batch, VideoTask, cut_batches


def task(video_id, seconds=1.0, extractors=("a",)):
    return VideoTask(id=video_id, path=Path("x"), extractors=extractors, estimated_s=seconds)


ids = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=60)


@given(ids, st.floats(0.5, 50))
def test_every_video_is_in_one_batch_of_bounded_work(names, seconds):
    batches = cut_batches([task(n) for n in names], seconds=seconds, identity=["x"])
    assert sorted(t.id for b in batches for t in b.tasks) == sorted(names)
    for batch in batches:
        assert len(batch.tasks) == 1 or batch.estimated_s <= seconds


@given(ids, st.text(min_size=1, max_size=8))
def test_a_new_video_touches_only_the_batch_it_falls_into(names, new):
    names = [n for n in names if n != new]
    before = cut_batches([task(n) for n in names], seconds=5, identity=["x"])
    after = cut_batches([task(n) for n in [*names, new]], seconds=5, identity=["x"])
    new_ids = {b.id for b in after}
    changed = [b for b in before if b.id not in new_ids]
    assert len(changed) <= 1
    joined = {t.id for b in after if b.id not in {x.id for x in before} for t in b.tasks}
    assert joined == {new} | {t.id for b in changed for t in b.tasks}


@given(ids)
def test_order_does_not_matter_and_identity_does(names):
    one = cut_batches([task(n) for n in names], seconds=5, identity=["x"])
    same = cut_batches([task(n) for n in reversed(names)], seconds=5, identity=["x"])
    other = cut_batches([task(n) for n in names], seconds=5, identity=["y"])
    assert one == same
    assert not {b.id for b in one} & {b.id for b in other}


def test_a_batch_holds_at_most_what_a_commit_may():
    batches = cut_batches([task(str(n), 0.0) for n in range(5000)], seconds=60, identity=[])
    assert max(len(b.tasks) for b in batches) <= MAX_VIDEOS


def test_videos_with_nothing_to_do_are_left_out():
    assert cut_batches([task("a", extractors=())], seconds=1, identity=[]) == []


def test_batches_travel_as_json():
    (batch,) = cut_batches([task("a", 2.5, ("x", "y"))], seconds=5, identity=["i"])
    assert Batch.model_validate_json(batch.model_dump_json()) == batch
