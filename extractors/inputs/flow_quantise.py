"""Optical flow to the input of I3D, by way of the 257 levels that it was trained on.

Paper: Quo Vadis, Action Recognition? (Carreira and Zisserman, 2017), whose flow came as 8-bit
pictures. v-iashin/video_features keeps the levels as floats: they run from 0 to 256, since +20
pixels give 255.5, rounded half to even. Cast to uint8, level 256 would become 0, the fastest motion
in the opposite direction. Zero flow is level 128, which the network sees as +0.00392.

Data flow: flow (T, 2, H, W) in pixels -> centre crop (T, 2, 224, 224) -> clamp to [-20, 20]
-> levels round(128 + 255 / 40 flow) -> 2 level / 255 - 1.
"""

from torch import Tensor

FLOW_LIMIT_PX = 20.0
ZERO_LEVEL = 128.0
LEVELS_PER_PX = 255 / (2 * FLOW_LIMIT_PX)


def crop_center(maps: Tensor, edge: int) -> Tensor:
    """The centred square (..., edge, edge) of maps (..., H, W), its corner rounded down."""
    top = (maps.shape[-2] - edge) // 2
    left = (maps.shape[-1] - edge) // 2
    return maps[..., top : top + edge, left : left + edge]


def flow_levels(flow: Tensor) -> Tensor:
    """Whole numbers 0..256 as float32, of the shape of `flow`, which is in pixels."""
    limited = flow.float().clamp(-FLOW_LIMIT_PX, FLOW_LIMIT_PX)
    return limited.mul_(LEVELS_PER_PX).add_(ZERO_LEVEL).round_()


def scale_levels(levels: Tensor) -> Tensor:
    """2 level / 255 - 1: from -1 to 1.00784, the input of I3D."""
    return levels * 2 / 255 - 1


def flow_to_input(flow: Tensor, edge: int) -> Tensor:
    """(2, T, edge, edge) for I3D, without batch axis, from flow (T, 2, H, W) in pixels."""
    return scale_levels(flow_levels(crop_center(flow, edge))).transpose(0, 1)
