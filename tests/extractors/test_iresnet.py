"""The networks of ArcFace: layout, sizes, shapes and range."""

import numpy as np
import pytest
import torch
from torch import nn

from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.networks.iresnet import DEPTHS, IResNet, arcface_checkpoints
from vlpipe.extractors.weights.checkpoint import Checkpoint

PARAMETERS = {
    "iresnet18": 24_025_600,
    "iresnet34": 34_139_328,
    "iresnet50": 43_590_848,
    "iresnet100": 65_156_160,
}


def state_of(name):
    with torch.device("meta"):
        return IResNet(DEPTHS[name]).state_dict()


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_are_the_published_ones(name):
    with torch.device("meta"):
        network = IResNet(DEPTHS[name])
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


def test_keys_are_the_published_ones():
    norm = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    wanted = {"conv1.weight", "prelu.weight", "fc.weight", "fc.bias"}
    wanted |= {f"{place}.{part}" for place in ("bn1", "bn2", "features") for part in norm}
    for stage, depth in enumerate(DEPTHS["iresnet50"], start=1):
        for block in range(depth):
            at = f"layer{stage}.{block}"
            wanted |= {f"{at}.conv1.weight", f"{at}.conv2.weight", f"{at}.prelu.weight"}
            wanted |= {f"{at}.bn{k}.{part}" for k in (1, 2, 3) for part in norm}
        wanted |= {f"layer{stage}.0.downsample.0.weight"}
        wanted |= {f"layer{stage}.0.downsample.1.{part}" for part in norm}
    state = state_of("iresnet50")
    assert set(state) == wanted
    assert state["fc.weight"].shape == (512, 512 * 49)
    assert state["layer3.0.conv1.weight"].shape == (256, 128, 3, 3)
    assert state["layer3.0.conv2.weight"].shape == (256, 256, 3, 3)
    assert state["layer3.0.bn1.weight"].shape == (128,)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = IResNet(DEPTHS["iresnet18"]).eval().requires_grad_(False)
    made.initialise_untrained()
    return made


def test_stages_halve_the_map(network):
    shapes = []
    handles = [
        network.get_submodule(f"layer{k}").register_forward_hook(
            lambda module, inputs, output: shapes.append(tuple(output.shape))
        )
        for k in range(1, 5)
    ]
    made = network(torch.rand(2, 3, 112, 112) * 2 - 1)["embedding"]
    for handle in handles:
        handle.remove()
    assert shapes == [(2, 64, 56, 56), (2, 128, 28, 28), (2, 256, 14, 14), (2, 512, 7, 7)]
    assert made.shape == (2, 512)
    assert 1e-3 < made.abs().max() < 1e3


def drawn(state):
    """Weights of a rule, in the order of the names, that keep activations near 1."""
    random = np.random.default_rng(5)
    weights = {}
    for name in sorted(state):
        if name.endswith("num_batches_tracked"):
            continue
        values = random.normal(0, 1, state[name].shape)
        if name.endswith("running_var"):
            values = 1 + 0.1 * np.abs(values)
        elif values.ndim > 1:
            values /= np.sqrt(values[0].size)
        elif name.endswith(".weight"):
            values = (0.25 if "prelu" in name else 1) * (1 + 0.1 * values)
        else:
            values *= 0.1
        weights[name] = torch.from_numpy(values.astype(np.float32))
    return weights


def test_numbers_are_those_of_the_published_code():
    network = IResNet(DEPTHS["iresnet18"]).eval()
    network.load(Checkpoint("b.pth", drawn(network.state_dict())), what="ArcFace iresnet18")
    x = np.random.default_rng(6).uniform(-1, 1, (1, 3, 112, 112)).astype(np.float32)
    with torch.inference_mode():
        (made,) = network(torch.from_numpy(x))["embedding"].numpy()
    # deepinsight/insightface, arcface_torch, with these weights.
    wanted = [-4.016807, 1.481969, -6.907178, 0.384946, 2.218893, -1.246426, -0.624917, -0.812813]
    assert np.allclose(made[:8], wanted, atol=1e-4)
    assert np.linalg.norm(made) == pytest.approx(48.861836, rel=1e-5)


def test_a_block_adds_its_branch_to_its_shortcut(network):
    block = network.layer2[0]
    x = torch.rand(1, 64, 8, 8)
    branch = nn.Sequential(block.bn1, block.conv1, block.bn2, block.prelu, block.conv2, block.bn3)
    assert torch.allclose(block(x), branch(x) + block.downsample(x), atol=1e-5)
    assert block.conv1.stride == (1, 1)
    assert block.conv2.stride == (2, 2)
    assert network.layer2[1].downsample is None


def test_files_with_and_without_counters_load(network):
    state = network.state_dict()
    bare = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    x = torch.rand(1, 3, 112, 112)
    for given in (state, bare):
        other = IResNet(DEPTHS["iresnet18"]).eval()
        other.load(Checkpoint("backbone.pth", given), what="ArcFace iresnet18")
        assert torch.equal(other(x)["embedding"], network(x)["embedding"])
    with pytest.raises(WeightsRejected, match="ArcFace iresnet34"):
        IResNet(DEPTHS["iresnet34"]).load(Checkpoint("b.pth", bare), what="ArcFace iresnet34")


def test_each_depth_has_a_checkpoint_with_its_licence():
    for name in DEPTHS:
        for checkpoint in arcface_checkpoints(name):
            assert "non-commercial" in checkpoint.licence
            assert checkpoint.name.endswith(f"_r{name.removeprefix('iresnet')}")
