"""Maps of gaze: from where people looked to a grid, and from the grid to the size of a frame.

Smoothing and resizing are linear along each axis, so that both are products with a matrix of that
axis. Gaussians end at four deviations and see the map mirrored at its edges, the outermost cells
included (as in SciPy); resizing takes cells for squares and repeats the outermost ones (as in
Pillow, OpenCV and torch).
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

GRID = 49
TARGET_SIGMA = 2.0
_REACH = 4.0  # deviations

Floats = npt.NDArray[np.float64]


@lru_cache(maxsize=64)
def blur_matrix(size: int, sigma: float) -> Floats:
    """(size, size) such that its product with a column of that many cells smooths the column."""
    reach = int(_REACH * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    places = (np.arange(size)[:, None] + offsets) % (2 * size)
    sources = np.minimum(places, 2 * size - 1 - places)  # mirrored
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], sources), weights)
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=64)
def resize_matrix(size: int, new_size: int) -> Floats:
    """(new_size, size) such that its product with a column of `size` cells resizes it bilinearly;
    made to enlarge (when shrinking, cells between would be passed over)."""
    centres = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    centres = centres.clip(0, size - 1)
    lower = np.minimum(np.floor(centres).astype(np.int64), max(size - 2, 0))
    share = centres - lower
    matrix = np.zeros((new_size, size))
    rows = np.arange(new_size)
    np.add.at(matrix, (rows, lower), 1 - share)
    np.add.at(matrix, (rows, np.minimum(lower + 1, size - 1)), share)
    matrix.setflags(write=False)
    return matrix


def blurred(maps: Floats, sigma: float) -> Floats:
    """The maps (..., H, W) after a Gaussian filter of that deviation in cells."""
    height, width = maps.shape[-2:]
    return blur_matrix(height, sigma) @ maps @ blur_matrix(width, sigma).T


def resized(maps: Floats, height: int, width: int) -> Floats:
    """The maps (..., h, w) enlarged bilinearly to (..., height, width)."""
    return resize_matrix(maps.shape[-2], height) @ maps @ resize_matrix(maps.shape[-1], width).T


def grid_cells(xy: npt.ArrayLike, width: int, height: int) -> npt.NDArray[np.int64]:
    """int64 (N, 2), row and column on the 49x49 grid of points (N, 2), x and y in pixels of a frame
    of that size: the outermost pixels are the outermost cells."""
    points = np.asarray(xy, np.float64).reshape(-1, 2)
    scaled = points[:, ::-1] * (GRID - 1) / (np.array([height, width]) - 1)
    cells: npt.NDArray[np.int64] = np.rint(scaled).astype(np.int64).clip(0, GRID - 1)
    return cells


def target_map(xy: npt.ArrayLike, width: int, height: int) -> Floats | None:
    """float64 (49, 49) that sums to 1: the mean over the points of all subjects (N, 2), smoothed
    by a Gaussian of 2 cells. None without any point: then nobody knows where to look."""
    cells = grid_cells(xy, width, height)
    if not len(cells):
        return None
    counts = np.bincount(cells[:, 0] * GRID + cells[:, 1], minlength=GRID**2)
    smooth = blurred(counts.reshape(GRID, GRID) / len(cells), TARGET_SIGMA)
    target: Floats = smooth / smooth.sum()
    return target
