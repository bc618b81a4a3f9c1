"""How two feature maps are compared in optical flow: displaced products, and warping by a flow.

Both as in PWC-Net (Sun et al., 2018) and the published port of it; `networks/pwc.py` says whose.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 4  # displacements, in pixels of the maps to either side
NUM_DISPLACEMENTS = (2 * REACH + 1) ** 2

# Pixels of a row of the first map that are multiplied at once with all that they meet. Of the
# products of a strip, 9 of 24 are wanted; longer strips waste more, shorter ones are less matrix.
STRIP = 16


def cost_volume(first: Tensor, second: Tensor) -> Tensor:
    """(B, 81, H, W): mean over channels of first times second displaced by (dx, dy).

    Maps are (B, C, H, W). Channel (dy + 4) * 9 + dx + 4, dx and dy from -4 to 4; zero where the
    second map ends.
    """
    batch, channels, height, width = first.shape
    num = -(-width // STRIP)
    spare = num * STRIP - width
    wide = STRIP + 2 * REACH
    # Every strip of the first map and, nine rows high, the wider strip of the second around it:
    # a product of matrices per strip and dy, whose diagonals are the sums for each dx.
    a = F.pad(first, (0, spare)).permute(2, 0, 3, 1)  # (H, B, W, C)
    a = a.reshape(height * batch * num, STRIP, channels)
    b = F.pad(second, (REACH, REACH + spare, REACH, REACH)).permute(2, 0, 1, 3)
    b = b.unfold(3, wide, STRIP).permute(0, 1, 3, 2, 4)  # (H + 8, B, num, C, wide)
    b = b.reshape((height + 2 * REACH) * batch * num, channels, wide)
    made = a.new_empty(2 * REACH + 1, 2 * REACH + 1, len(a), STRIP)  # (dy, dx, H * B * num, x)
    # Autocast would round the features of both maps: it lowers the precision of layers alone here.
    with torch.autocast(a.device.type, enabled=False):
        for dy in range(2 * REACH + 1):
            start = dy * batch * num
            sums = torch.bmm(a, b[start : start + len(a)])  # (H * B * num, STRIP, wide)
            made[dy] = sums.as_strided(made[dy].shape, (1, STRIP * wide, wide + 1))
    volume = made.view(NUM_DISPLACEMENTS, height, batch, num * STRIP)[..., :width]
    return volume.permute(2, 0, 1, 3) / channels  # (B, 81, H, W)


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """(B, C, H, W): features at x + flow (B, 2, H, W), in pixels of the maps.

    Zero where any of the four neighbours with weight lies outside. Corners are aligned: torch 1.2,
    which the published network was used with, did so by default.
    """
    height, width = features.shape[2:]
    x = torch.linspace(-1, 1, width, device=flow.device).view(1, 1, width)
    y = torch.linspace(-1, 1, height, device=flow.device).view(1, height, 1)
    u, v = flow.unbind(1)  # (B, H, W)
    grid = torch.stack([x + u * (2 / (width - 1)), y + v * (2 / (height - 1))], dim=3)
    ones = features.new_ones(1, 1, height, width).expand(len(features), -1, -1, -1)
    inside = F.grid_sample(ones, grid, padding_mode="zeros", align_corners=True) > 0.999
    return F.grid_sample(features, grid, padding_mode="zeros", align_corners=True) * inside
