"""VC R-CNN: the causal head against published code, levels, layouts and confounders."""

import golden_cases
import numpy as np
import pytest
import torch
from torchvision.ops import roi_align

from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.networks.vc_intervention import (
    CausalPredictor,
    Confounders,
    context_loss,
    self_loss,
)
from vlpipe.extractors.networks.vc_rcnn import VcRcnnNetwork, load_causal, pool_regions
from vlpipe.extractors.weights.checkpoint import Checkpoint

CASE = "vc_causal_predictor"


@pytest.fixture(scope="module")
def made():
    state = {k: torch.from_numpy(v) for k, v in golden_cases.state(CASE).items()}
    inputs = {k: torch.from_numpy(v) for k, v in golden_cases.inputs(CASE).items()}
    prefix = "roi_heads.box.predictor.cls_score"
    self_logits = torch.nn.functional.linear(
        inputs["roi"].relu(), state.pop(f"{prefix}.weight"), state.pop(f"{prefix}.bias")
    )
    head = load_causal(Checkpoint(golden_cases.FOLDER / CASE, state))
    confounders = Confounders(inputs["dictionary"], inputs["prior_logits"].softmax(0))
    with torch.no_grad():
        outputs = head(inputs["roi"].relu(), confounders, [4, 3])
        outputs["self_logits"] = self_logits
        outputs["loss_self"] = self_loss(self_logits, inputs["labels"])
        outputs["loss_context"] = context_loss(outputs, list(inputs["labels"].split([4, 3])))
    return outputs


@pytest.mark.parametrize(
    "name",
    [
        "attention",
        "z",
        "context_logits_image0",
        "context_logits_image1",
        "self_logits",
        "loss_self",
        "loss_context",
    ],
)
def test_the_causal_head_equals_published_code(made, name):
    wanted = golden_cases.outputs(CASE)[name]
    found = made[name].numpy()
    assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted)


def test_one_region_alone_has_no_context():
    head = CausalPredictor(16)
    confounders = Confounders(torch.rand(80, 1024), torch.full((80,), 1 / 80))
    made = head(torch.rand(1, 1024), confounders, [1])
    assert context_loss(made, [torch.tensor([3])]) == 0


def test_levels_follow_the_area_in_whole_pixels():
    # Maps that hold their own level's number.
    maps = [torch.full((1, 1, 64 >> k, 64 >> k), float(k + 2)) for k in range(4)]
    edges = torch.tensor([111.0, 110.9, 223.0, 222.9, 447.0, 10.0])
    boxes = torch.stack([torch.zeros(6), torch.zeros(6), edges, edges], dim=1)
    found = pool_regions(maps, [boxes]).mean(dim=(1, 2, 3))
    assert found[:4].tolist() == [3, 2, 4, 3]
    assert found[5] == 2


def test_a_region_is_an_unshifted_roi_align_of_its_level():
    torch.manual_seed(0)
    maps = [torch.rand(2, 3, 64 >> k, 64 >> k) for k in range(4)]
    box = torch.tensor([[10.0, 20.0, 200.0, 250.0]])
    found = pool_regions(maps, [torch.zeros(0, 4), box])
    rois = torch.cat([torch.ones(1, 1), box], dim=1)
    assert torch.equal(found, roi_align(maps[1], rois, 7, 1 / 8, 2, aligned=False))


def published(network, width=8):
    """The network's state under the published names."""
    state = {}
    for key, value in network.state_dict().items():
        key = key.replace("pyramid.inner_blocks.", "backbone.fpn.fpn_inner")
        key = key.replace("pyramid.layer_blocks.", "backbone.fpn.fpn_layer")
        if key.startswith("backbone.fpn"):
            stem, _, rest = key.partition(".0.") if ".0." in key[16:] else (key, "", "")
            stem = f"{stem[:-1]}{int(stem[-1]) + 1}"
            key = f"{stem}.{rest}"
        elif key.startswith(("fc6", "fc7")):
            key = f"roi_heads.box.feature_extractor.{key}"
        elif key.startswith("cls_score"):
            key = f"roi_heads.box.predictor.{key}"
        elif key.startswith(("body.conv1", "body.bn1")):
            key = f"backbone.{key.replace('body.', 'body.stem.')}"
        else:
            key = f"backbone.{key}"
        state[key] = value.clone()
    for key, value in CausalPredictor(width).state_dict().items():
        state[f"roi_heads.box.causal_predictor.{key}"] = value
    return state


def test_the_published_layout_loads_with_a_causal_head_of_any_width(tmp_path):
    network, other = VcRcnnNetwork(50), VcRcnnNetwork(50)
    state = published(network)
    torch.save({"model": state, "iteration": 3}, tmp_path / "model_final.pth")
    checkpoint = Checkpoint.read(tmp_path / "model_final.pth")
    other.load(checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(
        network.state_dict().values(), other.state_dict().values(), strict=True))  # fmt: skip
    assert load_causal(checkpoint).Wy.weight.shape == (8, 1024)


def test_another_depth_is_named(tmp_path):
    state = published(VcRcnnNetwork(50))
    with pytest.raises(WeightsRejected, match="ResNet-50") as caught:
        VcRcnnNetwork(101).load(Checkpoint(tmp_path / "x.pth", state))
    assert "depth=50" in str(caught.value.hint)


def test_confounders_are_class_means(tmp_path):
    features = torch.tensor([[1.0], [3.0], [10.0]]).expand(3, 1024)
    found = Confounders.of_features(features, torch.tensor([5, 5, 7]))
    assert found.dictionary[5, 0] == 2
    assert found.prior[[5, 7, 0]].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    np.save(tmp_path / "d.npy", np.vstack([np.zeros((1, 1024)), np.ones((80, 1024))]))
    np.save(tmp_path / "p.npy", np.full(80, 1 / 80))
    read = Confounders.read(tmp_path / "d.npy", tmp_path / "p.npy")
    assert read.dictionary.shape == (80, 1024)
    assert read.dictionary.min() == 1
    np.save(tmp_path / "p.npy", np.ones(79))
    with pytest.raises(WeightsRejected, match="79"):
        Confounders.read(tmp_path / "d.npy", tmp_path / "p.npy")
