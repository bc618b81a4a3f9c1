"""The same bits each time: a resumed training ends as an unbroken one."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def deterministic_algorithms(is_on: bool = True) -> Iterator[None]:
    """Within the block torch computes deterministically where it can, and warns where it cannot.

    A CPU needs it as well: the gradient of `rows[index]` is summed by several threads at once, in
    an order that differs from run to run.
    """
    mode = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic  # whose setting type checkers do not see
    fills = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(is_on, warn_only=True)
    # Costs time, and helps only those who read what nobody wrote.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        memory.fill_uninitialized_memory = fills
