"""Networks whose normalisation is part of the convolutions before it, for inference.

In inference BatchNorm is y = a x + b for each channel, with a and b that never change. Where a
convolution comes before it, the same comes of filters multiplied by a and of a bias b, without
another pass over the map. The numbers differ from the unfolded ones by rounding, 1e-6 of their
norm in float32.
"""

import copy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

# What a module calls a convolution and the BatchNorm that alone reads its output.
_PAIRS = (
    ("conv", "bn"),
    ("conv1", "bn1"),
    ("conv2", "bn2"),
    ("conv3", "bn3"),
    ("conv3d", "batch3d"),
    ("out", "bn"),
)

N = TypeVar("N", bound=nn.Module)


def fold_norms(network: N) -> N:
    """A copy in evaluation mode; nothing changes in `network`.

    Pairs are a convolution right before its BatchNorm in a Sequential (or at the end of another
    Sequential there), and two attributes of one module by the names above. Everything that is not
    folded shares its memory with `network`.
    """
    folded = copy_sharing_tensors(network).eval()
    for module in folded.modules():
        names = [name for name, _ in module.named_children()]
        neighbours = pairwise(names) if isinstance(module, nn.Sequential) else ()
        for conv_name, norm_name in (*neighbours, *_PAIRS):
            norm = getattr(module, norm_name, None)
            owner, name = _last_of_sequential(module, conv_name)
            conv = getattr(owner, name, None)
            if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(norm, _BatchNorm):
                setattr(owner, name, fuse_conv_bn_eval(conv, norm).requires_grad_(False))
                setattr(module, norm_name, nn.Identity())
    return folded


def copy_sharing_tensors(network: N) -> N:
    """A copy whose modules can be replaced, with the parameters and buffers of `network` itself."""
    tensors = (*network.parameters(), *network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def _last_of_sequential(owner: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Where the layer that gives the output of `name` is: its module, and its name there."""
    while isinstance(inner := getattr(owner, name, None), nn.Sequential) and len(inner):
        owner, name = inner, str(len(inner) - 1)
    return owner, name
