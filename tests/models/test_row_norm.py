"""Batch normalisation of many rows, of one, and of none."""

import pytest
import torch
from torch import nn

from vlpipe.models.layers.row_norm import RowNorm


@pytest.fixture
def norms():
    torch.manual_seed(0)
    pair = RowNorm(4), nn.BatchNorm1d(4)
    for norm in pair:
        norm(torch.randn(64, 4, generator=torch.Generator().manual_seed(1)) * 3 + 2)
    return pair


def test_many_rows_are_normalised_as_ever(norms):
    own, torchs = norms
    for shape in ((9, 4), (1, 4, 7), (2, 4)):
        x = torch.randn(shape)
        assert torch.equal(own(x), torchs(x))
    assert all(torch.equal(v, torchs.state_dict()[k]) for k, v in own.state_dict().items())


@pytest.mark.parametrize("shape", [(1, 4), (0, 4), (1, 4, 1)])
def test_one_row_is_scaled_by_what_was_seen_before(norms, shape):
    own, torchs = norms
    x = torch.randn(shape, requires_grad=True)
    before = {k: v.clone() for k, v in own.state_dict().items()}
    found = own(x)
    assert torch.equal(found, torchs.eval()(x))
    found.sum().backward()
    assert x.grad.shape == x.shape
    assert all(torch.equal(v, before[k]) for k, v in own.state_dict().items())
