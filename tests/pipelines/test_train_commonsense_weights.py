"""What a training of VC R-CNN starts from, and the layout that it ends in."""

import made_objects
import pytest
import torch

from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.networks.vc_intervention import CausalPredictor
from vlpipe.extractors.networks.vc_rcnn import VcRcnnNetwork, own_key
from vlpipe.pipelines.commonsense_training.weights import (
    published_key,
    published_state,
    starting_weights,
)


@pytest.fixture
def small(monkeypatch):
    made_objects.make_networks_small(monkeypatch)


def states_equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_published_names_are_the_inverse_of_own_ones():
    with torch.device("meta"):
        network, causal = VcRcnnNetwork(101), CausalPredictor(1024)
    names = [published_key(key) for key in network.state_dict()]
    assert [own_key(name) for name in names] == list(network.state_dict())
    assert len(names) + len(causal.state_dict()) == 548
    numbers = sum(p.numel() for m in (network, causal) for p in m.state_dict().values())
    assert numbers == pytest.approx(62.2e6, rel=1e-3)
    assert {"backbone.fpn.fpn_inner1.weight", "backbone.body.stem.bn1.running_var",
            "roi_heads.box.predictor.cls_score.bias", "roi_heads.box.feature_extractor.fc6.weight",
            "backbone.body.layer3.22.conv3.weight"} <= set(names)  # fmt: skip


def caffe2_names(body):
    """The residual network under the names of MSRA's pickles."""
    branches = {"conv1": "2a", "conv2": "2b", "conv3": "2c", "bn1": "2a_bn", "bn2": "2b_bn"}
    branches |= {"bn3": "2c_bn"}
    state = {}
    for key, value in body.state_dict().items():
        *where, kind = key.split(".")
        if kind.startswith("running"):
            continue
        letter = {"weight": "w", "bias": "b"}[kind]
        if where == ["conv1"]:
            state["conv1_w"] = value
        elif where == ["bn1"]:
            state[f"res_conv1_bn_{'s' if letter == 'w' else 'b'}"] = value
        else:
            stage, block, layer = int(where[0][-1]) + 1, where[1], where[2]
            branch = branches.get(layer) or ("1" if where[3] == "0" else "1_bn")
            letter = "s" if branch.endswith("bn") and letter == "w" else letter
            state[f"res{stage}_{block}_branch{branch}_{letter}"] = value
    return state


@pytest.mark.parametrize("layout", ["caffe2", "maskrcnn-benchmark", "detectron2"])
def test_residual_networks_of_imagenet_are_a_start(small, tmp_path, layout):
    source, network = VcRcnnNetwork(50), VcRcnnNetwork(50)
    if layout == "caffe2":
        state = caffe2_names(source.body) | {"fc1000_w": torch.zeros(2), "conv1_b": torch.zeros(2)}
        assert len(state) == 2 + 3 + 4 * 12
    else:
        state = {published_key(f"body.{k}"): v for k, v in source.body.state_dict().items()}
        state = {k.removeprefix("backbone.body."): v for k, v in state.items()}
    if layout == "detectron2":
        state = {f"backbone.bottom_up.{_detectron2(k)}": v for k, v in state.items()}
    path = tmp_path / "R-50.pth"
    torch.save(state, path)
    assert starting_weights(network, CausalPredictor(8), str(path)) == ["body"]
    assert states_equal(network.body.state_dict(), source.body.state_dict())


def _detectron2(key):
    for number in (1, 2, 3):
        key = key.replace(f".bn{number}.", f".conv{number}.norm.")
    key = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    for stage in (1, 2, 3, 4):
        key = key.replace(f"layer{stage}.", f"res{stage + 1}.")
    return key


def test_a_checkpoint_of_vc_rcnn_is_a_start(small, tmp_path):
    source, causal = VcRcnnNetwork(50), CausalPredictor(8)
    torch.save({"model": published_state(source, causal)}, tmp_path / "m.pth")
    network, head = VcRcnnNetwork(50), CausalPredictor(8)
    taken = starting_weights(network, head, str(tmp_path / "m.pth"))
    assert "causal_predictor" in taken
    assert states_equal(network.state_dict(), source.state_dict())
    assert states_equal(head.state_dict(), causal.state_dict())
    with pytest.raises(WeightsRejected, match="8 wide") as caught:
        starting_weights(network, CausalPredictor(16), str(tmp_path / "m.pth"))
    assert "causal_width=8" in str(caught.value.hint)


def test_torchvisions_networks_are_refused(small, tmp_path):
    body = VcRcnnNetwork(50).body.state_dict()
    torch.save(body | {"fc.weight": torch.zeros(2)}, tmp_path / "resnet50.pth")
    with pytest.raises(WeightsRejected, match="Caffe's form") as caught:
        starting_weights(VcRcnnNetwork(50), CausalPredictor(8), str(tmp_path / "resnet50.pth"))
    assert "strides" in str(caught.value.hint)
