"""The selective scan of Mamba: a linear recurrence over time whose steps depend on the input.

Paper: Mamba: Linear-Time Sequence Modeling with Selective State Spaces (Gu and Dao, 2023). Code:
state-spaces/mamba, `selective_scan_interface.py`. For channel d and state n, with s before the
first step at 0:

    delta_t = softplus(raw_t + bias)
    s_t[d, n] = exp(delta_t[d] A[d, n]) s_{t-1}[d, n] + delta_t[d] B_t[n] u_t[d]
    y_t[d] = (sum over n of C_t[n] s_t[d, n] + D[d] u_t[d]) silu(z_t[d])

which is the Euler form for B that the code computes, and not the zero-order hold of the paper.

Time is cut into spans and a span into K chunks of Q steps. All chunks of a span run side by side:
once from zero, which gives what each of them adds; then the states that they start with follow
from chunk to chunk; then once more from those. L steps take about 3 sqrt(span) L / span operations
one after another instead of 2 L, and twice the arithmetic of a plain loop. Nothing is ever divided
and no exponent is positive, so that nothing can overflow, however long the video.
"""

import logging
import math
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)

# float32 numbers in each of the two large arrays of a span. On a CPU they should stay near its
# caches; a GPU wants few and large operations.
SPAN_NUMBERS = {"cpu": 2**19, "cuda": 2**27}
MIN_SPAN = 16


def selective_scan(
    u: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    d: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y (batch, channels, L) and the state after the last step (batch, channels, N), float32.

    u, delta, z: (batch, channels, L); delta before bias and softplus; z is the gate, None for
        none. a: (channels, N), below 0. b, c: (batch, N, L), or (batch, groups, N, L) where each
        group serves channels / groups neighbouring channels. d, delta_bias: (channels,).

    Computes in float32 whatever the arguments and autocast are. Beside arguments and results it
    holds two arrays of max(SPAN_NUMBERS, MIN_SPAN batch channels N) numbers, whatever L is, unless
    gradients are asked for. On a GPU the kernel of mamba-ssm does the work where it is installed.
    """
    with torch.autocast(u.device.type, enabled=False):
        u, delta, a, b, c = (x.float() for x in (u, delta, a, b, c))
        d, z, delta_bias = (None if x is None else x.float() for x in (d, z, delta_bias))
        if b.ndim == 3:
            b, c = b[:, None], c[:, None]
        if u.is_cuda and (kernel := fused_kernel()) is not None:
            return scan_fused(kernel, u, delta, a, b, c, d, z, delta_bias)
        return scan_in_chunks(u, delta, a, b, c, d, z, delta_bias)


def scan_in_chunks(
    u: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    *,
    span: int | None = None,
) -> tuple[Tensor, Tensor]:
    """As `selective_scan` with b and c in groups; span: steps at a time, None chooses."""
    batch, channels, length = u.shape
    step = F.softplus(delta if delta_bias is None else delta + delta_bias[:, None])
    most = SPAN_NUMBERS.get(u.device.type, SPAN_NUMBERS["cuda"])
    span = span or max(MIN_SPAN, most // (batch * channels * a.shape[1]))
    span = min(span, length)
    num_steps = math.isqrt(span)
    span -= span % num_steps

    # Time comes first, so that a step of all chunks is one piece of memory.
    parts = [x.movedim(-1, 0) for x in (step, step * u, b, c)]
    state = u.new_zeros(batch, channels, a.shape[1])
    rows: list[Tensor] = []
    for start in range(0, length, span):
        pieces = [x[start : start + span] for x in parts]
        # Steps of zero length leave the state as it is.
        missing = -len(pieces[0]) % num_steps
        chunks = [
            torch.unflatten(
                F.pad(x, (0, 0) * (x.ndim - 1) + (0, missing)), 0, (-1, num_steps)
            ).transpose(0, 1)
            for x in pieces
        ]
        y, state = _scan_span(chunks[0], chunks[1], a, chunks[2], chunks[3], state)
        rows.append(y[: len(pieces[0])])
    y = torch.cat(rows).movedim(0, -1)  # (batch, channels, L)
    if d is not None:
        y = y + d[:, None] * u
    return (y if z is None else y * F.silu(z)), state


def _scan_span(
    step: Tensor, driven: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """y (K Q, batch, channels) of a span of K chunks of Q steps, and the state after it.

    step, driven: delta and delta u, (Q, K, batch, channels). b, c: (Q, K, batch, groups, N).
    state: before the span, (batch, channels, N).
    """
    num_steps, num_chunks, batch, channels = step.shape
    groups = b.shape[3]
    decay = torch.exp(step[..., None] * a)  # (Q, K, batch, channels, N)
    grouped = torch.unflatten(driven, 3, (groups, -1))[..., None] * b[..., None, :]
    added = grouped.flatten(3, 4)  # (Q, K, batch, channels, N)

    # Writing each step over the one before saves the time that new memory takes, but there is no
    # way back for gradients.
    in_place = not (torch.is_grad_enabled() and (decay.requires_grad or added.requires_grad))
    from_zero = added[0].clone()
    for q in range(1, num_steps):
        from_zero = _advance(from_zero, decay[q], added[q], in_place=in_place)
    decay_of_chunk = torch.exp(step.sum(0)[..., None] * a)  # (K, batch, channels, N)
    starts = []
    for k in range(num_chunks):
        starts.append(state)
        state = torch.addcmul(from_zero[k], decay_of_chunk[k], state)

    running = torch.stack(starts)  # (K, batch, channels, N)
    rows = []
    for q in range(num_steps):
        running = _advance(running, decay[q], added[q], in_place=in_place)
        # (K, batch, groups, channels / groups, N)
        per_group = torch.unflatten(running, 2, (groups, -1))
        rows.append((per_group @ c[q][..., None]).reshape(num_chunks, batch, channels))
    y = torch.stack(rows, dim=1)  # (K, Q, batch, channels)
    return y.flatten(0, 1), state


def _advance(state: Tensor, decay: Tensor, added: Tensor, *, in_place: bool) -> Tensor:
    if in_place:
        return torch.addcmul(added, decay, state, out=state)
    return torch.addcmul(added, decay, state)


def scan_fused(
    kernel: Callable[..., Any],
    u: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """As `scan_in_chunks`, by mamba-ssm's `selective_scan_fn`."""
    y, state = kernel(
        *(x.contiguous() for x in (u, delta, a, b, c)),
        D=d,
        z=None if z is None else z.contiguous(),
        delta_bias=delta_bias,
        delta_softplus=True,
        return_last_state=True,
    )
    return cast(Tensor, y), cast(Tensor, state)


@cache
def fused_kernel() -> Callable[..., Any] | None:
    """mamba-ssm's `selective_scan_fn`, or None where it is not installed."""
    try:
        interface = import_module("mamba_ssm.ops.selective_scan_interface")
        return cast(Callable[..., Any], interface.selective_scan_fn)
    except ModuleNotFoundError as error:
        # The compiled part is a module of its own.
        if error.name not in ("mamba_ssm", "selective_scan_cuda"):
            logger.warning("mamba-ssm is installed but lacks %s; scanning in PyTorch", error.name)
    except (ImportError, AttributeError) as error:
        logger.warning("mamba-ssm is installed but does not load: %s; scanning in PyTorch", error)
    return None
