"""Clip features of a file against torchvision's own transforms and networks."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.models import get_model, get_model_weights

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.registry import find_extractor

ARCHITECTURES = ("r2plus1d_18", "r3d_18", "mc3_18", "s3d")
# S3D takes no fewer than 14 frames, and 224x224 for torchvision's own pooling window.
SIZES = {"s3d": {"stack_size": 16, "step_size": 16}}
SMALL = {"stack_size": 8, "step_size": 8, "resize": 64, "crop": 48}


@pytest.fixture(scope="module")
def gif(tmp_path_factory):
    """Twenty frames of 0.1 s with few colours, so that the GIF holds them exactly."""
    random = np.random.default_rng(0)
    palette = random.integers(0, 256, (8, 3), dtype=np.uint8)
    frames = [
        Image.fromarray(
            np.kron(palette[random.integers(0, 8, (9, 13))], np.ones((30, 30, 1))).astype(np.uint8)
        )
        for _ in range(20)
    ]
    path = tmp_path_factory.mktemp("media") / "twenty.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    pixels = np.stack([np.asarray(frame.convert("RGB")) for frame in frames])
    return path, torch.from_numpy(pixels).permute(0, 3, 1, 2)  # (20, 3, 270, 390)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def reference(request, tmp_path_factory):
    """A network of torchvision with drawn weights, and its checkpoint."""
    torch.manual_seed(5)
    network = get_model(request.param).eval()
    find_extractor(request.param).initialise_untrained(network)
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.pth"
    torch.save(network.state_dict(), path)
    return request.param, network, path


def test_features_of_a_file_equal_torchvisions(reference, gif):
    name, network, checkpoint = reference
    path, frames = gif
    settings = SIZES.get(name, SMALL)
    extractor = create_extractor(
        name, weights=checkpoint, fps=10, tail="drop", outputs=("pooled", "logits"), **settings
    )
    size = settings["stack_size"]
    preset = get_model_weights(name).DEFAULT.transforms()
    if "crop" in settings:
        preset.resize_size, preset.crop_size = [settings["resize"]], 2 * [settings["crop"]]
    with torch.inference_mode():
        clips = torch.stack([preset(frames[k : k + size]) for k in range(0, 21 - size, size)])
        wanted = network(clips).numpy()
    made = extractor.extract(path)
    logits = made[f"{name}_logits"]
    assert logits.rows.shape == wanted.shape == (20 // size, 400)
    assert np.linalg.norm(logits.rows - wanted) / np.linalg.norm(wanted) < 1e-5
    assert np.allclose(logits.spans[:, 0], np.arange(20 // size) * size / 10)
    assert np.allclose(np.diff(logits.spans), size / 10)
    # The head is linear in the feature.
    head = network.classifier[1] if name == "s3d" else network.fc
    weight = head.weight.detach().flatten(1).numpy()
    by_hand = made[name].rows @ weight.T + head.bias.detach().numpy()
    assert np.allclose(by_hand, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_frames_become_those_of_the_preset(name, gif):
    preset = get_model_weights(name).DEFAULT.transforms()
    extractor = create_extractor(name, weights="untrained")
    frames = gif[1][:3]
    scaled = extractor._scale(frames.permute(0, 2, 3, 1).contiguous().numpy())
    x = extractor.to_input(scaled[None])[0]
    assert torch.allclose(x, preset(frames), atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_untrained_activations_fit_float16(name):
    extractor = create_extractor(name, weights="untrained")
    largest = []

    def note(_module, _inputs, output):
        largest.append(float(output.abs().max()) if isinstance(output, torch.Tensor) else 0.0)

    for module in extractor.network.modules():
        module.register_forward_hook(note)
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 48, 48, 3), dtype=np.uint8)
    frames[0] = 255
    made = extractor.network(extractor.to_input(frames))
    assert 1 < max(largest) < 1000
    assert 0.01 < float(made["pooled"].mean()) < 100


@pytest.mark.parametrize(("tail", "num_rows"), [("cycle", 2), ("drop", 1)])
def test_what_is_left_at_the_end_is_repeated_or_dropped(gif, tail, num_rows):
    settings = SMALL | {"stack_size": 16, "step_size": 16}
    extractor = create_extractor("mc3_18", weights="untrained", tail=tail, fps=10, **settings)
    made = extractor.extract(gif[0])["mc3_18"]
    assert len(made.rows) == num_rows
    assert made.spans.tolist() == pytest.approx(np.array([[0, 1.6], [1.6, 2.0]])[:num_rows])


def test_published_presets_are_the_defaults():
    for name in ARCHITECTURES:
        extractor = find_extractor(name)
        (checkpoint,) = extractor.published_checkpoints()[name]
        config = extractor.Config()
        for key, value in checkpoint.settings.items():
            assert getattr(config, key) == value
        assert checkpoint.sha256 in checkpoint.url
    spec = configure_extractor("s3d", weights="untrained")
    assert spec.extractor.samples_per_second(spec.config) == 15 / 128


def test_wrong_checkpoints_and_clips_are_refused(tmp_path):
    torch.save(get_model("r3d_18").state_dict(), tmp_path / "r3d.pth")
    with pytest.raises(WeightsRejected, match=r"torchvision mc3_18.*instead of"):
        create_extractor("mc3_18", weights=tmp_path / "r3d.pth")
    with pytest.raises(ValidationError, match="greater than or equal to 14"):
        find_extractor("s3d").Config(stack_size=8)
    with pytest.raises(ValidationError, match="step_size exceeds stack_size, which is 16"):
        find_extractor("r3d_18").Config(step_size=17)
