"""VideoMamba against the published numbers, its checkpoint layouts, positions and frames."""

from pathlib import Path

import golden_cases
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn
from torchvision.transforms.functional import resize

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.networks.videomamba import (
    SHAPES,
    Mixer,
    VideoMambaNetwork,
    find_variant,
    in_video_layout,
    resize_grid,
    resize_times,
)
from vlpipe.extractors.registry import find_extractor
from vlpipe.extractors.weights.checkpoint import Checkpoint

SMALL = {"variant": "tiny", "num_frames": 4, "crop": 32, "resize": 32}


def as_checkpoint(state):
    return Checkpoint(Path("videomamba.pth"), dict(state))


def empty_state(variant):
    """The names and shapes of a published file's backbone, without numbers."""
    with torch.device("meta"):
        return VideoMambaNetwork(variant).state_dict()


def on_meta(variant):
    with torch.device("meta"):
        return VideoMambaNetwork(variant)


@pytest.fixture(scope="module")
def state():
    drawn = golden_cases.state("videomamba_tiny")
    return {key: torch.from_numpy(value) for key, value in drawn.items()}


@pytest.fixture(scope="module")
def network(state):
    network = VideoMambaNetwork("tiny").eval()
    network.load(as_checkpoint(state))
    return network.requires_grad_(False)


def test_the_network_gives_the_published_numbers(state, tmp_path):
    torch.save({"model": state | head(192)}, tmp_path / "tiny.pth")
    network = create_extractor(
        "videomamba", weights=tmp_path / "tiny.pth", variant="tiny", num_frames=8
    ).network
    made = network(torch.from_numpy(golden_cases.inputs("videomamba_tiny")["clip"]))
    wanted = golden_cases.outputs("videomamba_tiny")
    # The reference itself moves by 1.4e-4 when it runs in float64.
    some = made["tokens"][0, wanted["token_index"]].numpy()
    assert golden_cases.relative_error(made["cls"].numpy(), wanted["cls"]) < 2e-4
    assert golden_cases.relative_error(some, wanted["tokens_sub"]) < 2e-4
    mean = made["tokens_mean"].numpy()
    assert golden_cases.relative_error(mean, wanted["tokens_mean"].reshape(mean.shape)) < 2e-4


def head(width):
    return {"head.weight": torch.zeros(400, width), "head.bias": torch.zeros(400)}


@pytest.mark.parametrize(
    ("variant", "millions", "num_entries"),
    [("tiny", 6.96, 414), ("small", 25.42, 414), ("middle", 73.65, 550)],
)
def test_sizes_are_the_published_ones(variant, millions, num_entries):
    network = on_meta(variant)
    numbers = sum(parameter.numel() for parameter in network.parameters())
    assert numbers / 1e6 == pytest.approx(millions, abs=0.01)
    assert len(network.state_dict()) == num_entries
    spec = configure_extractor("videomamba", weights="untrained", variant=variant)
    assert spec.outputs[0].feature == f"videomamba_{variant}"
    assert spec.outputs[0].row_shape == (SHAPES[variant].width,)


def assert_same(network, state):
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key])


def test_the_layout_of_masked_pretraining_is_read(state):
    masked = dict(state)
    masked["norm.weight"] = masked.pop("norm_f.weight")
    masked |= {
        "clip_decoder.0.head.weight": torch.zeros(512, 192),
        "clip_decoder.0.norm.bias": torch.zeros(512),
    }
    network = VideoMambaNetwork("tiny")
    network.load(as_checkpoint(masked))
    assert_same(network, state)


def test_the_layout_of_images_is_read(state):
    image = dict(state) | head(192)
    image["patch_embed.proj.weight"] = image["patch_embed.proj.weight"][:, :, 0]
    del image["temporal_pos_embedding"]
    network = VideoMambaNetwork("tiny", num_frames=32)
    network.load(as_checkpoint(image))
    assert not network.temporal_pos_embedding.any()
    assert_same(network, state | {"temporal_pos_embedding": torch.zeros(1, 1, 192)})


def test_a_checkpoint_of_another_variant_is_named(state):
    with pytest.raises(WeightsRejected, match="is a checkpoint of VideoMamba small") as caught:
        on_meta("middle").load(as_checkpoint(empty_state("small")))
    assert caught.value.hint == "set variant=small"
    for variant in SHAPES:
        assert find_variant(empty_state(variant)) == variant
    # A file that is added to the weights folder says itself which variant it is.
    find_extractor("videomamba").check_checkpoint("videomamba", as_checkpoint(state))


def test_other_checkpoints_are_refused():
    state = empty_state("tiny")
    del state["layers.3.mixer.A_b_log"]
    with pytest.raises(WeightsRejected, match=r"1 entries missing \(layers\.3\.mixer\.A_b_log"):
        on_meta("tiny").load(as_checkpoint(state))
    with pytest.raises(WeightsRejected, match=r"VideoMamba tiny: .* entries missing"):
        on_meta("tiny").load(as_checkpoint({"conv1.weight": torch.zeros(1)}))
    wide = empty_state("tiny")
    wide["temporal_pos_embedding"] = torch.zeros(1, 8, 100, device="meta")
    with pytest.raises(WeightsRejected, match="1 entries of another shape"):
        on_meta("tiny").load(as_checkpoint(wide))
    assert "norm.weight" not in in_video_layout({"norm.weight": torch.zeros(1)})


def test_times_of_another_number_are_interpolated(network):
    times = torch.tensor([0.0, 4.0, 8.0, 12.0]).view(1, 4, 1)
    doubled = resize_times(times, 8)[0, :, 0].tolist()
    assert doubled == pytest.approx([0, 1, 3, 5, 7, 9, 11, 12])
    assert resize_times(times, 4) is times
    x = torch.randn(1, 3, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    longer = VideoMambaNetwork("tiny").eval()
    given = network.state_dict()
    given["temporal_pos_embedding"] = resize_times(given["temporal_pos_embedding"], 16)
    longer.load(as_checkpoint(given))
    made = network(x)
    assert made["tokens"].shape == (1, 1 + 16 * 4, 192)
    assert torch.equal(made["tokens"], longer(x)["tokens"])


def test_positions_of_another_grid_are_interpolated():
    rows, columns = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    grid = (100 * rows + columns).reshape(1, 196, 1)
    assert resize_grid(grid, 14, 14) is grid
    wider = resize_grid(grid, 14, 28).view(14, 28)
    # Cells are half as wide: cell 8 has its centre at 3.75 of the old ones.
    assert torch.allclose(wider[0, 8:20], 3.75 + torch.arange(12) / 2, atol=0.1)
    assert torch.allclose(wider[:, 8].diff(), torch.full((13,), 100.0), atol=0.1)


def test_a_mixer_reads_both_directions_alike():
    """Directions changed over, a reversed sequence gives the reversed result."""
    torch.manual_seed(1)
    mixer, mirror = Mixer(32), Mixer(32)
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.3)
    swapped = {}
    for key, value in mixer.state_dict().items():
        name, _, rest = key.partition(".")
        if name not in ("in_proj", "out_proj"):
            other = name.replace("_b", "") if "_b" in name else name.replace("A_log", "A_b_log")
            if other == name:
                other = f"{name}_b"
            name = other
        swapped[f"{name}.{rest}" if rest else name] = value
    mirror.load_state_dict(swapped)
    h = torch.randn(2, 40, 32)
    with torch.inference_mode():
        plain, mirrored = mixer(h), mirror(h.flip(1))
        assert torch.allclose(plain, mirrored.flip(1), atol=1e-5)
        changed = h.clone()
        changed[:, 20] += 1
        differs = (mixer(changed) - plain).abs().amax(dim=(0, 2)) > 0
    assert differs.all()


def test_autocast_keeps_close_to_float32():
    # The drawn weights of the golden case enlarge any rounding a thousandfold; these do not.
    torch.manual_seed(0)
    network = VideoMambaNetwork("tiny").eval()
    network.initialise_untrained()
    x = torch.randn(1, 3, 4, 32, 32)
    with torch.inference_mode():
        plain = network(x)["tokens"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(x)["tokens"]
    assert rough.dtype == torch.float32
    assert 0 < golden_cases.relative_error(rough.numpy(), plain.numpy()) < 0.05


def test_frames_are_scaled_as_bytes_and_cut():
    frames = np.random.default_rng(0).integers(0, 256, (2, 90, 151, 3), dtype=np.uint8)
    extractor = create_extractor("videomamba", weights="untrained", **SMALL | {"resize": 48})
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    scaled = resize(pixels.float(), [48, 80], antialias=False).round().to(torch.uint8)
    for place, left in (("start", 0), ("center", 24), ("end", 48)):
        config = extractor.settings.model_copy(update={"crop_at": place})
        extractor.spec = configure_extractor(
            "videomamba", weights="untrained", **config.model_dump()
        )
        made = extractor.scale(frames)
        top = {"start": 0, "center": 8, "end": 16}[place]
        wanted = scaled[:, :, top : top + 32, left : left + 32].permute(0, 2, 3, 1).numpy()
        assert made.dtype == np.uint8
        assert np.array_equal(made, wanted)
    x = extractor.to_input(made[None])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    by_hand = (torch.from_numpy(made).float() / 255 - mean) / std
    assert torch.allclose(x[0], by_hand.permute(3, 0, 1, 2), atol=1e-6)


@pytest.fixture(scope="module")
def gif(tmp_path_factory):
    """Forty frames of 0.1 s."""
    random = np.random.default_rng(0)
    frames = [
        Image.fromarray(random.integers(0, 256, (36, 48, 3), dtype=np.uint8)) for _ in range(40)
    ]
    path = tmp_path_factory.mktemp("media") / "forty.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    return path


@pytest.mark.parametrize(
    ("settings", "spans"),
    [
        ({"window_s": 2, "stride_s": 1}, [(0, 2), (1, 3), (2, 4), (3, 4)]),
        ({"window_s": 3, "stride_s": 2, "tail": "drop"}, [(0, 3)]),
        ({}, [(0, 4)]),
        # s = 39 / 4: 4 and 29 frames behind it, and for four views 1, 3, 5, 7 in place of 4.
        ({"views": 1}, [(0.4, 3.4)]),
        ({"views": 4}, [(0.1, 3.1), (0.3, 3.3), (0.5, 3.5), (0.7, 3.7)]),
    ],
)
def test_rows_of_a_file(gif, settings, spans):
    outputs = ("cls", "tokens", "tokens_mean")
    extractor = create_extractor(
        "videomamba", weights="untrained", outputs=outputs, **SMALL | settings
    )
    made = extractor.extract(gif)
    assert list(made) == [
        "videomamba_tiny",
        "videomamba_tiny_tokens",
        "videomamba_tiny_tokens_mean",
    ]
    tokens = made["videomamba_tiny_tokens"].rows
    assert tokens.shape == (len(spans), 1 + 4 * 4, 192)
    assert np.allclose(made["videomamba_tiny"].spans, spans)
    assert np.array_equal(made["videomamba_tiny"].rows, tokens[:, 0])
    means = made["videomamba_tiny_tokens_mean"].rows
    assert np.allclose(means, tokens[:, 1:].mean(axis=1), atol=1e-5)


def test_presets_are_those_of_the_code():
    config = find_extractor("videomamba").Config
    kinetics, charades = config(), config(preset="charades", stride_s=3)
    assert (kinetics.num_frames, kinetics.spread, kinetics.eps) == (16, "segments", 1e-5)
    assert (charades.window_s, charades.stride_s, charades.fps) == (11, 3, 1.5)
    assert (charades.eps, charades.whole_frame, charades.spread) == (1e-6, True, "ends")
    assert charades.mean == kinetics.mean == (0.485, 0.456, 0.406)
    spec = configure_extractor("videomamba", weights="untrained", preset="charades")
    assert spec.request.output_size(240, 320) == (224, 224)
    assert spec.outputs[0].row_shape == (576,)
    for checkpoint in find_extractor("videomamba").published_checkpoints()["videomamba"]:
        made = config(**checkpoint.settings)
        assert f"_{made.variant[0]}16_k400" in checkpoint.name
        assert checkpoint.name.endswith(f"_f{made.num_frames}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": 100}, "multiple of 16"),
        ({"crop": 240}, "crop exceeds resize, which is 224"),
        ({"stride_s": 11}, "stride_s exceeds window_s, which is 10"),
        ({"views": 1, "fps": 5}, "fps=None"),
        ({"std": (0.2, 0, 0.2)}, "above 0"),
        ({"preset": "ucf"}, "preset"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        find_extractor("videomamba").Config(**settings)
