"""Which boxes are kept, against the published code and against a suppression per class."""

import golden_cases
import numpy as np
import pytest
import torch
from torchvision.ops import nms

from vlpipe.extractors.regions.adaptive_boxes import (
    choose_boxes,
    class_confidences,
    spatial_numbers,
)

CASE = "adaptive_boxes"
WIDTH, HEIGHT = 480, 270
SCALE = min(600 / 270, 1000 / 480)
BOOST = {"few": 6.2, "some": 14, "many": 17}


def draw_frame(name):
    """Boxes (300, 4) in original pixels, logits (300, 1601), features (300, 2048)."""
    inputs = golden_cases.inputs(CASE)
    width, height = WIDTH * SCALE, HEIGHT * SCALE
    u = inputs[f"{name}/geometry"].astype(np.float64)
    x1, y1 = 0.8 * width * u[:, 0], 0.8 * height * u[:, 1]
    x2 = np.minimum(x1 + (0.1 + 0.6 * u[:, 2]) * width, width - 1)
    y2 = np.minimum(y1 + (0.1 + 0.6 * u[:, 3]) * height, height - 1)
    boxes = np.stack([x1, y1, x2, y2], axis=1).astype(np.float32)
    logits = inputs[f"{name}/logits"]
    logits[np.arange(300), inputs[f"{name}/label"]] += BOOST[name] * inputs[f"{name}/boost"]
    return (
        torch.from_numpy(boxes) / SCALE,
        torch.from_numpy(logits),
        torch.from_numpy(inputs[f"{name}/feature"]).relu(),
    )


def test_kept_boxes_equal_the_published_code():
    wanted = golden_cases.outputs(CASE)
    features, spatial, kept_boxes = [], [], []
    for name in ("few", "some", "many"):
        boxes, logits, feature = draw_frame(name)
        probabilities = logits.softmax(dim=1)[:, 1:]
        confidences = class_confidences(boxes, probabilities, 0.3)
        keep = choose_boxes(confidences, threshold=0.2, fewest=10, most=100)
        assert keep.tolist() == wanted[f"{name}.keep"].tolist()
        best = probabilities[keep].max(dim=1)
        assert best.indices.tolist() == wanted[f"{name}.object_id"].tolist()
        assert np.allclose(best.values.numpy(), wanted[f"{name}.object_conf"], rtol=1e-5)
        assert np.allclose(boxes[keep].numpy(), wanted[f"{name}.boxes"], rtol=1e-5)
        features.append(feature[keep, ::64])
        spatial.append(spatial_numbers(boxes[keep], HEIGHT, WIDTH))
        kept_boxes.append(boxes[keep])
    for key, parts in (
        ("image_features_sub", features),
        ("spatial_features", spatial),
        ("image_bb", kept_boxes),
    ):
        assert golden_cases.relative_error(torch.cat(parts).numpy(), wanted[key]) < 1e-5
    ends = np.cumsum([len(part) for part in features])
    assert wanted["pos_boxes"][:, 1].tolist() == ends.tolist()


@pytest.mark.parametrize("pixel", [0.0, 1.0])
def test_all_classes_at_once_equal_one_after_the_other(pixel):
    random = torch.Generator().manual_seed(5)
    corners = torch.rand(60, 2, generator=random) * 100
    boxes = torch.cat([corners, corners + 5 + torch.rand(60, 2, generator=random) * 60], dim=1)
    probabilities = torch.rand(60, 40, generator=random).softmax(dim=1)
    probabilities[7] = probabilities[8]  # ties go to the first
    wanted = torch.zeros(60)
    for scores in probabilities.T:
        kept = nms(boxes + torch.tensor([0, 0, pixel, pixel]), scores, 0.3)
        wanted[kept] = torch.maximum(wanted[kept], scores[kept])
    assert torch.equal(class_confidences(boxes, probabilities, 0.3, pixel=pixel), wanted)


def test_no_boxes_and_equal_boxes():
    assert len(class_confidences(torch.zeros(0, 4), torch.zeros(0, 5), 0.3)) == 0
    same = class_confidences(torch.ones(4, 4), torch.full((4, 2), 0.5), 0.3)
    assert same.tolist() == [0.5, 0, 0, 0]
    no_area = torch.tensor([[3.0, 3, 3, 3], [3, 3, 3, 3]])
    # With the pixel that is counted on top they are one pixel, without it their overlap is 0 / 0.
    assert class_confidences(no_area, torch.ones(2, 1), 0.3).tolist() == [1, 0]
    assert class_confidences(no_area, torch.ones(2, 1), 0.3, pixel=0).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("fewest", "most", "kept"),
    [
        (0, 9, [0, 2, 4]),  # in their order
        (3, 3, [0, 2, 4]),
        (4, 9, [2, 4, 0, 1]),  # the best, falling, ties in their order
        (1, 2, [2, 4]),
        (9, 9, [2, 4, 0, 1, 3]),  # all there are
        (0, 0, []),
    ],
)
def test_few_and_many(fewest, most, kept):
    confidences = torch.tensor([0.2, 0.1, 0.9, 0.1, 0.9])
    made = choose_boxes(confidences, threshold=0.2, fewest=fewest, most=most)
    assert made.tolist() == kept
