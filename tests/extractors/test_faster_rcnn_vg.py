"""The Visual Genome Faster R-CNN against the published port, and its two checkpoint layouts."""

import golden_cases
import numpy as np
import pytest
import torch

from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.networks.faster_rcnn_vg import FasterRcnnVg
from vlpipe.extractors.regions.faster_rcnn_boxes import (
    CAFFE_ANCHORS,
    decode_deltas,
    symmetric_anchors,
)
from vlpipe.extractors.weights.checkpoint import Checkpoint

CASE = "faster_rcnn_vg"
MEAN_BGR = np.array([102.9801, 115.9465, 122.7717], np.float32)


def relative_error(got, wanted):
    return golden_cases.relative_error(got.numpy(), wanted)


@pytest.fixture(scope="module")
def published():
    state = {key: torch.from_numpy(value) for key, value in golden_cases.state(CASE).items()}
    return Checkpoint("caffe.pth", state)


@pytest.fixture(scope="module")
def network(published):
    network = FasterRcnnVg(regions_at_once=4).eval().requires_grad_(False)
    network.load(published)
    return network


@pytest.fixture(scope="module")
def other_network():
    """Loaded anew by each test."""
    return FasterRcnnVg(regions_at_once=4).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def wanted():
    return golden_cases.outputs(CASE)


@pytest.fixture(scope="module")
def res4():
    return torch.from_numpy(golden_cases.inputs(CASE)["res4"]).relu()


@torch.inference_mode()
def test_backbone_equals_the_published_code(network, wanted):
    small = golden_cases.inputs(CASE)["image_small"]
    rgb = small.repeat(25, axis=0).repeat(25, axis=1)
    bgr = rgb[..., ::-1].astype(np.float32) - MEAN_BGR
    res4 = network.res4(torch.from_numpy(bgr.transpose(2, 0, 1)[None].copy()))
    assert relative_error(res4[0, ::32], wanted["res4_sub"]) < 1e-5


@torch.inference_mode()
def test_proposals_equal_the_published_code(network, wanted, res4):
    boxes, scores = network.propose(res4, 304, 448, 1.25)
    assert relative_error(scores, wanted["proposal_scores"]) < 1e-5
    # Near ties may change places.
    far = (boxes[:, None] - torch.from_numpy(wanted["proposals"])).abs().amax(dim=2).amin(dim=1)
    assert far.max() < 0.01


@torch.inference_mode()
def test_regions_equal_the_published_code(network, wanted, res4):
    boxes = torch.from_numpy(wanted["boxes"])
    made = network.describe(res4, boxes)
    assert relative_error(made["features"], wanted["features"]) < 1e-5
    assert relative_error(made["class_logits"][:, ::8], wanted["class_logits_sub"]) < 1e-5
    assert relative_error(made["attr_prob"], wanted["attr_prob"]) < 1e-4
    assert relative_error(made["box_deltas"][:, ::50], wanted["box_deltas_sub"]) < 1e-5
    assert made["class_id"].tolist() == wanted["class_id"].tolist()
    pooled = network.pool(res4, boxes[:2])[:, ::128]
    assert relative_error(pooled, wanted["pooled_sub"]) < 1e-6
    refined = decode_deltas(boxes / 1.25, made["box_deltas"][:, 4:20], pixel=1.0)
    assert relative_error(refined, wanted["refined_boxes_class1to4"]) < 1e-5


@torch.inference_mode()
def test_a_region_has_the_same_bits_whatever_it_comes_with(network, wanted, res4):
    boxes = torch.from_numpy(wanted["boxes"])
    together = network.describe(res4, boxes)
    alone = network.describe(res4, boxes[5:6])
    for key, values in alone.items():
        assert torch.equal(values[0], together[key][5])
    for values in network.describe(res4, boxes[:0]).values():
        assert len(values) == 0


def test_the_anchors_of_the_file_count(published, other_network, wanted):
    assert np.array_equal(wanted["cell_anchors"], np.array(CAFFE_ANCHORS, np.float32))
    other = torch.arange(48.0).view(12, 4)
    key = "proposal_generator.anchor_generator.cell_anchors.0"
    other_network.load(Checkpoint("caffe.pth", {**published.state, key: other}))
    assert torch.equal(other_network.anchors, other)
    for anchors, area in zip(symmetric_anchors()[::3], (64, 128, 256, 512), strict=True):
        x1, y1, x2, y2 = anchors
        assert (x1, y1) == (-x2, -y2)
        assert (x2 - x1) * (y2 - y1) == pytest.approx(area**2)


def as_unc(state):
    """The same network as its other port stores it."""
    predictor = "roi_heads.box_predictor."
    names = {"cls_embed": "cls_embedding", "attr_linear1": "fc_attr", "attr_linear2": "attr_score"}
    made = {}
    for key, value in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        if "objectness_logits" in key:
            value = value[12:] - value[:12]
        elif key.startswith(predictor):
            name, _, entry = key.removeprefix(predictor).partition(".")
            if name in ("cls_score", "cls_embed", "attr_linear2"):
                value = torch.cat([value[1:], value[:1]])
            elif name == "bbox_pred":
                weights = torch.tensor([10.0, 10.0, 5.0, 5.0]).repeat(1600)
                value = value[4:] * (weights[:, None] if value.ndim == 2 else weights)
            key = f"{predictor}{names.get(name, name)}.{entry}"
        made[key] = value
    return made


@torch.inference_mode()
def test_the_unc_layout_holds_the_same_network(published, network, other_network, wanted, res4):
    other = other_network
    other.load(Checkpoint("unc.safetensors", as_unc(published.state)))
    boxes = torch.from_numpy(wanted["boxes"])[:4]
    made, same = other.describe(res4, boxes), network.describe(res4, boxes)
    for key in ("features", "class_logits", "attr_prob"):
        assert relative_error(made[key], same[key].numpy()) < 1e-5
    assert torch.equal(made["class_id"], same["class_id"])
    assert relative_error(made["box_deltas"][:, 4:], same["box_deltas"][:, 4:].numpy()) < 1e-5
    scores, _ = other.rpn(res4)
    assert torch.allclose(scores, network.rpn(res4)[0], atol=1e-5)
    # Boxes of this layout count no pixel more, and its own anchors lie about the cell's corner.
    assert other.pixel == 0.0
    assert torch.equal(other.anchors, torch.tensor(symmetric_anchors()))
    found, _ = other.propose(res4, 304, 448, 1.25)
    assert found[:, 2].max() <= 448
    assert found[:, 3].max() <= 304


@torch.inference_mode()
def test_files_without_attributes_leave_them_out(published, wanted, res4):
    network = FasterRcnnVg(regions_at_once=1).eval()
    plain = {k: v for k, v in published.state.items() if "attr" not in k and "embed" not in k}
    network.load(Checkpoint("plain.pth", plain))
    made = network.describe(res4, torch.from_numpy(wanted["boxes"])[:1])
    assert set(made) == {"features", "class_logits", "box_deltas", "class_id"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone.res4.22.conv3.weight": None}, "1 entries missing"),
        ({"roi_heads.mask_head.weight": torch.zeros(3)}, "not of this network"),
        ({"roi_heads.box_predictor.cls_score.weight": torch.zeros(81, 2048)}, "another shape"),
        ({"roi_heads.box_predictor.attr_linear1.weight": None}, "missing"),
    ],
)
def test_other_checkpoints_are_refused(published, network, change, message):
    state = {k: v for k, v in (published.state | change).items() if v is not None}
    with pytest.raises(WeightsRejected, match=message):
        network.load(Checkpoint("other.pth", state))


def test_one_image_at_a_time(network):
    with pytest.raises(ValueError, match="one image"):
        network(torch.zeros(2, 3, 32, 32))
