"""Figures of grounding and re-identification; means over sets of clips, in percent.

The public code of CiSIN counts a set with fewer than two tokens as right; the official script of
LSMDC 2019 leaves such sets out. Both are given: `empty_sets="out"` is the headline.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

EmptySets = Literal["out", "right"]


def fill_in_figures(
    predictions: Sequence[Sequence[Hashable]], answers: Sequence[Sequence[Hashable]]
) -> dict[str, float]:
    """Of ids for the blanks of each set: are two blanks rightly called the same or different?

    `accuracy`: share of right pairs of a set, mean over sets with at least two blanks. `same` and
    `different`: of the pairs that are so, mean over sets that have any. `class_accuracy`: the
    harmonic mean of these two (0 if one is 0 or absent). LSMDC 2019, task 2.
    """
    tables = [(_is_same(told), _is_same(true)) for told, true in _checked(predictions, answers)]
    everything = [_share(told == true) for told, true in tables]
    same = [_share(told[true]) for told, true in tables]
    different = [_share(~told[~true]) for told, true in tables]
    figures = {
        "accuracy": _mean(everything), "same": _mean(same), "different": _mean(different),
    }  # fmt: skip
    both = figures["same"] + figures["different"]
    figures["class_accuracy"] = (
        2 * figures["same"] * figures["different"] / both if both > 0 else 0.0
    )
    return figures


def pair_accuracy(
    predictions: Sequence[npt.ArrayLike],
    answers: Sequence[Sequence[Hashable]],
    *,
    threshold: float,
    is_strict: bool = False,
    empty_sets: EmptySets = "out",
) -> float:
    """Percent of right pairs i < j of a set, mean over sets.

    predictions: [N, N] of each set; two are one where it reaches the threshold, or with is_strict
        exceeds it (C >= 0.5, V > 0). answers: N labels of each set.
    empty_sets: those with fewer than two members are left out, or count as right.
    """
    shares = []
    for table, labels in zip(predictions, answers, strict=True):
        scores = np.asarray(table, np.float64)
        if scores.shape != (len(labels), len(labels)):
            raise ValueError(f"pairs have the shape {scores.shape} for {len(labels)} labels")
        above = scores[np.triu_indices(len(labels), 1)]
        told = above > threshold if is_strict else above >= threshold
        shares.append(_share(told == _is_same(labels)))
    if empty_sets == "right":
        shares = [1.0 if share is None else share for share in shares]
    return _mean(shares)


def grounding_accuracy(
    scores: npt.ArrayLike, is_right: npt.ArrayLike, is_own: npt.ArrayLike
) -> float:
    """Percent of tokens whose best track of their own clip is a right one; the first of equals.

    scores: [N, M]; is_right, is_own: bool [N, M]. Tokens without a right track are wrong.
    """
    table, own = np.asarray(scores, np.float64), np.asarray(is_own, bool)
    if not len(table):
        raise ValueError("there are no tokens to ground")
    best = np.where(own, table, -np.inf).argmax(axis=1)
    hits = (np.asarray(is_right, bool) & own)[np.arange(len(table)), best]
    return 100.0 * float(hits.mean())


def _checked(
    predictions: Sequence[Sequence[Hashable]], answers: Sequence[Sequence[Hashable]]
) -> Iterable[tuple[Sequence[Hashable], Sequence[Hashable]]]:
    sizes = [len(told) for told in predictions], [len(true) for true in answers]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"predictions of {len(sizes[0])} sets with {sum(sizes[0])} blanks for {len(sizes[1])} "
            f"sets with {sum(sizes[1])}; every set needs an id for each of its blanks"
        )
    return zip(predictions, answers, strict=True)


def _is_same(labels: Sequence[Hashable]) -> npt.NDArray[np.bool_]:
    """bool [N (N - 1) / 2] of the pairs i < j."""
    pairs = [a == b for i, a in enumerate(labels) for b in labels[i + 1 :]]
    return np.array(pairs, bool)


def _share(right: npt.NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if right.size else None


def _mean(shares: Sequence[float | None]) -> float:
    """In percent, of what is there; 0 of nothing."""
    known = [share for share in shares if share is not None]
    return 100.0 * sum(known) / len(known) if known else 0.0
