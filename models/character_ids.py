"""Local ids of characters from pairs that may contradict each other."""

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
