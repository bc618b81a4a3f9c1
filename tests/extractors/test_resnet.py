"""ResNet features of a file against torchvision's own transforms and network."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.models.feature_extraction import create_feature_extractor

from vlpipe.extractors import create_extractor


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(3)
    network = resnet50().eval()
    for module in network.modules():
        if hasattr(module, "bn3"):
            torch.nn.init.constant_(module.bn3.weight, 0.25)
    return network


@pytest.fixture(scope="module")
def checkpoint(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(reference.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def gif(tmp_path_factory):
    """Three frames with few colours, so that the GIF holds them exactly."""
    random = np.random.default_rng(0)
    palette = random.integers(0, 256, (8, 3), dtype=np.uint8)
    frames = [
        Image.fromarray(
            np.kron(palette[random.integers(0, 8, (9, 13))], np.ones((20, 20, 1))).astype(np.uint8)
        )
        for _ in range(3)
    ]
    path = tmp_path_factory.mktemp("media") / "three.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 250, 150])
    return path, frames


def test_features_of_a_file_equal_torchvisions(reference, checkpoint, gif):
    path, frames = gif
    preset = ResNet50_Weights.IMAGENET1K_V1.transforms()
    nodes = create_feature_extractor(
        reference, {"layer4": "res5c", "flatten": "pool5", "fc": "logits"}
    )
    with torch.inference_mode():
        wanted = nodes(torch.stack([preset(frame) for frame in frames]))
    extractor = create_extractor("resnet50", weights=checkpoint, outputs=("pool5", "res5c"))
    made = extractor.extract(path)
    for feature, key in (("resnet50", "pool5"), ("resnet50_res5c", "res5c")):
        error = np.linalg.norm(made[feature].rows - wanted[key].numpy())
        assert error / np.linalg.norm(wanted[key].numpy()) < 1e-5
    assert np.allclose(made["resnet50"].spans, [[0, 0.1], [0.1, 0.35], [0.35, 0.5]])
    with torch.inference_mode():
        x = torch.stack([preset(frame) for frame in frames])
        assert torch.allclose(
            extractor.network(x)["logits"], wanted["logits"], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("outputs", [("conv3_x", "conv2_x"), ("conv4_x", "pool5")])
def test_maps_of_earlier_stages_are_averaged_to_the_cells_of_the_last(
    reference, checkpoint, gif, outputs
):
    path, frames = gif
    preset = ResNet50_Weights.IMAGENET1K_V1.transforms()
    layers = {"layer1": "conv2_x", "layer2": "conv3_x", "layer3": "conv4_x"}
    nodes = create_feature_extractor(reference, layers)
    with torch.inference_mode():
        wanted = nodes(torch.stack([preset(frame) for frame in frames]))
    extractor = create_extractor("resnet50", weights=checkpoint, outputs=outputs)
    made = extractor.extract(path)
    assert len(made) == 2
    for key, maps in wanted.items():
        if key in outputs:
            edge = maps.shape[2] // 7  # of a cell
            cells = maps.unfold(2, edge, edge).unfold(3, edge, edge).mean(dim=(4, 5)).numpy()
            rows = made[f"resnet50_{key}"].rows
            assert np.linalg.norm(rows - cells) / np.linalg.norm(cells) < 1e-5


def test_sampling_is_by_time(checkpoint, gif):
    made = create_extractor("resnet50", weights=checkpoint, fps=10).extract(gif[0])["resnet50"]
    assert len(made.rows) == 5
    assert np.allclose(made.spans[:, 0], np.arange(5) / 10)
    # Frame 2 is shown from 0.10 to 0.35 s.
    assert np.array_equal(made.rows[1], made.rows[2])
    assert not np.array_equal(made.rows[0], made.rows[1])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_near(checkpoint, gif, precision):
    # Few processors compute with bfloat16 in hardware; elsewhere whole pictures take long.
    small = {"weights": checkpoint, "resize": 72, "crop": 64}
    exact = create_extractor("resnet50", **small).extract(gif[0])["resnet50"].rows
    rough = create_extractor("resnet50", **small, precision=precision)
    rows = rough.extract(gif[0])["resnet50"].rows
    assert np.linalg.norm(rows - exact) / np.linalg.norm(exact) < 0.05
    assert not np.array_equal(rows, exact)


def test_a_step_takes_every_so_many_frames_and_no_step_leaves_the_provenance(gif):
    stepped = create_extractor("resnet18", weights="untrained", frame_step=2, crop=32, resize=32)
    whole = create_extractor("resnet18", weights="untrained", crop=32, resize=32)
    rows, all_rows = (e.extract(gif[0])["resnet18"] for e in (stepped, whole))
    assert np.array_equal(rows.rows, all_rows.rows[::2])
    assert np.array_equal(rows.spans, all_rows.spans[::2])
    assert stepped.spec.provenance()["config"]["frame_step"] == 2
    assert "frame_step" not in whole.spec.provenance()["config"]
    assert stepped.spec.definitions()[0].generation != whole.spec.definitions()[0].generation
