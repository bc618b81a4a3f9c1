"""What extraction runs in place of a network gives the numbers of the network."""

import golden_cases
import pytest
import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.networks import winograd_cubes
from vlpipe.extractors.networks.folded_norm import fold_norms
from vlpipe.extractors.networks.i3d import I3dNetwork
from vlpipe.extractors.networks.i3d_inference import I3dOnCpu, inference_form
from vlpipe.extractors.networks.scratch import Scratch

SMALL = {
    "resnet18": ((2, 3, 32, 32), {}),
    "resnet50": ((2, 3, 32, 32), {}),
    "googlenet": ((2, 3, 64, 64), {}),
    "i3d_resnet50": ((1, 3, 8, 32, 32), {"non_local": True}),
    "r2plus1d_18": ((1, 3, 8, 32, 32), {}),
    "s3d": ((1, 3, 16, 32, 32), {}),
}


@pytest.fixture(autouse=True)
def no_gradients():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def draw_statistics(network):
    """Statistics as training leaves them; those of a new network change next to nothing."""
    norms = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    for norm in norms:
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
        norm.weight.mul_(torch.rand_like(norm.weight) + 0.5)
        norm.bias.normal_(std=0.1)
    return norms


def assert_same(made, wanted):
    assert made.keys() == wanted.keys()
    for name, values in wanted.items():
        assert made[name].shape == values.shape
        assert golden_cases.relative_error(made[name].numpy(), values.numpy()) < 1e-5, name


@pytest.mark.parametrize("name", SMALL)
def test_all_norms_are_folded_and_the_network_stays_as_it_was(name):
    shape, settings = SMALL[name]
    extractor = create_extractor(name, weights="untrained", **settings)
    network = extractor.network
    norms = draw_statistics(network)
    x = torch.randn(shape)
    wanted = network(x)
    folded = fold_norms(network)
    assert norms
    assert not any(isinstance(layer, _BatchNorm) for layer in folded.modules())
    assert_same(folded(x), wanted)
    assert_same(extractor.run_network(x), wanted)
    again = network(x)
    assert all(torch.equal(again[name], values) for name, values in wanted.items())


def test_what_is_not_folded_shares_its_memory():
    network = create_extractor("resnet18", weights="untrained").network
    folded = fold_norms(network)
    assert folded.resnet.fc.weight is network.resnet.fc.weight
    assert folded.resnet.conv1.weight is not network.resnet.conv1.weight


@pytest.mark.parametrize(
    "shape",
    [(2, 2, 24, 32, 32), (1, 3, 10, 47, 66), (1, 2, 13, 33, 35)],
)
def test_i3d_on_a_cpu_gives_the_numbers_of_the_network(shape):
    network = I3dNetwork(shape[1]).eval().requires_grad_(False)
    network.initialise_untrained()
    draw_statistics(network)
    x = torch.rand(shape) * 2 - 1
    assert_same(I3dOnCpu(network)(x), network(x))


def test_i3d_on_a_cpu_goes_by_tiles_where_maps_are_large():
    network = I3dNetwork(3).eval().requires_grad_(False)
    network.initialise_untrained()
    x = torch.rand(1, 3, 10, 128, 128) * 2 - 1
    form = I3dOnCpu(network)
    seen = []
    form.cube.tiled, tiled = (lambda *given: seen.append(given) or tiled(*given)), form.cube.tiled
    assert_same(form(x), network(x))
    assert seen


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_i3d_runs_in_that_form_in_fp32_alone(precision):
    network = I3dNetwork(3).eval().requires_grad_(False)
    spec = configure_extractor("i3d_rgb", weights="untrained", precision=precision)
    form = inference_form(network, spec)
    assert isinstance(form, I3dOnCpu) == (precision == "fp32")
    assert not any(isinstance(layer, _BatchNorm) for layer in form.modules())


def test_the_flow_stream_runs_in_that_form_too():
    extractor = create_extractor("i3d_flow", weights="untrained")
    assert isinstance(extractor.inference_form().i3d, I3dOnCpu)
    assert isinstance(extractor.network.i3d, I3dNetwork)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("size", [(4, 4), (14, 14), (9, 6)])
def test_convolutions_by_tiles_equal_convolutions(steps, size, monkeypatch):
    # Memory for three frames at a time, so that the last part is a shorter one.
    per_frame = 36 * -(-size[0] // 4) * -(-size[1] // 4) * (2 * 8 + 2 * 5) * 4
    monkeypatch.setattr(winograd_cubes, "_MOST_BYTES", 3 * per_frame)
    weight, bias = torch.randn(5, 8, 3, 3, 3), torch.randn(5)
    maps = torch.randn(steps, *size, 8)
    tiled = winograd_cubes.CubeConvolution(weight, bias)
    parts = [part.clone() for part in tiled(maps, Scratch())]
    assert [len(part) for part in parts] == [3] * (steps // 3) + [steps % 3] * (steps % 3 > 0)
    wanted = F.conv3d(maps[None].permute(0, 4, 1, 2, 3), weight, bias, padding=1)[0]
    made = torch.cat(parts).permute(3, 0, 1, 2)
    assert golden_cases.relative_error(made.numpy(), wanted.numpy()) < 1e-5


def test_scratch_memory_is_used_again():
    scratch = Scratch()
    first = scratch.take("a", 3, 4)
    assert scratch.take("a", 2, 5).data_ptr() == first.data_ptr()
    assert scratch.take("b", 3, 4).data_ptr() != first.data_ptr()
    assert scratch.take("a", 100).shape == (100,)
