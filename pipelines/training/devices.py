"""Where trained networks run: the GPU if there is one, or what the user names."""

import torch

from vlpipe.extractors.device import open_device
from vlpipe.stores.errors import EnvironmentLacks


def choose_device(name: str, count: int = 1) -> torch.device:
    """The device of that name, the first of `count` of its kind; `auto` is the GPU if there is one.

    Raises UsageError for no name of a device, EnvironmentLacks where this machine has fewer.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = open_device(name)
    if device.type == "cuda" and count > torch.cuda.device_count():
        raise EnvironmentLacks(
            f"{count} GPUs are asked for, and there are {torch.cuda.device_count()} here",
            hint="--set devices=1, or see `vlpipe doctor`",
        )
    return device
