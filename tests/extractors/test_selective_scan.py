"""The chunked selective scan against the published numbers and a plain loop over the steps."""

import sys
import types

import golden_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vlpipe.extractors.networks import selective_scan as module
from vlpipe.extractors.networks.selective_scan import fused_kernel, scan_in_chunks, selective_scan


def scan_by_steps(u, delta, a, b, c, d=None, z=None, delta_bias=None):
    """The recurrence as it is written: one step after another, in float64."""
    u, delta, a, b, c = (x.double() for x in (u, delta, a, b, c))
    batch, channels, length = u.shape
    if b.ndim == 3:
        b, c = b[:, None], c[:, None]
    b, c = (x.repeat_interleave(channels // x.shape[1], dim=1) for x in (b, c))
    step = F.softplus(delta if delta_bias is None else delta + delta_bias.double()[:, None])
    state = torch.zeros(batch, channels, a.shape[1], dtype=torch.float64)
    rows = []
    for t in range(length):
        decay = torch.exp(step[:, :, t, None] * a)
        state = decay * state + (step[:, :, t] * u[:, :, t])[..., None] * b[..., t]
        rows.append((state * c[..., t]).sum(-1))
    y = torch.stack(rows, dim=-1)
    if d is not None:
        y = y + d.double()[:, None] * u
    if z is not None:
        y = y * F.silu(z.double())
    return y, state


def draw(batch, channels, length, width=4, groups=1, seed=0):
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random)

    return {
        "u": normal(batch, channels, length),
        "delta": normal(batch, channels, length),
        "a": -torch.exp(normal(channels, width)),
        "b": normal(batch, groups, width, length),
        "c": normal(batch, groups, width, length),
        "d": normal(channels),
        "z": normal(batch, channels, length),
        "delta_bias": normal(channels) - 3,
    }


def assert_close(made, wanted, most=1e-5):
    for got, want in zip(made, wanted, strict=True):
        assert got.dtype == torch.float32
        assert golden_cases.relative_error(got.numpy(), want.numpy()) < most


@pytest.fixture(scope="module")
def case():
    tensors = golden_cases.inputs("selective_scan") | golden_cases.state("selective_scan")
    return {name: torch.from_numpy(value) for name, value in tensors.items()}


def parameters(case, suffix=""):
    prefix = "layers.0.mixer."
    return {
        "a": -torch.exp(case[f"{prefix}A{suffix}_log"]),
        "d": case[f"{prefix}D{suffix}"],
        "delta_bias": case[f"{prefix}dt_proj{suffix}.bias"] - 4,
    }


def test_the_published_numbers(case):
    wanted = golden_cases.outputs("selective_scan")
    names = ("u", "delta", "B", "C", "z")
    u, delta, b, c, z = (case[name] for name in names)
    forward = parameters(case)
    y, state = selective_scan(u, delta, b=b, c=c, z=z, **forward)
    assert golden_cases.relative_error(y.numpy(), wanted["y"]) < 1e-6
    assert golden_cases.relative_error(state.numpy(), wanted["last_state"]) < 1e-6
    y, _ = selective_scan(u, delta, b=b, c=c, a=forward["a"], delta_bias=forward["delta_bias"])
    assert golden_cases.relative_error(y.numpy(), wanted["y_plain"]) < 1e-6
    u, delta, b, c, z = (case[name].flip(-1) for name in names)
    y, _ = selective_scan(u, delta, b=b, c=c, z=z, **parameters(case, "_b"))
    assert golden_cases.relative_error(y.flip(-1).numpy(), wanted["y_backward"]) < 1e-6


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 150),
    span=st.integers(1, 160),
    batch=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 9),
)
def test_any_span_gives_what_single_steps_give(length, span, batch, groups, seed):
    drawn = draw(batch, 6, length, groups=groups, seed=seed)
    assert_close(scan_in_chunks(**drawn, span=span), scan_by_steps(**drawn))


def test_long_memory_and_large_steps_stay_accurate():
    # A decay of exp(-1e-4) a step remembers all 3000 steps; one of exp(-500) none.
    drawn = draw(1, 4, 3000)
    drawn["a"] = torch.tensor([-1e-4, -1e-2, -1.0, -500.0]).repeat(4, 1)
    for bias in (-5.0, 0.0, 30.0):
        drawn["delta_bias"] = torch.full((4,), bias)
        assert_close(selective_scan(**drawn), scan_by_steps(**drawn), most=2e-5)


def test_extreme_inputs_stay_finite():
    drawn = draw(1, 4, 500)
    drawn["delta"] = drawn["delta"] * 1e4
    drawn["u"] = drawn["u"] * 1e6
    y, state = selective_scan(**drawn)
    assert torch.isfinite(y).all()
    assert torch.isfinite(state).all()


def test_memory_does_not_grow_with_time(monkeypatch):
    monkeypatch.setitem(module.SPAN_NUMBERS, "cpu", 0)
    sizes = []
    scan_span = module._scan_span

    def note(step, *rest):
        sizes.append(step.shape[0] * step.shape[1])
        return scan_span(step, *rest)

    monkeypatch.setattr(module, "_scan_span", note)
    drawn = draw(2, 3, 1000)
    made = selective_scan(**drawn)
    assert max(sizes) == module.MIN_SPAN
    assert len(sizes) == -(-1000 // module.MIN_SPAN)
    assert_close(made, scan_by_steps(**drawn))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_scan(dtype):
    drawn = draw(2, 4, 80)
    plain = selective_scan(**drawn)
    with torch.autocast("cpu", dtype=dtype):
        under = selective_scan(**drawn)
    for one, other in zip(plain, under, strict=True):
        assert torch.equal(one, other)
    halves = {name: value.to(dtype) for name, value in drawn.items()}
    assert_close(selective_scan(**halves), scan_by_steps(**halves))


def test_gradients_are_those_of_single_steps():
    drawn = draw(1, 2, 30, groups=2)
    gradients = []
    for scan in (selective_scan, scan_by_steps):
        leaves = {name: value.clone().requires_grad_() for name, value in drawn.items()}
        y, state = scan(**leaves)
        (y.sum() + state.square().sum()).backward()
        gradients.append([leaf.grad for leaf in leaves.values()])
    assert_close(*gradients)


def test_the_kernel_gets_the_arguments_that_it_documents():
    """mamba-ssm: (u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)."""

    def selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state):  # noqa: N803, RUF100
        assert delta_softplus
        assert return_last_state
        assert all(x.is_contiguous() and x.dtype == torch.float32 for x in (u, delta, B, C, z))
        y, state = scan_by_steps(u, delta, A, B, C, D, z, delta_bias)
        return y.float(), state.float()

    drawn = draw(1, 4, 20, groups=2)
    drawn["u"] = drawn["u"].transpose(1, 2).contiguous().transpose(1, 2)
    made = module.scan_fused(selective_scan_fn, **drawn)
    assert_close(made, scan_in_chunks(**drawn))


def import_nothing(name):
    raise ModuleNotFoundError(name=name.partition(".")[0])


def test_the_kernel_is_used_where_it_is_installed(monkeypatch, caplog):
    fused_kernel.cache_clear()
    with monkeypatch.context() as absent:
        absent.setattr(module, "import_module", import_nothing)
        assert fused_kernel() is None
    assert not caplog.records

    def load(**names):
        fused_kernel.cache_clear()
        interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
        vars(interface).update(names)
        for name in ("mamba_ssm", "mamba_ssm.ops"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, interface.__name__, interface)
        return fused_kernel()

    assert load(selective_scan_fn=np.sum) is np.sum
    assert load() is None
    assert "does not load" in caplog.text
    fused_kernel.cache_clear()
