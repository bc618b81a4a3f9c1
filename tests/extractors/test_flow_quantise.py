"""Flow to I3D input: the published numbers, and the levels that are easy to get wrong."""

import golden_cases
import numpy as np
import pytest
import torch

from vlpipe.extractors.inputs.flow_quantise import (
    crop_center,
    flow_levels,
    flow_to_input,
    scale_levels,
)


@pytest.fixture(scope="module")
def flow():
    return torch.from_numpy(12 * golden_cases.inputs("flow_quantise")["flow_quantise.flow"])


def test_levels_and_input_are_the_published_ones(flow):
    wanted = golden_cases.outputs("flow_quantise")
    levels = flow_levels(crop_center(flow, 224))
    assert np.array_equal(levels[..., ::3, ::3].numpy(), wanted["levels"].astype(np.float32))
    made = flow_to_input(flow, 224)
    assert made.shape == (2, 2, 224, 224)
    scaled = made[None, ..., ::3, ::3].numpy()
    assert golden_cases.relative_error(scaled, wanted["i3d_input"]) < 1e-6


@pytest.mark.parametrize(
    ("flow_px", "level", "scaled"),
    [
        (0.0, 128, 0.0039216),
        (20.0, 256, 1.0078431),
        (35.0, 256, 1.0078431),
        (-20.0, 0, -1.0),
        (-35.0, 0, -1.0),
        # 128.5 and 129.5: half to even, down and up.
        (0.5 * 40 / 255, 128, 0.0039216),
        (1.5 * 40 / 255, 130, 0.0196078),
    ],
)
def test_single_values(flow_px, level, scaled):
    levels = flow_levels(torch.tensor([flow_px]))
    assert levels.dtype == torch.float32
    assert levels.item() == level
    assert scale_levels(levels).item() == pytest.approx(scaled, abs=1e-6)


def test_the_input_is_left_as_it_was(flow):
    before = flow.clone()
    flow_to_input(flow, 224)
    assert torch.equal(flow, before)


def test_odd_margins_are_cut_at_the_floor():
    maps = torch.arange(7 * 9).view(1, 1, 7, 9)
    assert crop_center(maps, 4)[0, 0, 0, 0] == 1 * 9 + 2
    assert torch.equal(crop_center(maps, 7)[0, 0, :, 0], maps[0, 0, :, 1])
