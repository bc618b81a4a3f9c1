"""PWC-Net in the published order of work, from the layer table of the paper and nothing else.

What vlpipe's network is measured against, in numbers and in time: every pair has its own two
pyramids, the cost volume takes 81 shifted products, and each layer of a decoder joins its output to
its input. Works on a checkpoint in the published layout (`module...` keys).
`python -m benchmarks pwc` compares the times.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = {"One": 1, "Two": 2, "Thr": 3, "Fou": 4, "Fiv": 5, "Six": 6}
LAYERS = ("One", "Two", "Thr", "Fou", "Fiv")
WARP_SCALE = {5: 0.625, 4: 1.25, 3: 2.5, 2: 5.0}


def plain_flow(state: dict[str, Tensor], first: Tensor, second: Tensor, *, rgb=True) -> Tensor:
    """Flow (B, 2, H, W) in pixels between RGB images (B, 3, H, W), 0..255."""
    height, width = first.shape[2:]
    size = (-(-height // 64) * 64, -(-width // 64) * 64)

    def prepare(image: Tensor) -> Tensor:
        image = image.float() / 255
        if rgb:
            image = image.flip(1)
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False)

    flow = 20 * _level_two(state, prepare(first), prepare(second))
    flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
    return flow * flow.new_tensor([width / size[1], height / size[0]]).view(1, 2, 1, 1)


def plain_cost_volume(first: Tensor, second: Tensor) -> Tensor:
    """(B, 81, H, W): mean over channels of first times second, displaced by -4..4."""
    height, width = first.shape[2:]
    padded = F.pad(second, (4, 4, 4, 4))
    planes = [
        (first * padded[:, :, dy : dy + height, dx : dx + width]).mean(1, keepdim=True)
        for dy in range(9)
        for dx in range(9)
    ]
    return torch.cat(planes, 1)


def plain_warp(features: Tensor, flow: Tensor, *, align_corners=True) -> Tensor:
    """Features at x + flow, zero where the four neighbours are not all inside."""
    height, width = features.shape[2:]
    x = torch.linspace(-1, 1, width).view(1, 1, 1, width).expand(len(flow), 1, height, width)
    y = torch.linspace(-1, 1, height).view(1, 1, height, 1).expand(len(flow), 1, height, width)
    step = flow.new_tensor([2 / (width - 1), 2 / (height - 1)]).view(1, 2, 1, 1)
    grid = (torch.cat([x, y], 1) + flow * step).permute(0, 2, 3, 1)
    joined = torch.cat([features, torch.ones_like(features[:, :1])], 1)
    sampled = F.grid_sample(
        joined, grid, mode="bilinear", padding_mode="zeros", align_corners=align_corners
    )
    return sampled[:, :-1] * (sampled[:, -1:] > 0.999).float()


def _conv(state: dict[str, Tensor], name: str, x: Tensor, *, stride=1, dilation=1) -> Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return F.conv2d(x, weight, bias, stride=stride, padding=dilation, dilation=dilation)


def _pyramid(state: dict[str, Tensor], image: Tensor) -> dict[int, Tensor]:
    levels = {}
    for name, level in LEVELS.items():
        for layer, stride in ((0, 2), (2, 1), (4, 1)):
            key = f"moduleExtractor.module{name}.{layer}"
            image = F.leaky_relu(_conv(state, key, image, stride=stride), 0.1)
        levels[level] = image
    return levels


def _level_two(state: dict[str, Tensor], first: Tensor, second: Tensor) -> Tensor:
    one, two = _pyramid(state, first), _pyramid(state, second)
    flow, features = None, None
    for name, level in reversed(LEVELS.items()):
        if level == 1:
            break
        key = f"module{name}"
        if flow is None:
            features = F.leaky_relu(plain_cost_volume(one[6], two[6]), 0.1)
        else:
            up_flow, up_features = (
                F.conv_transpose2d(
                    x, state[f"{key}.{n}.weight"], state[f"{key}.{n}.bias"], stride=2, padding=1
                )
                for x, n in ((flow, "moduleUpflow"), (features, "moduleUpfeat"))
            )
            warped = plain_warp(two[level], up_flow * WARP_SCALE[level])
            volume = F.leaky_relu(plain_cost_volume(one[level], warped), 0.1)
            features = torch.cat([volume, one[level], up_flow, up_features], 1)
        for layer in LAYERS:
            made = F.leaky_relu(_conv(state, f"{key}.module{layer}.0", features), 0.1)
            features = torch.cat([made, features], 1)
        flow = _conv(state, f"{key}.moduleSix.0", features)
    x = features
    for layer, dilation in zip(range(0, 14, 2), (1, 2, 4, 8, 16, 1, 1), strict=True):
        x = _conv(state, f"moduleRefiner.moduleMain.{layer}", x, dilation=dilation)
        x = x if layer == 12 else F.leaky_relu(x, 0.1)
    return flow + x
