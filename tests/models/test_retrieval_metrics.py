"""Ranks, their ties and their base; the golden case; the published code's own counting."""

import golden_cases
import numpy as np
import pytest

from vlpipe.models.metrics.retrieval import (
    median_rank,
    published_jsfusion_figures,
    ranks,
    recall_at,
    retrieval_figures,
)


@pytest.mark.parametrize("ties", ["average", "optimistic", "pessimistic"])
def test_golden_ranks_and_figures(ties):
    drawn = golden_cases.inputs("retrieval_metrics")["sims"].astype(np.float64)
    scores = np.round(10 * drawn) + 8 * np.eye(24)
    wanted = golden_cases.outputs("retrieval_metrics")
    assert ranks(scores, ties=ties) == pytest.approx(wanted[f"ranks_{ties}"])
    found = retrieval_figures(scores, ties=ties)
    assert list(found) == ["R@1", "R@5", "R@10", "MedR"]
    assert list(found.values()) == pytest.approx(wanted[f"summary_{ties}"])


def test_ranks_start_at_one_and_share_ties():
    scores = [[5, 1, 1], [5, 5, 5], [9, 3, 2]]
    assert ranks(scores).tolist() == [1, 2, 3]
    assert ranks(scores, [1, 0, 0]).tolist() == [2.5, 2, 1]
    assert median_rank([1, 2, 5, 90]) == 3.5
    assert recall_at([1, 5, 5.5, 11], 5) == 50
    # A constant score is no better than chance.
    assert retrieval_figures(np.zeros((1000, 1000)))["MedR"] == 500.5


def test_queries_may_outnumber_items():
    assert ranks([[3, 1], [3, 1], [1, 2]], [0, 1, 1]).tolist() == [1, 2, 1]


def test_the_published_counting_is_another():
    scores = np.array([[9.0, 0.0], [10.0, 4.0]])  # rows are sentences
    assert retrieval_figures(scores) == {"R@1": 50, "R@5": 100, "R@10": 100, "MedR": 1.5}
    assert published_jsfusion_figures(scores) == {"R@1": 1, "R@5": 2, "R@10": 2, "MedR": 0.5}


def test_what_has_no_rank_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        ranks([[np.nan]])
    with pytest.raises(ValueError, match="2 queries and 1 items"):
        ranks([[1], [2]])
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        ranks([1, 2, 3])
    with pytest.raises(ValueError, match="no ranks"):
        median_rank([])
