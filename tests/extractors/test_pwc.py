"""PWC-Net against the published code's numbers, its traps, and the order of work it replaces."""

import golden_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_media import make_gif
from plain_pwc import plain_cost_volume, plain_flow, plain_warp

from vlpipe.extractors import create_extractor
from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.frame_pairs import PairSampler
from vlpipe.extractors.media import FrameBlock
from vlpipe.extractors.networks import winograd
from vlpipe.extractors.networks.flow_matching import cost_volume, warp
from vlpipe.extractors.networks.pwc import PwcNetwork
from vlpipe.extractors.weights.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def state():
    return {k: torch.from_numpy(v) for k, v in golden_cases.state("pwc_net").items()}


@pytest.fixture(scope="module")
def network(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "pwc_net.pt"
    torch.save(state, path)
    return load(path)


@pytest.fixture(scope="module")
def images():
    """First and second image of the golden case, (1, 3, 100, 150) whole numbers."""
    drawn = golden_cases.inputs("pwc_net")
    return [
        torch.from_numpy(np.round(255 * drawn[name].repeat(10, 2).repeat(10, 3)))
        for name in ("pwc_net.first", "pwc_net.second")
    ]


def load(path):
    network = PwcNetwork()
    network.load(Checkpoint.read(path))
    return network.eval().requires_grad_(False)


def draw_frames(count, height, width, seed=0):
    """Smooth uint8 frames (count, 3, H, W)."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, height // 8 + 2, width // 8 + 2, generator=random)
    return (255 * F.interpolate(coarse, size=(height, width), mode="bilinear")).to(torch.uint8)


def error(got, wanted):
    return golden_cases.relative_error(got.numpy(), wanted.numpy())


def test_flow_is_the_published_one(network, images):
    wanted = golden_cases.outputs("pwc_net")["flow"]
    with torch.inference_mode():
        made = network(*images)["flow"]
        of_bytes = network(*(image.to(torch.uint8) for image in images))["flow"]
    assert golden_cases.relative_error(made.numpy(), wanted) < 1e-5
    assert torch.equal(made, of_bytes)


def test_the_plain_order_of_work_gives_the_published_flow_too(state, images):
    wanted = golden_cases.outputs("pwc_net")["flow"]
    assert golden_cases.relative_error(plain_flow(state, *images).numpy(), wanted) < 1e-5
    # What the comparison can tell apart: images taken as RGB.
    changed = plain_flow(state, *images, rgb=False).numpy()
    assert golden_cases.relative_error(changed, wanted) > 0.1


def test_layers_as_they_are_give_the_same_flow(network, images):
    # With gradients nothing is made tile by tile: this is the way of GPUs and low precision.
    wanted = golden_cases.outputs("pwc_net")["flow"]
    with torch.enable_grad():
        made = network(*images)["flow"]
    assert golden_cases.relative_error(made.numpy(), wanted) < 1e-5


@pytest.mark.parametrize("size", [(64, 64), (65, 131), (50, 200), (127, 33)])
def test_images_of_any_size(network, state, size):
    frames = draw_frames(2, *size)
    with torch.inference_mode():
        made = network(frames[:1], frames[1:])["flow"]
    assert made.shape == (1, 2, *size)
    assert error(made, plain_flow(state, frames[:1], frames[1:])) < 1e-5


@pytest.mark.parametrize("pairs_at_once", [1, 2, 8])
def test_a_stack_gives_the_flow_of_its_pairs(network, pairs_at_once):
    frames = draw_frames(6, 70, 130)
    with torch.inference_mode():
        pairs = network(frames[:-1], frames[1:])["flow"]
        stack = network.flow_of_stack(frames, pairs_at_once=pairs_at_once)
    assert stack.shape == (5, 2, 70, 130)
    assert error(stack, pairs) < 1e-5


def test_splitting_a_batch_changes_nothing(network):
    frames = draw_frames(5, 64, 128)
    with torch.inference_mode():
        together = network(frames[:-1], frames[1:])["flow"]
        alone = [network(frames[k : k + 1], frames[k + 1 : k + 2])["flow"] for k in range(4)]
    assert error(torch.cat(alone), together) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_near(network, dtype):
    frames = draw_frames(2, 64, 128)
    with torch.inference_mode():
        exact = network(frames[:1], frames[1:])["flow"]
        with torch.autocast("cpu", dtype=dtype):
            rough = network(frames[:1], frames[1:])["flow"]
    assert rough.dtype == torch.float32
    assert 0 < error(rough, exact) < 0.05


def test_each_frame_has_one_pyramid(network, monkeypatch):
    seen = []
    pyramid = PwcNetwork.pyramid
    monkeypatch.setattr(
        PwcNetwork, "pyramid", lambda self, x: seen.append(len(x)) or pyramid(self, x)
    )
    with torch.inference_mode():
        network.flow_of_stack(draw_frames(6, 64, 64), pairs_at_once=2)
    assert seen == [3, 2, 1]


def test_both_spellings_and_a_parallel_prefix_are_read(network, state, tmp_path):
    spellings = {
        "net": {key.replace("module", "net"): value for key, value in state.items()},
        "parallel": {f"module.{key}": value for key, value in state.items()},
    }
    for name, renamed in spellings.items():
        torch.save(renamed, tmp_path / f"{name}.pt")
        again = load(tmp_path / f"{name}.pt").state_dict()
        for key, value in network.state_dict().items():
            assert torch.equal(again[key], value)


def test_another_checkpoint_is_refused(state, tmp_path):
    torch.save({k: v for k, v in state.items() if "Refiner" not in k}, tmp_path / "part.pt")
    with pytest.raises(WeightsRejected, match="PWC-Net: 14 entries missing"):
        load(tmp_path / "part.pt")


@pytest.mark.parametrize("shape", [(2, 32, 16, 24), (1, 196, 1, 1), (3, 5, 7, 33), (1, 8, 2, 16)])
def test_the_cost_volume_is_that_of_81_products(shape):
    first, second = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    assert error(cost_volume(first, second), plain_cost_volume(first, second)) < 1e-6


def test_the_cost_volume_is_a_mean_with_x_as_the_fast_displacement():
    first, second = torch.zeros(2, 1, 4, 16, 16)
    first[0, :, 8, 8] = 1
    second[0, :, 8 - 1, 8 + 3] = 1
    volume = cost_volume(first, second)
    assert volume.sum() == 1
    assert volume[0, (-1 + 4) * 9 + (3 + 4), 8, 8] == 1


def test_warping_aligns_corners_and_drops_what_leaves_the_image():
    random = torch.Generator().manual_seed(2)
    features = torch.randn(2, 3, 12, 20, generator=random)
    flow = 3 * torch.randn(2, 2, 12, 20, generator=random)
    assert error(warp(features, flow), plain_warp(features, flow)) < 1e-6
    assert error(plain_warp(features, flow, align_corners=False), plain_warp(features, flow)) > 0.1


def test_warping_by_whole_pixels_undoes_a_shift():
    features = torch.randn(1, 3, 12, 20, generator=torch.Generator().manual_seed(2))
    shifted = features.roll((2, -3), (2, 3))
    flow = torch.tensor([-3.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 12, 20)
    made = warp(shifted, flow)
    # Two rows below and three columns on the left would come from outside.
    assert torch.allclose(made[:, :, :10, 3:], features[:, :, :10, 3:], atol=1e-5)
    assert not made[:, :, 10:].any()
    assert not made[:, :, :, :3].any()


@pytest.mark.parametrize("size", [(24, 44), (25, 46), (7, 3)])
def test_convolutions_by_tiles_equal_convolutions(size):
    random = torch.Generator().manual_seed(3)
    image = torch.randn(20, *size, generator=random)
    weight = torch.randn(7, 20, 3, 3, generator=random)
    bias = torch.randn(7, generator=random)
    made = winograd.convolve_maps(image, winograd.transform_filters(weight), bias)
    assert error(made, F.conv2d(image, weight, bias, padding=1)) < 1e-5


def test_neighbours_are_paired_across_blocks():
    frames = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)
    spans = np.stack([np.arange(7), np.arange(7) + 1.0], 1) / 25
    sampler = PairSampler()
    samples = []
    for start, end in ((0, 1), (1, 4), (4, 7)):
        samples += sampler.push(FrameBlock(0, frames[start:end], spans[start:end], start))
    samples += sampler.finish()
    assert len(samples) == 6
    for k, sample in enumerate(samples):
        assert np.array_equal(sample.data, frames[k : k + 2])
        assert sample.span == (k / 25, (k + 1) / 25)


def test_rows_of_a_file_are_the_flow_between_its_frames(network, state, tmp_path):
    torch.save(state, tmp_path / "pwc_net.pt")
    clip = make_gif(tmp_path / "clip.gif", [100, 300, 200])
    extractor = create_extractor("pwc", weights=tmp_path / "pwc_net.pt", fps=None, size=(64, 96))
    made = extractor.extract(clip)["pwc"]
    assert made.rows.shape == (2, 2, 64, 96)
    assert np.allclose(made.spans, [[0, 0.1], [0.1, 0.4]])
    assert np.abs(made.rows).max() > 0.1
    single = make_gif(tmp_path / "single.gif", [100])
    assert extractor.extract(single)["pwc"].rows.shape == (0, 2, 64, 96)
