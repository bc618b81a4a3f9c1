"""What the devices of a run decide together."""

from collections.abc import Sequence
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor


def any_device(fabric: Fabric, *flags: bool) -> Sequence[bool]:
    """Each flag as it is on any of the devices; all of them have to call this.

    Every device has its own clock and gets its own signals. One that saved a checkpoint alone
    would wait for the others forever.
    """
    if fabric.world_size == 1:
        return flags
    ours = torch.tensor(flags, dtype=torch.float32, device=fabric.device)
    summed = cast(Tensor, fabric.all_reduce(ours, reduce_op="sum"))
    return [bool(count) for count in summed]
