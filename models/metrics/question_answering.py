"""Figures of TGIF-QA, MSVD-QA and MSRVTT-QA, over whole splits (never as a mean over batches)."""

from collections.abc import Hashable, Sequence

import numpy as np

LEAST_COUNT, MOST_COUNT = 1, 10


def rounded_count(number: float) -> int:
    """The count 1 to 10 that a raw number stands for; halves go to the even one."""
    return int(np.clip(np.rint(number), LEAST_COUNT, MOST_COUNT))


def count_error(predictions: Sequence[int], answers: Sequence[int]) -> float:
    """Mean squared error of counts; an answer of 0 (no repetition) counts as 1. Lower is better."""
    _check(predictions, answers)
    wanted = np.maximum(np.asarray(answers, np.float64), LEAST_COUNT)
    return float(np.mean((np.asarray(predictions, np.float64) - wanted) ** 2))


def accuracy(predictions: Sequence[Hashable], answers: Sequence[Hashable]) -> float:
    """Percent of predictions that equal the answer."""
    _check(predictions, answers)
    right = sum(p == a for p, a in zip(predictions, answers, strict=True))
    return 100.0 * right / len(answers)


def accuracy_by(
    groups: Sequence[str], predictions: Sequence[Hashable], answers: Sequence[Hashable]
) -> dict[str, float]:
    """Accuracy of each group, by the group's name, sorted."""
    return {
        group: accuracy(
            [p for g, p in zip(groups, predictions, strict=True) if g == group],
            [a for g, a in zip(groups, answers, strict=True) if g == group],
        )
        for group in sorted(set(groups))
    }


def _check(predictions: Sequence[object], answers: Sequence[object]) -> None:
    if len(predictions) != len(answers) or not answers:
        raise ValueError(
            f"{len(predictions)} predictions for {len(answers)} answers; expected as many, not none"
        )
