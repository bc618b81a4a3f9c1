"""Residual networks as Caffe trained them: the stride of a stage sits in its first 1x1 convolution.

Code: the MSRA models of Deep Residual Learning (He et al., 2016), as Caffe detectors use them
(py-faster-rcnn, bottom-up attention) and their PyTorch ports (detectron2, maskrcnn-benchmark).
torchvision has the stride in the 3x3 convolution, which with the same weights gives other numbers.

Checkpoint layouts, both brought to torchvision's names by `torchvision_key`: detectron2's
`stem.conv1.norm.bias`, `res2.0.conv1.norm.weight`, `res2.0.shortcut.weight`, ..., and
maskrcnn-benchmark's `stem.conv1.weight`, `stem.bn1.bias`, `layer1.0.downsample.0.weight`, ...
"""

import re
from functools import partial
from typing import cast

from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def caffe_resnet(
    depth: int,
    *,
    eps: float = 1e-5,
    is_frozen: bool = True,
    pool_padding: int = 1,
    pool_ceil: bool = False,
    last_dilation: int = 1,
) -> ResNet:
    """torchvision's ResNet of that depth in Caffe's form, without class head.

    Its stages are `conv1`, `bn1`, `relu`, `maxpool`, `layer1` (256 channels, stride 4) to `layer4`
    (2048 channels, stride 32).
    depth: 50, 101 or 152.
    eps: of BatchNorm; 1e-5, in VC R-CNN (maskrcnn-benchmark) 0.
    is_frozen: BatchNorm keeps its statistics and weights in training too. Without, an evaluated
        network gives the same and is faster.
    pool_padding, pool_ceil: of the 3x3 pool after the first convolution; Caffe's own is 0, True.
    last_dilation: above 1, layer4 keeps the stride of layer3 and all its 3x3 convolutions are
        dilated by so much (torchvision's own option leaves the first of them undilated).
    Raises ValueError for another depth.
    """
    if depth not in DEPTHS:
        raise ValueError(f"there is no ResNet-{depth}; expected {', '.join(map(str, DEPTHS))}")
    norm = partial(FrozenBatchNorm2d if is_frozen else nn.BatchNorm2d, eps=eps)
    resnet = ResNet(Bottleneck, list(DEPTHS[depth]), norm_layer=norm)
    resnet.fc = nn.Identity()
    resnet.maxpool = nn.MaxPool2d(3, 2, pool_padding, ceil_mode=pool_ceil)
    for stage in (resnet.layer2, resnet.layer3, resnet.layer4):
        first = cast(Bottleneck, stage[0])
        first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
    if last_dilation > 1:
        first = cast(Bottleneck, resnet.layer4[0])
        first.conv1.stride = (1, 1)
        cast(nn.Conv2d, cast(nn.Sequential, first.downsample)[0]).stride = (1, 1)
        for block in resnet.layer4:
            conv = cast(Bottleneck, block).conv2
            conv.dilation = conv.padding = (last_dilation, last_dilation)
    return resnet


def scale_branches(*modules: nn.Module) -> None:
    """Scales the branches of drawn residual blocks so that activations stay within float16.

    Without statistics every block doubles the variance of its input; scaled by 1 / sqrt(blocks)
    the growth stays below e.
    """
    blocks = [b for module in modules for b in module.modules() if isinstance(b, Bottleneck)]
    for block in blocks:
        nn.init.constant_(block.bn3.weight, len(blocks) ** -0.5)


def torchvision_key(key: str) -> str:
    """A name of detectron2's or maskrcnn-benchmark's ResNet in torchvision's; others unchanged."""
    key = key.removeprefix("stem.")
    key = re.sub(r"^res([2-5])\.", lambda m: f"layer{int(m[1]) - 1}.", key)
    key = re.sub(r"(^|\.)shortcut\.norm\.", r"\1downsample.1.", key)
    key = re.sub(r"(^|\.)shortcut\.", r"\1downsample.0.", key)
    return re.sub(r"(^|\.)conv([1-3])\.norm\.", r"\1bn\2.", key)
