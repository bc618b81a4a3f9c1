"""3x3x3 convolutions of stride 1 with a quarter of the multiplications, for inference on a CPU.

As `networks/winograd.py` for the two axes of a frame; along time the three frames that an output
frame reads are three products, which add up before they are brought back to pixels. Results differ
from the definition by rounding, 2e-6 of their norm in float32.

Maps are (T, H, W, C), channels last: the tiles are then rows of matrices, and those of the frame
before are the same matrix some rows earlier. A few frames are worked on at a time, so that their
products stay in the processor's cache.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from vlpipe.extractors.networks import winograd
from vlpipe.extractors.networks.scratch import Scratch
from vlpipe.extractors.networks.winograd import NUM_PRODUCTS, REACH, TILE

# Of intermediate numbers at a time; half of a usual third-level cache.
_MOST_BYTES = 16 << 20

# The product whose share of every pixel of a tile is one: that of point 1 on both axes.
_CONSTANT = REACH + 1


class CubeConvolution:
    """Convolution with zeros around: frames (T, H, W, O), some at a time, from (T, H, W, C)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """weight: (O, C, 3, 3, 3). bias: (O,)."""
        outputs, inputs = weight.shape[:2]
        by_frame = weight.permute(2, 0, 1, 3, 4).reshape(3 * outputs, inputs, 3, 3)
        filters = winograd.transform_filters(by_frame).view(NUM_PRODUCTS, 3, outputs, inputs)
        self.filters = filters.permute(1, 0, 3, 2).contiguous()  # (3, 36, C, O)
        self.bias = bias

    def __call__(self, maps: Tensor, scratch: Scratch) -> Iterator[Tensor]:
        """The frames in order; those that were given are void when the next ones come."""
        steps, height, width, channels = maps.shape
        tiles = winograd.num_tiles(height, width)
        num_numbers = NUM_PRODUCTS * tiles * (2 * channels + 2 * self.bias.numel())
        at_once = max(1, min(steps, _MOST_BYTES // (num_numbers * maps.element_size())))
        # Of one frame before and one after those that are made.
        numbers = scratch.take("numbers", NUM_PRODUCTS, at_once + 2, tiles, channels)
        numbers[:, 0] = 0
        self._transform(maps[:1], numbers[:, 1:2], scratch)
        for start in range(0, steps, at_once):
            end = min(start + at_once, steps)
            count = end - start
            if start:
                numbers[:, :2] = numbers[:, at_once : at_once + 2].clone()
            known = maps[start + 1 : end + 1]
            self._transform(known, numbers[:, 2 : 2 + len(known)], scratch)
            if len(known) < count:
                numbers[:, 1 + count] = 0
            made = self._convolve(numbers[:, : count + 2], (height, width), scratch)
            yield made  # (n, H, W, O)

    def _transform(self, maps: Tensor, out: Tensor, scratch: Scratch) -> None:
        """The numbers (36, n, tiles, C) of frames (n, H, W, C)."""
        count, height, width, channels = maps.shape
        if not count:
            return
        rows, columns = -(-height // TILE), -(-width // TILE)
        below, right = -height % TILE + 1, -width % TILE + 1
        padded = F.pad(maps, (0, 0, 1, right, 1, below))
        tiles = padded.unfold(1, REACH, TILE).unfold(2, REACH, TILE)  # (n, h, w, C, 6, 6)
        flat = scratch.take("flat", REACH, REACH, count, rows, columns, channels)
        flat.copy_(tiles.permute(4, 5, 0, 1, 2, 3))
        torch.mm(winograd.TO_PRODUCTS, flat.view(NUM_PRODUCTS, -1), out=out.flatten(1))

    def _convolve(self, numbers: Tensor, size: tuple[int, int], scratch: Scratch) -> Tensor:
        """Frames (n, H, W, O) of that size from the numbers (36, n + 2, tiles, C) of n + 2."""
        height, width = size
        rows, columns = -(-height // TILE), -(-width // TILE)
        count, outputs = numbers.shape[1] - 2, self.bias.numel()
        products = scratch.take("products", NUM_PRODUCTS, count * rows * columns, outputs)
        for step, filters in enumerate(self.filters):
            shifted = numbers[:, step : step + count].flatten(1, 2)  # (36, n tiles, C)
            if step:
                products.baddbmm_(shifted, filters)
            else:
                torch.bmm(shifted, filters, out=products)
        products[_CONSTANT] += self.bias
        pixels = scratch.take("pixels", TILE * TILE, products[0].numel())
        torch.mm(winograd.FROM_PRODUCTS, products.view(NUM_PRODUCTS, -1), out=pixels)
        tiled = pixels.view(TILE, TILE, count, rows, columns, outputs)
        frames = scratch.take("frames", count, rows, TILE, columns, TILE, outputs)
        frames.copy_(tiled.permute(2, 3, 0, 4, 1, 5))
        whole = frames.view(count, rows * TILE, columns * TILE, outputs)
        return whole[:, :height, :width]
