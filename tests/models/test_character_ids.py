"""Ids of characters from pairs, and the figures of re-identification."""

import numpy as np
import pytest

from vlpipe.models.character_ids import character_ids
from vlpipe.models.metrics.identity import fill_in_figures, grounding_accuracy, pair_accuracy


def test_contradicting_pairs_become_groups():
    same = np.eye(4)
    for a, b, share in ((0, 2, 0.9), (2, 3, 0.5), (0, 3, 0.1), (1, 3, 0.2)):
        same[a, b] = same[b, a] = share
    assert character_ids(same) == [0, 1, 0, 0]
    # Token 3 is like 2 but not like 0: 0.3 in the mean.
    assert character_ids(same, linkage="average") == [0, 1, 0, 2]
    assert character_ids(np.zeros((0, 0))) == []
    assert character_ids(np.zeros((3, 3))) == [0, 1, 2]
    assert character_ids(np.ones((3, 3)), linkage="average") == [0, 0, 0]
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        character_ids(np.ones((2, 3)))


def test_fill_in_figures_by_hand():
    predictions = [[0, 0, 1], [0, 1], [0], [4, 4]]
    answers = [["a", "a", "a"], ["a", "b"], ["a"], ["a", "b"]]
    # Pairs right: 1 of 3, 1 of 1, none, 0 of 1. Same: 1/3 in one set. Different: 1 and 0.
    figures = fill_in_figures(predictions, answers)
    assert figures["accuracy"] == pytest.approx(100 * (1 / 3 + 1 + 0) / 3)
    assert figures["same"] == pytest.approx(100 / 3)
    assert figures["different"] == 50
    assert figures["class_accuracy"] == pytest.approx(2 / (3 / 100 + 1 / 50))
    assert fill_in_figures([[0, 1]], [["a", "a"]])["class_accuracy"] == 0
    with pytest.raises(ValueError, match="every set needs an id"):
        fill_in_figures([[0]], [["a", "b"]])


def test_pairs_of_small_sets_are_left_out_or_right():
    tables = [np.array([[1, 0.5], [0.5, 1]]), np.ones((1, 1)), np.array([[1, 0.4], [0.4, 1]])]
    answers = [["a", "a"], ["a"], ["a", "a"]]
    assert pair_accuracy(tables, answers, threshold=0.5) == 50
    assert pair_accuracy(tables, answers, threshold=0.5, is_strict=True) == 0
    right = pair_accuracy(tables, answers, threshold=0.5, empty_sets="right")
    assert right == pytest.approx(200 / 3)
    with pytest.raises(ValueError, match="for 3 labels"):
        pair_accuracy(tables[:1], [["a", "b", "c"]], threshold=0.5)


def test_grounding_looks_at_tracks_of_the_own_clip():
    scores = [[1, 2, 9], [3, 3, 9], [0, 0, 0]]
    own = [[True, True, False], [True, True, False], [False, False, True]]
    right = [[False, True, False], [False, True, False], [False, False, True]]
    # The first of equals is taken: the second token is wrong.
    assert grounding_accuracy(scores, right, own) == pytest.approx(200 / 3)
    with pytest.raises(ValueError, match="no tokens"):
        grounding_accuracy(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3)))
