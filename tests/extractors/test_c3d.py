"""C3D: clips, channel order of the map, pool5 of Caffe and its ports, checkpoint layouts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ValidationError

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.c3d import AnchorClipSampler
from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.media import FrameBlock
from vlpipe.extractors.networks.c3d import C3dNetwork
from vlpipe.extractors.registry import find_extractor
from vlpipe.extractors.weights.checkpoint import Checkpoint

LAYERS = ("conv1", "conv2", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b")
LAYERS += ("fc6", "fc7", "fc8")
UCF101 = (*(f"features.{k}" for k in (0, 3, 6, 8, 11, 13, 16, 18)),)
UCF101 += tuple(f"classifier.{k}" for k in (0, 3, 6))
CAFFE = ("conv1a", "conv2a", *LAYERS[2:8], "fc6-1", "fc7-1", "fc8-1")
MMACTION = (*(f"{name}.conv" for name in CAFFE[:8]), "fc6", "fc7")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(2)
    made = C3dNetwork().eval().requires_grad_(False)
    made.initialise_untrained()
    return made


@pytest.fixture(scope="module")
def extractor():
    settings = {"resize": (32, 32), "crop": 32, "outputs": ("conv5b",)}
    return create_extractor("c3d", weights="untrained", **settings)


def renamed(network, layers):
    """The entries of a network by another layout's names of its layers."""
    return {
        f"{theirs}.{kind}": network.state_dict()[f"{ours}.{kind}"]
        for ours, theirs in zip(LAYERS, layers, strict=False)
        for kind in ("weight", "bias")
    }


def plain_map(network, x):
    """conv5b as the paper draws it, (B, 512, 2, 7, 7) of 112 pixels."""
    for stage in (("conv1",), ("conv2",), ("conv3a", "conv3b"), ("conv4a", "conv4b")):
        for name in stage:
            layer = network.get_submodule(name)
            x = torch.relu(F.conv3d(x, layer.weight, layer.bias, padding=1))
        x = F.max_pool3d(x, (1, 2, 2) if stage == ("conv1",) else (2, 2, 2))
    for name in ("conv5a", "conv5b"):
        layer = network.get_submodule(name)
        x = torch.relu(F.conv3d(x, layer.weight, layer.bias, padding=1))
    return x


def test_large_layers_follow_the_default_device():
    with torch.device("meta"):
        assert C3dNetwork().fc6.weight.is_meta
    assert C3dNetwork().fc6.weight.device.type == "cpu"


def test_rows_of_other_draws_are_another_generation():
    drawn = configure_extractor("c3d", weights="untrained").provenance()
    assert drawn["weights"] == {"untrained": True, "seed": 0, "draw": 2}
    other = configure_extractor("resnet18", weights="untrained").provenance()
    assert "draw" not in other["weights"]


def test_the_map_counts_time_faster_than_channels(network):
    x = 50 * torch.randn(1, 3, 16, 48, 32, generator=torch.Generator().manual_seed(0))
    made = network(x)
    flat = plain_map(network, x)  # (1, 512, 2, 3, 2)
    assert set(made) == {"conv5b"}
    assert made["conv5b"].shape == (1, 1024, 3, 2)
    for channel, time in ((0, 0), (0, 1), (7, 1), (511, 0)):
        wanted = flat[:, channel, time]
        assert torch.allclose(made["conv5b"][:, 2 * channel + time], wanted, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(flat[:, 0, 0], flat[:, 0, 1])


def test_pool5_starts_at_the_first_cell_in_caffe_and_before_it_in_the_ports(network):
    x = 50 * torch.randn(1, 3, 16, 112, 112, generator=torch.Generator().manual_seed(1))
    made = network(x)
    shared = made["conv5b"].unflatten(1, (512, 2)).amax(dim=2)[0]  # (512, 7, 7)
    windows = {
        "caffe": [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)],
        "ports": [slice(0, 1), slice(1, 3), slice(3, 5), slice(5, 7)],
    }
    rows = {}
    for way, slices in windows.items():
        pooled = torch.stack([shared[:, y, x].amax(dim=(1, 2)) for y in slices for x in slices], 1)
        rows[way] = torch.relu(F.linear(pooled.flatten(), network.fc6.weight, network.fc6.bias))
    assert torch.allclose(made["fc6"][0], rows["caffe"], rtol=1e-4, atol=1e-2)
    assert not torch.allclose(rows["caffe"], rows["ports"], rtol=1e-2, atol=1)
    network.pool5 = "ports"
    other = network(x)
    network.pool5 = "caffe"
    assert torch.allclose(other["fc6"][0], rows["ports"], rtol=1e-4, atol=1e-2)
    assert torch.equal(other["conv5b"], made["conv5b"])
    assert made["logits"].shape == (1, 487)


@pytest.mark.parametrize("layers", [UCF101, CAFFE, MMACTION], ids=["ucf101", "caffe", "mmaction"])
def test_all_layouts_fill_the_same_network(network, layers, tmp_path):
    state = renamed(network, layers)
    if layers is UCF101:
        state |= {
            "classifier.6.weight": torch.zeros(101, 4096),
            "classifier.6.bias": torch.ones(101),
        }
    torch.save(state, tmp_path / "c3d.pth")
    with torch.device("meta"):
        made = C3dNetwork()
    made.to_empty(device="cpu").load(Checkpoint.read(tmp_path / "c3d.pth"))
    for key, value in network.state_dict().items():
        if not key.startswith("fc8"):
            assert torch.equal(made.state_dict()[key], value)
    assert (made.fc8 is None) == (layers is MMACTION)
    if layers is UCF101:
        assert made.fc8.out_features == 101


def test_another_checkpoint_names_what_is_missing(tmp_path):
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3, 3)}, tmp_path / "one.pth")
    with pytest.raises(WeightsRejected, match="checkpoint of C3D"):
        C3dNetwork().load(Checkpoint.read(tmp_path / "one.pth"))


def clips_of(num_frames, align, step, block_size):
    """Numbers of the frames of every clip, and the starts of their spans, frames a second long."""
    sampler = AnchorClipSampler(align, step)
    samples = []
    for first in range(0, num_frames, block_size):
        numbers = np.arange(first, min(first + block_size, num_frames))
        frames = np.broadcast_to(numbers[:, None, None, None], (len(numbers), 2, 2, 3))
        spans = np.stack([numbers, numbers + 1.0], axis=1)
        samples += sampler.push(FrameBlock(0, frames.astype(np.uint8), spans, first))
    samples += sampler.finish()
    return [s.data[:, 0, 0, 0].tolist() for s in samples], [s.span for s in samples]


@pytest.mark.parametrize("block_size", [1, 7, 64])
@pytest.mark.parametrize("num_frames", [1, 7, 8, 9, 15, 16, 17, 40])
def test_clips_are_those_of_the_papers(num_frames, block_size):
    clips, spans = clips_of(num_frames, "past", 5, block_size)
    anchors = range(15, num_frames, 5)
    assert clips == [list(range(a - 15, a + 1)) for a in anchors]
    assert spans == [(a, a + 1.0) for a in anchors]

    clips, spans = clips_of(num_frames, "centre", 1, block_size)
    last = num_frames - 1
    assert clips == [np.clip(np.arange(a - 8, a + 8), 0, last).tolist() for a in range(num_frames)]
    assert spans == [(a, a + 1.0) for a in range(num_frames)]

    clips, _ = clips_of(num_frames, "centre", 3, block_size)
    assert [clip[8] for clip in clips] == list(range(0, num_frames, 3))


def test_a_file_gives_maps_and_a_short_one_none(extractor, tmp_path):
    random = np.random.default_rng(0)
    for count in (15, 27):
        frames = [
            Image.fromarray(random.integers(0, 255, (40, 60, 3), dtype=np.uint8)).quantize(8)
            for _ in range(count)
        ]
        frames[0].save(
            tmp_path / f"{count}.gif", save_all=True, append_images=frames[1:], duration=100
        )
    made = extractor.extract(tmp_path / "27.gif")["c3d_conv5b"]
    assert made.rows.shape == (3, 1024, 2, 2)
    assert made.spans[:, 0] == pytest.approx([1.5, 2.0, 2.5])
    short = extractor.extract(tmp_path / "15.gif")["c3d_conv5b"]
    assert short.rows.shape == (0, 1024, 2, 2)


def test_input_is_bgr_minus_the_mean_of_each_channel(extractor, monkeypatch):
    frames = np.zeros((1, 16, 112, 112, 3), np.uint8)
    frames[..., 0], frames[..., 1], frames[..., 2] = 200, 100, 50
    x = extractor.to_input(frames)
    assert x.shape == (1, 3, 16, 112, 112)
    assert x[0, :, 3, 5, 5].tolist() == [50 - 90, 100 - 98, 200 - 102]
    plain = configure_extractor("c3d", weights="untrained", channels="rgb", mean=(0, 0, 0))
    monkeypatch.setattr(extractor, "spec", plain)
    assert extractor.to_input(frames)[0, :, 3, 5, 5].tolist() == [200, 100, 50]


def test_sizes_that_the_network_does_not_take_are_refused():
    config = find_extractor("c3d").Config
    with pytest.raises(ValidationError, match="fc6 takes frames of 112x112; crop is 64"):
        config(crop=64)
    with pytest.raises(ValidationError, match="crop exceeds the shorter edge"):
        config(resize=(100, 171))
    for role, checkpoints in find_extractor("c3d").published_checkpoints().items():
        assert role == "c3d"
        for checkpoint in checkpoints:
            config(**checkpoint.settings)
