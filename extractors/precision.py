"""Arithmetic of a network call: fp32 without shortcuts, or bf16/fp16 through autocast."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from vlpipe.stores.errors import UsageError

Precision = Literal["fp32", "bf16", "fp16"]


def parse_precision(text: str) -> Precision:
    """`text` as a precision; UsageError lists the known ones."""
    for known in get_args(Precision):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise UsageError(f"unknown precision {text!r}", hint="use fp32, bf16 or fp16")


@contextmanager
def run_at(precision: Precision, device: torch.device) -> Iterator[None]:
    """Runs the body at that precision.

    fp32 switches TF32 off on NVIDIA GPUs: PyTorch allows it in convolutions by default, and it
    keeps 10 bits of mantissa, too few for parity with published features.
    """
    if precision == "fp32":
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    else:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float16
        with torch.autocast(device.type, dtype=dtype):
            yield
