"""Training gives the same bits each time it is asked to."""

import contextlib

import pytest
import torch

from vlpipe.pipelines.training.determinism import deterministic_algorithms


def gradient_of_rows():
    """The gradient of rows that are picked some thousand times, which is summed by several threads
    outside of deterministic blocks, and then seldom twice the same."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 32, generator=generator, requires_grad=True)
    index = torch.randint(0, 40, (1280,), generator=generator)
    weights = torch.randn(1280, 32, generator=generator)
    (rows[index] * weights).sum().backward()
    return rows.grad


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_picked_rows_have_one_gradient(two_threads):
    with deterministic_algorithms():
        first = gradient_of_rows()
        assert all(torch.equal(first, gradient_of_rows()) for _ in range(100))


@pytest.mark.parametrize("is_on", [True, False])
def test_the_mode_ends_with_the_block(is_on):
    before = torch.get_deterministic_debug_mode()
    with contextlib.suppress(KeyError), deterministic_algorithms(is_on):
        assert torch.are_deterministic_algorithms_enabled() == is_on
        raise KeyError
    assert torch.get_deterministic_debug_mode() == before
