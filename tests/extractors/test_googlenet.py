"""GoogLeNet features of a file against torchvision's own network; rules of the Caffe one."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import GoogLeNet_Weights, googlenet

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.c3d import AnchorClipSampler
from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.googlenet import TorchvisionGoogLeNet, map_cells
from vlpipe.extractors.googlenet_caffe import CaffeGoogLeNet, _normalise
from vlpipe.extractors.inputs.frame_steps import StepSampler
from vlpipe.extractors.media import FrameBlock
from vlpipe.extractors.registry import find_extractor
from vlpipe.extractors.weights.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def reference():
    """torchvision's network as it comes with its weights: second scaling on, heads dropped."""
    torch.manual_seed(4)
    network = googlenet(weights=None, aux_logits=True, transform_input=True, init_weights=False)
    find_extractor("googlenet").initialise_untrained(network)
    return network.eval()


@pytest.fixture(scope="module")
def checkpoint(reference, tmp_path_factory):
    """A file as torchvision publishes it, with the two heads of training."""
    path = tmp_path_factory.mktemp("weights") / "googlenet.pth"
    state = reference.state_dict()
    assert any(key.startswith("aux1.") for key in state)
    torch.save(state, path)
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
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    return path, frames


def test_features_of_a_file_equal_torchvisions(reference, checkpoint, gif):
    path, frames = gif
    preset = GoogLeNet_Weights.IMAGENET1K_V1.transforms()
    maps = []
    hook = reference.inception5b.register_forward_hook(lambda _m, _i, out: maps.append(out))
    with torch.inference_mode():
        logits = reference(torch.stack([preset(frame) for frame in frames]))
    hook.remove()
    extractor = create_extractor("googlenet", weights=checkpoint, outputs=("pool5", "inception_5b"))
    made = extractor.extract(path)
    assert made["googlenet_inception_5b"].rows.shape == (3, 1024, 7, 7)
    wanted = maps[0].numpy()
    for rows, expected in (
        (made["googlenet_inception_5b"].rows, wanted),
        (made["googlenet"].rows, wanted.mean(axis=(2, 3))),
    ):
        assert np.linalg.norm(rows - expected) / np.linalg.norm(expected) < 1e-5
    with torch.inference_mode():
        x = torch.stack([preset(frame) for frame in frames])
        own = extractor.network(x)["logits"]
    assert torch.allclose(own, logits, rtol=1e-4, atol=1e-4)


def test_without_the_second_scaling_the_features_are_others(checkpoint):
    plain, other = (
        create_extractor("googlenet", weights=checkpoint, transform_input=on)
        for on in (True, False)
    )
    assert plain.spec.definitions()[0].generation != other.spec.definitions()[0].generation
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    row, without = (e.network(x)["pool5"] for e in (plain, other))
    assert torch.linalg.norm(row - without) / torch.linalg.norm(row) > 0.01


@pytest.mark.parametrize("kind", ["torchvision", "caffe"])
@pytest.mark.parametrize("edge", [32, 48, 100, 111, 224, 227, 299])
def test_declared_maps_are_those_that_are_made(kind, edge):
    with torch.device("meta"):
        network = (
            CaffeGoogLeNet(10)
            if kind == "caffe"
            else TorchvisionGoogLeNet(10, transform_input=True)
        ).eval()
        made = network(torch.empty(1, 3, edge, edge))["inception_5b"]
    cells = map_cells(edge, kind)
    assert made.shape == (1, 1024, cells, cells)
    assert cells == 7 or edge not in (224, 227)


def test_local_response_norms_are_caffes():
    x = torch.rand(1, 9, 2, 2, generator=torch.Generator().manual_seed(0)) * 100
    made = _normalise(x)
    for channel in range(9):
        near = x[:, max(0, channel - 2) : channel + 3]
        scale = (1 + 1e-4 / 5 * near.square().sum(dim=1)) ** 0.75
        assert torch.allclose(made[:, channel], x[:, channel] / scale, rtol=1e-5)


@pytest.mark.parametrize("spelling", ["/", "_"])
def test_caffe_layers_are_read_by_name_and_training_heads_passed_over(spelling, tmp_path):
    torch.manual_seed(1)
    wanted = CaffeGoogLeNet(365)
    state = {key.replace("/", spelling): value for key, value in wanted.state_dict().items()}
    state[f"loss1{spelling}conv.weight"] = torch.zeros(128, 512, 1, 1)
    state[f"loss2{spelling}fc.bias"] = torch.zeros(1024)
    torch.save(state, tmp_path / "places.pth")
    made = CaffeGoogLeNet(205)
    made.load(Checkpoint.read(tmp_path / "places.pth"))
    for key, value in wanted.state_dict().items():
        assert torch.equal(made.state_dict()[key], value)
    places = find_extractor("googlenet_places")
    places.check_checkpoint("googlenet_places", Checkpoint.read(tmp_path / "places.pth"))
    small = create_extractor("googlenet_places", weights=tmp_path / "places.pth", crop=32)
    assert small.network.state_dict().keys() == wanted.state_dict().keys()


def test_scenes_are_bgr_minus_the_mean_of_places():
    frames = np.zeros((1, 227, 227, 3), np.uint8)
    frames[..., 0], frames[..., 1], frames[..., 2] = 200, 100, 50
    extractor = create_extractor("googlenet_places", weights="untrained")
    request = extractor.spec.request
    assert (request.resize.size, request.center_crop) == ((256, 256), 227)
    x = extractor.to_input(frames)[0, :, 3, 3]
    assert x.tolist() == pytest.approx([50 - 105.487823, 100 - 113.741089, 200 - 116.060394])


def test_a_checkpoint_of_the_other_network_is_refused(checkpoint):
    with pytest.raises(WeightsRejected, match="Caffe's GoogLeNet"):
        create_extractor("googlenet", weights=checkpoint, network="caffe")


def test_published_settings_are_valid():
    for name in ("googlenet", "googlenet_places"):
        extractor = find_extractor(name)
        for checkpoints in extractor.published_checkpoints().values():
            for published in checkpoints:
                extractor.Config(**published.settings)
    spec = configure_extractor("googlenet", weights="untrained", frame_step=5)
    assert spec.extractor.samples_per_second(spec.config) == 5


def starts_of(sampler, num_frames, block_size):
    samples = []
    for first in range(0, num_frames, block_size):
        numbers = np.arange(first, min(first + block_size, num_frames))
        frames = np.zeros((len(numbers), 1, 1, 3), np.uint8)
        spans = np.stack([numbers, numbers + 1.0], axis=1)
        samples += sampler.push(FrameBlock(0, frames, spans, first))
    samples += sampler.finish()
    return [sample.span[0] for sample in samples]


@pytest.mark.parametrize("block_size", [1, 3, 5, 16, 100])
@pytest.mark.parametrize("num_frames", [10, 15, 16, 20, 21, 58])
def test_frames_of_gean_are_those_where_its_clips_end(num_frames, block_size):
    frames = starts_of(StepSampler(5, 15), num_frames, block_size)
    assert frames == list(range(15, num_frames, 5))
    assert frames == starts_of(AnchorClipSampler("past", 5), num_frames, block_size)
    assert starts_of(StepSampler(1, 0), num_frames, block_size) == list(range(num_frames))
