"""3x3 convolutions of stride 1 with a quarter of the multiplications, for inference on a CPU.

Paper: Fast Algorithms for Convolutional Neural Networks (Lavin and Gray, 2016), F(4x4, 3x3): a
tile of 6x6 inputs and a 3x3 filter are both brought to 36 numbers, where the convolution is a
product number by number; 36 numbers of an output tile are brought back to 4x4 pixels. 36 products
for 16 outputs, where the definition takes 144. The result differs from it by rounding: 2e-6 of its
norm in float32, against 2e-7.

Maps are (C, H, W): one image is worked on at a time, so that its numbers do not depend on what else
is in a batch. Convolutions with dilation could be made so on interleaved planes; moving the pixels
costs what the products save.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 4  # output pixels along an edge of a tile
REACH = TILE + 2  # input pixels along an edge
NUM_PRODUCTS = REACH * REACH

# Matrices of F(4, 3) for the points 0, 1, -1, 2, -2 and infinity: of inputs, filters and outputs.
_INPUTS = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_FILTERS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUTS = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def _both_axes(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    """The matrix that works on flattened tiles as `rows` does on either axis."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix).float()


TO_PRODUCTS = _both_axes(_INPUTS)  # (36, 36)
_FILTER_TO_PRODUCTS = _both_axes(_FILTERS)  # (36, 9)
FROM_PRODUCTS = _both_axes(_OUTPUTS)  # (16, 36)


def num_tiles(height: int, width: int) -> int:
    """Tiles of maps of that size; partial ones count."""
    return -(-height // TILE) * -(-width // TILE)


def is_worthwhile(height: int, width: int) -> bool:
    """Whether maps of that size fill enough tiles for the products to win over the definition."""
    tiles = num_tiles(height, width)
    # Half the multiplications at least, and matrices that are not all edge.
    return tiles >= 64 and 2 * NUM_PRODUCTS * tiles <= 9 * height * width


def transform_filters(weight: Tensor) -> Tensor:
    """(36, outputs, inputs) from the weights (outputs, inputs, 3, 3) of a convolution."""
    outputs, inputs = weight.shape[:2]
    flat = weight.reshape(outputs * inputs, 9)
    return (_FILTER_TO_PRODUCTS @ flat.T).view(NUM_PRODUCTS, outputs, inputs)


def transform_maps(maps: Tensor, out: Tensor) -> None:
    """Writes the numbers of all tiles of maps (C, H, W) to `out` (36, C, tiles).

    out: a slice along its channels may be given.
    """
    height, width = maps.shape[1:]
    below = -height % TILE + 1
    right = -width % TILE + 1
    padded = F.pad(maps, (1, right, 1, below))
    tiles = padded.unfold(1, REACH, TILE).unfold(2, REACH, TILE)  # (C, h, w, 6, 6)
    flat = tiles.permute(3, 4, 0, 1, 2).reshape(NUM_PRODUCTS, -1)  # (36, C * tiles)
    torch.mm(TO_PRODUCTS, flat, out=out.view(NUM_PRODUCTS, -1))


def convolve(filters: Tensor, numbers: Tensor, bias: Tensor, size: tuple[int, int]) -> Tensor:
    """The convolution, (outputs, H, W), of maps of that size (H, W) with zeros around.

    filters: (36, outputs, C) of `transform_filters`. numbers: (36, C, tiles) of `transform_maps`.
    """
    height, width = size
    products = torch.bmm(filters, numbers)  # (36, outputs, tiles)
    outputs = products.shape[1]
    rows, columns = -(-height // TILE), -(-width // TILE)
    pixels = (FROM_PRODUCTS @ products.view(NUM_PRODUCTS, -1)).view(
        TILE, TILE, outputs, rows, columns
    )
    tiled = pixels.permute(2, 3, 0, 4, 1).reshape(outputs, rows * TILE, columns * TILE)
    return tiled[:, :height, :width].add_(bias.view(-1, 1, 1))


def convolve_maps(maps: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
    """The convolution (outputs, H, W) of maps (C, H, W), which are brought to tiles here."""
    channels, height, width = maps.shape
    numbers = maps.new_empty(NUM_PRODUCTS, channels, num_tiles(height, width))
    transform_maps(maps, numbers)
    return convolve(filters, numbers, bias, (height, width))
