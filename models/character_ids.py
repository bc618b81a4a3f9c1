"""Local ids of characters from pairs that may contradict each other."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Linkage = Literal["components", "average"]


def character_ids(
    same: npt.ArrayLike, *, threshold: float = 0.5, linkage: Linkage = "components"
) -> list[int]:
    """An id for each of N tokens, from 0 in the order of their first mention.

    same: [N, N], symmetric or nearly so (its mean with its transpose is taken), from threshold on
        two tokens are one. linkage: `components` joins whatever is connected; `average` joins the
        two groups with the highest mean, as long as it reaches the threshold.
    """
    table = np.asarray(same, np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(f"pairs have the shape {table.shape}; expected [N, N]")
    table = (table + table.T) / 2
    groups = _components(table, threshold) if linkage == "components" else _average(
        table, threshold
    )  # fmt: skip
    ids = [0] * len(table)
    for number, group in enumerate(sorted(groups, key=min)):
        for token in group:
            ids[token] = number
    return ids


def track_characters(
    ids: Sequence[int], mention_tracks: Sequence[int], same_tracks: npt.ArrayLike
) -> list[int]:
    """The character of each of M tracks: that of the mentions which are grounded on it, else of the
    tracks that it is one person with, else a new one, whose ids come after those of the mentions.

    ids: of N mentions. mention_tracks: for each its track, -1 without one. same_tracks: [M, M], two
    are one person above 0. Of several characters the one with the most mentions on a track, and
    the one whose tracks are most alike on average.
    """
    table = np.asarray(same_tracks, np.float64)
    count = len(table)
    votes: list[Counter[int]] = [Counter() for _ in range(count)]
    for number, track in zip(ids, mention_tracks, strict=True):
        if track >= 0:
            votes[track][number] += 1
    given = [of_track.most_common(1)[0][0] if of_track else -1 for of_track in votes]
    found = list(given)
    known = sorted(set(given) - {-1})
    for track in (m for m in range(count) if given[m] < 0):
        means = {
            number: float(np.mean([table[track, m] for m in range(count) if given[m] == number]))
            for number in known
        }
        best = max(means, key=means.__getitem__, default=-1)
        if best >= 0 and means[best] > 0:
            found[track] = best
    rest = [track for track in range(count) if found[track] < 0]
    if rest:
        first = max(ids, default=-1) + 1
        same = (table[np.ix_(rest, rest)] > 0).astype(np.float64)
        for track, number in zip(rest, character_ids(same), strict=True):
            found[track] = first + number
    return found


def _components(table: npt.NDArray[np.float64], threshold: float) -> list[list[int]]:
    left, groups = set(range(len(table))), []
    while left:
        group, reached = [], [min(left)]
        left.discard(reached[0])
        while reached:
            token = reached.pop()
            group.append(token)
            near = [other for other in left if table[token, other] >= threshold]
            left.difference_update(near)
            reached += near
        groups.append(group)
    return groups


def _average(table: npt.NDArray[np.float64], threshold: float) -> list[list[int]]:
    groups = [[token] for token in range(len(table))]
    while len(groups) > 1:
        means = {
            (a, b): float(table[np.ix_(groups[a], groups[b])].mean())
            for a in range(len(groups))
            for b in range(a + 1, len(groups))
        }
        (a, b), best = max(means.items(), key=lambda item: item[1])
        if best < threshold:
            break
        groups[a] += groups.pop(b)
    return groups
