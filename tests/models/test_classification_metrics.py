"""Mean average precision against a plain count, and what holds for any scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlpipe.models.metrics.classification import average_precisions, mean_average_precision


def plain(scores, labels, *, unlabelled_last=False):
    """Percent, by walking down the ranks one by one; scores without equals."""
    numbers = range(len(scores))
    kept = [n for n in numbers if any(labels[n])]
    by_class = []
    for k in range(len(scores[0])):
        order = sorted(numbers, key=lambda n: -scores[n][k])
        if unlabelled_last:
            order = [n for n in order if n in kept] + [n for n in order if n not in kept]
        hits, precisions = 0, []
        for rank, n in enumerate(order, start=1):
            if labels[n][k]:
                hits += 1
                precisions.append(hits / rank)
        if precisions:
            by_class.append(sum(precisions) / len(precisions))
    return 100 * sum(by_class) / len(by_class)


@st.composite
def tables(draw):
    """Scores that differ, and labels of which one at least is set."""
    videos, classes = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    size = videos * classes
    ranks = draw(st.permutations(range(size)))
    labels = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    shape = (videos, classes)
    return np.array(ranks, float).reshape(shape) / size, np.array(labels).reshape(shape)


@given(tables(), st.booleans())
def test_it_is_what_a_walk_down_the_ranks_counts(table, unlabelled_last):
    scores, labels = table
    found = mean_average_precision(scores, labels, unlabelled_last=unlabelled_last)
    expected = plain(scores.tolist(), labels.tolist(), unlabelled_last=unlabelled_last)
    assert found == pytest.approx(expected)


@given(tables(), st.randoms())
def test_neither_order_nor_scale_of_the_scores_counts(table, random):
    scores, labels = table
    found = mean_average_precision(scores, labels)
    assert 0 < found <= 100
    order = random.sample(range(len(scores)), len(scores))
    assert mean_average_precision(scores[order], labels[order]) == pytest.approx(found)
    assert mean_average_precision(np.exp(3 * scores), labels) == pytest.approx(found)
    assert mean_average_precision(labels.astype(float), labels) == 100
    last = mean_average_precision(scores, labels, unlabelled_last=True)
    assert last >= found - 1e-9


def test_a_small_table_by_hand():
    scores = [[0.9, 0.1, 0.5], [0.8, 0.2, 0.4], [0.7, 0.3, 0.3], [0.6, 0.4, 0.2]]
    labels = [[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert average_precisions(scores, labels) == pytest.approx(
        [(1 + 2 / 3) / 2, 1 / 2, np.nan], nan_ok=True
    )
    assert average_precisions(scores, labels, unlabelled_last=True) == pytest.approx(
        [1, 1, np.nan], nan_ok=True
    )


def test_of_equal_scores_none_stands_before_another():
    labels = np.array([[1], [0], [0], [1]])
    for order in ([0, 1, 2, 3], [1, 2, 3, 0], [3, 2, 1, 0]):
        assert average_precisions(np.zeros((4, 1)), labels[order]).tolist() == [0.5]


def test_what_has_no_precision_is_refused():
    with pytest.raises(ValueError, match="no video has a label"):
        mean_average_precision([[0.5]], [[0]])
    with pytest.raises(ValueError, match="NaN"):
        average_precisions([[np.nan]], [[1]])
    with pytest.raises(ValueError, match=r"scores are \(1, 2\), labels \(1, 1\)"):
        average_precisions([[0.5, 0.1]], [[1]])
