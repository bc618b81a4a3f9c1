"""Which detection belongs to which track: overlap of boxes, and pairs of least total cost.

Shortest augmenting paths with dual variables (Jonker and Volgenant, A Shortest Augmenting Path
Algorithm for Dense and Sparse Linear Assignment Problems, 1987), as in scipy's
`linear_sum_assignment`. The problems here are small (persons in a frame), and scipy weighs
36 MB for this one function.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def box_iou(boxes: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> Array:
    """Intersection over union in [0, 1], float64 [N, M], of boxes [N, 4] and [M, 4].

    Boxes are x1, y1, x2, y2, continuous (no + 1). Two boxes without area have overlap 0.
    """
    a = np.asarray(boxes, np.float64).reshape(-1, 1, 4)  # (N, 1, 4)
    b = np.asarray(others, np.float64).reshape(1, -1, 4)  # (1, M, 4)
    edges = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = edges.clip(min=0).prod(axis=-1)  # (N, M)
    whole = box_area(a) + box_area(b) - common
    return np.where(whole > 0, common / np.where(whole > 0, whole, 1), 0)


def box_area(boxes: npt.NDArray[np.floating]) -> Array:
    """Area of boxes [..., 4] as x1, y1, x2, y2; 0 where an edge is negative."""
    edges = np.asarray(boxes[..., 2:], np.float64) - boxes[..., :2]
    return np.asarray(edges.clip(min=0).prod(axis=-1))


def assign(cost: npt.NDArray[np.floating]) -> list[tuple[int, int]]:
    """The pairs (row, column) of least total cost of [N, M], each row and column once at most.

    Infinite entries are forbidden: as many pairs are made as the finite ones allow, and among
    those the cheapest. Costs are finite or infinite, never NaN. Pairs come in the order of rows.
    """
    cost = np.asarray(cost, np.float64)
    if cost.size == 0:
        return []
    allowed = np.isfinite(cost)
    # One forbidden pair costs more than all others together, so that it is taken only at need.
    spread = np.ptp(cost[allowed]) if allowed.any() else 0.0
    forbidden = (spread + 1) * (min(cost.shape) + 1)
    lowest = cost[allowed].min() if allowed.any() else 0.0
    filled = np.where(allowed, cost - lowest, forbidden)
    if len(cost) > cost.shape[1]:
        pairs = [(row, column) for column, row in enumerate(_columns_of_rows(filled.T))]
    else:
        pairs = list(enumerate(_columns_of_rows(filled)))
    return sorted((row, column) for row, column in pairs if allowed[row, column])


def _columns_of_rows(cost: Array) -> list[int]:
    """The column of each row of [N, M], N <= M, all costs finite."""
    num_rows, num_columns = cost.shape
    row_price, column_price = np.zeros(num_rows), np.zeros(num_columns)
    column_of = np.full(num_rows, -1)
    row_of = np.full(num_columns, -1)
    for first in range(num_rows):
        length = np.full(num_columns, np.inf)  # of the shortest path to each column
        before = np.full(num_columns, -1)  # the row that this path comes from
        done = np.zeros(num_columns, bool)
        passed: list[int] = []
        row, end, reached = first, -1, 0.0
        while end < 0:
            passed.append(row)
            through = reached + cost[row] - row_price[row] - column_price
            shorter = ~done & (through < length)
            length[shorter], before[shorter] = through[shorter], row
            nearest = int(np.argmin(np.where(done, np.inf, length)))
            reached, done[nearest] = length[nearest], True
            if row_of[nearest] < 0:
                end = nearest
            else:
                row = int(row_of[nearest])
        row_price[first] += reached
        for other in passed[1:]:
            row_price[other] += reached - length[column_of[other]]
        column_price[done] -= reached - length[done]
        while end >= 0:
            row = int(before[end])
            row_of[end] = row
            column_of[row], end = end, int(column_of[row])
    return [int(column) for column in column_of]
