"""SVT against the published numbers, its checkpoint layouts, times and frames."""

from pathlib import Path

import golden_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.networks.svt import SvtNetwork, resize_grid, resize_times
from vlpipe.extractors.registry import find_extractor
from vlpipe.extractors.weights.checkpoint import Checkpoint

SMALL = {"num_frames": 4, "crop": 32, "resize": 32}
HEAD = {
    "head.mlp.0.weight": torch.zeros(4, 768),
    "head.last_layer.weight_g": torch.zeros(8, 1),
    "head.last_layer.weight_v": torch.zeros(8, 4),
}


def as_checkpoint(state):
    return Checkpoint(Path("svt.pth"), dict(state))


def on_meta():
    with torch.device("meta"):
        return SvtNetwork()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file in the published layout, with entries of the projection head."""
    drawn = golden_cases.state("svt_vitb")
    assert len(drawn) == 247
    path = tmp_path_factory.mktemp("weights") / "kinetics400_vitb_ssl.pth"
    torch.save({key: torch.from_numpy(value) for key, value in drawn.items()} | HEAD, path)
    return path


@pytest.fixture(scope="module")
def network(published):
    return create_extractor("svt", weights=published).network


def clip_of_case(name):
    return torch.from_numpy(golden_cases.inputs("svt_vitb")[name])


def test_the_network_gives_the_published_numbers(network):
    made = network(clip_of_case("clip"))
    wanted = golden_cases.outputs("svt_vitb")
    assert made["tokens"].shape == (1, 1 + 196 * 8, 768)
    some = made["tokens"][0, wanted["token_index"]].numpy()
    assert golden_cases.relative_error(made["cls"].numpy(), wanted["cls"]) < 1e-5
    assert golden_cases.relative_error(some, wanted["tokens_sub"]) < 1e-5
    mean = made["tokens_mean"].numpy()
    assert golden_cases.relative_error(mean, wanted["tokens_mean"].reshape(mean.shape)) < 1e-5


@pytest.mark.slow
def test_twice_the_frames_give_the_published_numbers(network):
    made = network(clip_of_case("clip16"))["cls"].numpy()
    assert golden_cases.relative_error(made, golden_cases.outputs("svt_vitb")["cls_16"]) < 1e-5


def test_layouts_without_prefix_and_head_are_read(network):
    bare = network.state_dict()
    other = SvtNetwork()
    other.load(as_checkpoint(bare))
    for key, value in other.state_dict().items():
        assert torch.equal(value, bare[key])
    assert len(bare) == 247
    assert sum(value.numel() for value in bare.values()) == pytest.approx(121.26e6, rel=1e-4)


def test_times_trained_for_longer_clips_are_used_as_they_are(network):
    state = dict(on_meta().state_dict()) | {"time_embed": torch.zeros(1, 32, 768, device="meta")}
    longer = on_meta()
    longer.load(as_checkpoint(state))
    assert longer.time_embed.shape == (1, 32, 768)
    assert network.time_embed.shape == (1, 8, 768)


def test_times_of_another_number_are_repeated():
    times = torch.arange(8.0).view(1, 8, 1)

    def resized(steps, how):
        return resize_times(times, steps, how)[0, :, 0].int().tolist()

    assert resized(16, "nearest") == [k // 2 for k in range(16)]
    assert resized(32, "nearest") == [k // 4 for k in range(32)]
    assert resized(4, "nearest") == [0, 2, 4, 6]
    assert resized(32, "tile") == [k % 8 for k in range(32)]
    assert resized(8, "nearest") == resized(8, "tile") == list(range(8))


def test_the_way_of_resizing_times_is_a_setting(network):
    x = torch.randn(1, 3, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    nearest = network(x)["cls"]
    network.time_resize = "tile"
    tiled = network(x)["cls"]
    network.time_resize = "nearest"
    assert golden_cases.relative_error(tiled.numpy(), nearest.numpy()) > 1e-3
    built = find_extractor("svt")
    for how in ("nearest", "tile"):
        with torch.device("meta"):
            assert built.build_network(built.Config(time_resize=how)).time_resize == how


def test_positions_of_another_grid_are_those_of_the_nearest_cell():
    grid = torch.arange(196.0).view(1, 196, 1)
    assert resize_grid(grid, 14, 14) is grid
    halved = resize_grid(grid, 7, 28)[0, :, 0].view(7, 28)
    wanted = torch.arange(0, 14, 2)[:, None] * 14 + torch.arange(28) // 2
    assert torch.equal(halved, wanted.float())


def test_other_checkpoints_are_refused():
    state = {f"backbone.{key}": value for key, value in on_meta().state_dict().items()}
    del state["backbone.blocks.3.temporal_fc.bias"]
    with pytest.raises(WeightsRejected, match=r"SVT.*missing \(blocks\.3\.temporal_fc\.bias\)"):
        on_meta().load(as_checkpoint(state))
    # The variant with a second class token for flow.
    state = dict(on_meta().state_dict())
    state["pos_embed"] = torch.zeros(1, 198, 768, device="meta")
    with pytest.raises(WeightsRejected, match=r"pos_embed \(1, 198, 768\) instead of"):
        on_meta().load(as_checkpoint(state))
    with pytest.raises(WeightsRejected, match="247 entries missing"):
        on_meta().load(as_checkpoint(HEAD))


def test_the_order_of_frames_and_patches_is_that_of_the_tokens(network):
    x = torch.zeros(1, 3, 2, 32, 32)
    changed = x.clone()
    changed[:, :, 1, 16:, :16] = 1  # frame 1, patch 2
    one, other = [], []
    for rows, clip in ((one, x), (other, changed)):
        hook = network.blocks[0].register_forward_pre_hook(
            lambda _module, inputs, rows=rows: rows.append(inputs[1])
        )
        network(clip)
        hook.remove()
    differs = (one[0] - other[0]).abs().amax(dim=(0, 3)) > 0  # (P, T)
    assert differs.nonzero().tolist() == [[2, 1]]


@pytest.fixture(scope="module")
def extractor():
    outputs = ("cls", "tokens", "tokens_mean")
    return create_extractor("svt", weights="untrained", outputs=outputs, **SMALL)


def configured(extractor, **settings):
    """The same network with other settings."""
    known = extractor.settings.model_dump()
    extractor.spec = configure_extractor("svt", weights="untrained", **known | settings)
    return extractor


def test_untrained_activations_fit_float16(extractor):
    largest = []

    def note(_module, _inputs, output):
        largest.append(float(output.abs().max()) if isinstance(output, torch.Tensor) else 0.0)

    hooks = [module.register_forward_hook(note) for module in extractor.network.modules()]
    x = torch.randn(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    made = extractor.network(x)
    for hook in hooks:
        hook.remove()
    assert 1 < max(largest) < 1000
    assert float(made["cls"].std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("height", "width"), [(90, 151), (151, 90), (48, 48)])
def test_frames_are_scaled_as_floats_and_cut(extractor, height, width):
    frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    made = configured(extractor, resize=48).scale(frames)
    assert made.dtype == np.int16
    x = extractor.to_input(made[None])[0]
    # In the order of the published code: scaled after the values are.
    values = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - 0.45) / 0.225
    size = (48, int(48 * width / height)) if height < width else (int(48 * height / width), 48)
    values = F.interpolate(values, size, mode="bilinear", align_corners=False)
    top, left = (-(-(edge - 32) // 2) for edge in size)
    wanted = values[:, :, top : top + 32, left : left + 32].transpose(0, 1)
    assert x.shape == wanted.shape
    assert (x - wanted).abs().max() < 1e-4


@pytest.fixture(scope="module")
def gif(tmp_path_factory):
    """Twenty frames of 0.1 s."""
    random = np.random.default_rng(0)
    frames = [
        Image.fromarray(random.integers(0, 256, (36, 48, 3), dtype=np.uint8)) for _ in range(20)
    ]
    path = tmp_path_factory.mktemp("media") / "twenty.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    return path


@pytest.mark.parametrize(
    ("settings", "spans"),
    [
        ({}, [(0, 2)]),  # shorter than a window
        ({"window_s": 1, "stride_s": 0.5}, [(0, 1), (0.5, 1.5), (1, 2), (1.5, 2)]),
        ({"views": 1}, [(0, 2)]),
        # 10 of 20 frames, from 0 and from 5.
        ({"views": 2, "window_s": 1, "stride_s": 1}, [(0, 1), (0.5, 1.5)]),
        ({"whole_frame": True, "fps": 1.5, "window_s": 6, "stride_s": 6}, [(0, 2)]),
    ],
)
def test_rows_of_a_file(extractor, gif, settings, spans):
    plain = {"window_s": 256 / 30, "stride_s": 256 / 30, "views": None, "resize": 32}
    made = configured(extractor, **plain | {"whole_frame": False, "fps": None} | settings)
    features = made.extract(gif)
    assert list(features) == ["svt", "svt_tokens", "svt_tokens_mean"]
    assert np.allclose(features["svt"].spans, spans)
    tokens = features["svt_tokens"].rows
    assert tokens.shape == (len(spans), 1 + 4 * 4, 768)
    assert np.array_equal(features["svt"].rows, tokens[:, 0])
    assert np.allclose(features["svt_tokens_mean"].rows, tokens[:, 1:].mean(axis=1), atol=1e-5)


def test_presets_are_those_of_the_code():
    config = find_extractor("svt").Config
    kinetics, charades = config(), config(preset="charades", stride_s=3, fps=None)
    assert (kinetics.num_frames, kinetics.resize, kinetics.crop) == (8, 256, 224)
    assert kinetics.window_s == kinetics.stride_s == 256 / 30
    assert kinetics.mean == charades.mean == (0.45,) * 3
    assert kinetics.std == charades.std == (0.225,) * 3
    assert (charades.window_s, charades.stride_s, charades.fps) == (6, 3, None)
    assert charades.tail == "drop"
    spec = configure_extractor("svt", weights="untrained", num_frames=32, outputs="cls,tokens")
    assert [output.row_shape for output in spec.outputs] == [(768,), (6273, 768)]
    assert spec.extractor.samples_per_second(spec.config) == pytest.approx(30 / 256)
