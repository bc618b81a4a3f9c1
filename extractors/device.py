"""Devices by name: whether it is one, and whether this machine has it."""

import torch

from vlpipe.stores.errors import EnvironmentLacks, UsageError


def parse_device(name: str) -> torch.device:
    """The device of that name, which this machine may lack; UsageError for no name of a device."""
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"there is no device {name!r}: {str(error).splitlines()[0]}",
            hint="use cpu, cuda or cuda:1",
        ) from None


def open_device(name: str) -> torch.device:
    """The torch device of that name; EnvironmentLacks when this machine has none."""
    device = parse_device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise EnvironmentLacks(
            f"device {name!r} cannot be used here: {str(error).splitlines()[0]}",
            hint="the device cpu is everywhere; `vlpipe doctor` shows what this machine has",
        ) from error
    return device
