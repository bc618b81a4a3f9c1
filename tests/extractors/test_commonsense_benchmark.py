"""The benchmark of common-sense features: what it states of a small demo dataset."""

from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_still_scenes_need_a_fifth_of_the_calls_or_fewer(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import commonsense

    with closing(commonsense.count_calls(8, 0)) as found:
        what, still = next(found)
    assert what == commonsense.STILL
    # Nothing comes or goes in the one still scene: its first frame stands for all of them.
    assert (still.clips, still.cached) == (1, 1)
    assert still.ratio >= commonsense.GOAL
