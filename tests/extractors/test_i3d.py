"""I3D against the published ports' numbers, in both layouts, and the rows of files."""

import golden_cases
import numpy as np
import pytest
import torch
from PIL import Image

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.media.frame_transform import FrameScaler
from vlpipe.extractors.networks.i3d import I3dNetwork, mixed_5c_shape
from vlpipe.extractors.weights.checkpoint import Checkpoint

TINY = {"crop": 32, "resize": 32, "stack_size": 16, "step_size": 16}

PIERGIAJ = {
    "conv3d_0c_1x1.": "logits.",
    "conv3d_": "Conv3d_",
    "mixed_": "Mixed_",
    "batch3d": "bn",
    "branch_0": "b0",
    "branch_1.0": "b1a",
    "branch_1.1": "b1b",
    "branch_2.0": "b2a",
    "branch_2.1": "b2b",
    "branch_3.1": "b3b",
}


def state_of(case):
    return {key: torch.from_numpy(value) for key, value in golden_cases.state(case).items()}


def as_piergiaj(state):
    renamed = {}
    for key, value in state.items():
        name = key
        for ours, theirs in PIERGIAJ.items():
            name = name.replace(ours, theirs)
        renamed[name] = value
    return renamed


def enlarge(drawn):
    """(N, C, T, 224, 224) in [-1, 1] from (N, C, T, 7, 7), as the notes of the cases say."""
    return torch.from_numpy(2 * drawn.repeat(32, axis=3).repeat(32, axis=4) - 1)


@pytest.fixture(scope="module")
def rgb_file(tmp_path_factory):
    """The 287 entries of the published i3d_rgb.pt."""
    path = tmp_path_factory.mktemp("weights") / "i3d_rgb.pt"
    torch.save(state_of("i3d_rgb"), path)
    return path


@pytest.fixture(scope="module")
def stacks():
    return enlarge(golden_cases.inputs("i3d_rgb")["i3d_rgb.stacks"])


@pytest.fixture(scope="module")
def made(rgb_file, stacks):
    """As extraction runs it; the tests below take the network alone."""
    return create_extractor("i3d_rgb", weights=rgb_file).run_network(stacks)


def test_rgb_gives_the_published_numbers(made):
    wanted = golden_cases.outputs("i3d_rgb")
    for name in ("pooled", "logits"):
        assert golden_cases.relative_error(made[name].numpy(), wanted[name]) < 1e-5
    part = made["mixed_5c"][:1, ::8].numpy()
    assert golden_cases.relative_error(part, wanted["mixed_5c_slice"]) < 1e-5
    # Most of a row is common to all stacks of drawn weights.
    pooled, reference = made["pooled"].numpy(), wanted["pooled"]
    error = golden_cases.relative_error(pooled[0] - pooled[1], reference[0] - reference[1])
    assert error < 1e-4


def test_pooling_weighs_the_ends_of_a_stack_half(rgb_file):
    stack = enlarge(golden_cases.inputs("i3d_rgb")["i3d_rgb.stack24"])
    made = create_extractor("i3d_rgb", weights=rgb_file).network(stack)
    wanted = golden_cases.outputs("i3d_rgb")["pooled_t24"]
    assert golden_cases.relative_error(made["pooled"].numpy(), wanted) < 1e-5
    weights = torch.tensor([0.25, 0.5, 0.25])
    by_hand = (made["mixed_5c"].mean(dim=(3, 4)) * weights).sum(dim=2)
    assert torch.allclose(made["pooled"], by_hand, rtol=1e-4)


def test_eps_of_the_other_port_in_its_layout(stacks, tmp_path):
    path = tmp_path / "rgb_imagenet.pt"
    torch.save(as_piergiaj(state_of("i3d_rgb")), path)
    made = create_extractor("i3d_rgb", weights=path, eps=1e-3).network(stacks[:1])
    wanted = golden_cases.outputs("i3d_rgb")["pooled_eps1e-3"][:1]
    assert golden_cases.relative_error(made["pooled"].numpy(), wanted) < 1e-5


def test_flow_gives_the_published_numbers():
    network = I3dNetwork(2).eval()
    network.load(Checkpoint("i3d_flow.pt", state_of("i3d_flow")), what="I3D for flow")
    with torch.inference_mode():
        made = network(enlarge(golden_cases.inputs("i3d_flow")["i3d_flow.stacks"])[:1])
    wanted = golden_cases.outputs("i3d_flow")
    for name in ("pooled", "logits"):
        assert golden_cases.relative_error(made[name].numpy(), wanted[name][:1]) < 1e-5
    part = made["mixed_5c"][:, ::8].numpy()
    assert golden_cases.relative_error(part, wanted["mixed_5c_slice"]) < 1e-5


def test_both_layouts_with_and_without_counters_give_the_same_bits(tmp_path):
    plain = state_of("i3d_rgb")
    counters = {
        key.replace("running_var", "num_batches_tracked"): torch.tensor(0)
        for key in plain
        if key.endswith("running_var")
    }
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 32, 32)
    outputs = []
    for index, state in enumerate(
        [plain, plain | counters, as_piergiaj(plain), as_piergiaj(plain | counters)]
    ):
        torch.save(state, tmp_path / f"{index}.pt")
        extractor = create_extractor("i3d_rgb", weights=tmp_path / f"{index}.pt", **TINY)
        outputs.append(extractor.network(x))
    for other in outputs[1:]:
        for name, values in outputs[0].items():
            assert torch.equal(other[name], values)


def test_the_checkpoint_states_the_number_of_classes(tmp_path):
    state = as_piergiaj(state_of("i3d_rgb"))
    for key in ("logits.conv3d.weight", "logits.conv3d.bias"):
        state[key] = state[key][:157]
    torch.save(state, tmp_path / "rgb_charades.pt")
    extractor = create_extractor("i3d_rgb", weights=tmp_path / "rgb_charades.pt", **TINY)
    assert extractor.network(torch.zeros(1, 3, 16, 32, 32))["logits"].shape == (1, 157)


def test_other_checkpoints_are_refused_with_what_differs(tmp_path):
    torch.save(state_of("i3d_flow"), tmp_path / "i3d_flow.pt")
    with pytest.raises(WeightsRejected, match=r"\(64, 2, 7, 7, 7\) instead of \(64, 3, 7, 7, 7\)"):
        create_extractor("i3d_rgb", weights=tmp_path / "i3d_flow.pt")
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(WeightsRejected, match="not a checkpoint of I3D for RGB frames"):
        create_extractor("i3d_rgb", weights=tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((300, 401), "landscape"), ((401, 300), "portrait"), ((120, 160), "small")],
)
def test_frames_become_the_published_crops(shape, kind):
    name = "i3d_rgb_preprocess"
    drawn = golden_cases.inputs(name)[f"{name}.{kind}"]
    frame = drawn.repeat(10, axis=0).repeat(10, axis=1)[: shape[0], : shape[1]]
    extractor = create_extractor("i3d_rgb", weights="untrained")
    request = extractor.spec.request
    wanted = golden_cases.outputs(name)
    assert request.resize.output_size(*shape) == tuple(wanted[f"{kind}_resized_hw"])
    scaler = FrameScaler()
    scaler.start(np.ascontiguousarray(frame))
    crop = scaler.get(request)
    made = extractor.to_input(np.stack([[crop]]))[0, :, 0, ::4, ::4].numpy()
    # Pillow rounds to whole levels.
    assert np.abs(made - wanted[kind]).max() <= 2 / 255 + 1e-6
    assert golden_cases.relative_error(made, wanted[kind]) < 1e-3


def test_levels_span_minus_one_to_one():
    extractor = create_extractor("i3d_rgb", weights="untrained", **TINY)
    levels = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 1, 3)
    x = extractor.to_input(levels)
    assert x.shape == (1, 3, 1, 1, 1)
    assert x.flatten().tolist() == pytest.approx([-1.0, -0.6, 1.0])


def test_untrained_activations_fit_float16():
    extractor = create_extractor("i3d_rgb", weights="untrained", **TINY)
    largest = []

    def note(_module, _inputs, output):
        if isinstance(output, torch.Tensor):
            largest.append(float(output.abs().max()))

    for module in extractor.network.modules():
        module.register_forward_hook(note)
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 32, 3), dtype=np.uint8)
    frames[0] = 255
    made = extractor.network(extractor.to_input(frames))
    assert 1 < max(largest) < 1000
    assert 0.01 < float(made["pooled"].abs().mean()) < 100


@pytest.mark.parametrize(
    ("num_frames", "edge", "shape"),
    [
        (64, 224, (1024, 8, 7, 7)),
        (24, 224, (1024, 3, 7, 7)),
        (16, 64, (1024, 2, 2, 2)),
        (10, 33, (1024, 2, 1, 1)),
        (27, 100, (1024, 4, 4, 4)),
    ],
)
def test_declared_maps_are_those_that_are_made(num_frames, edge, shape):
    assert mixed_5c_shape(num_frames, edge) == shape
    config = {"stack_size": num_frames, "step_size": 1, "crop": edge, "outputs": ["mixed_5c"]}
    (output,) = configure_extractor("i3d_rgb", weights="untrained", **config).outputs
    assert (output.feature, output.row_shape) == ("i3d_rgb_mixed_5c", shape)
    with torch.device("meta"):
        made = I3dNetwork(3).eval()(torch.empty(1, 3, num_frames, edge, edge))
    assert made["mixed_5c"].shape == (1, *shape)
    assert made["pooled"].shape == (1, 1024)


@pytest.fixture(scope="module")
def gif(tmp_path_factory):
    """Ten frames of 0.2 s each: 50 frames at 25 a second."""
    random = np.random.default_rng(0)
    frames = [
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(10)
    ]
    path = tmp_path_factory.mktemp("media") / "ten.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=200)
    return path


@pytest.mark.parametrize(("tail", "num_rows"), [("cycle", 4), ("drop", 3)])
def test_a_file_gives_rows_and_spans(gif, tail, num_rows):
    extractor = create_extractor(
        "i3d_rgb", weights="untrained", tail=tail, outputs=("pooled", "mixed_5c"), **TINY
    )
    made = extractor.extract(gif)
    assert made["i3d_rgb"].rows.shape == (num_rows, 1024)
    assert made["i3d_rgb_mixed_5c"].rows.shape == (num_rows, 1024, 2, 1, 1)
    starts = 0.64 * np.arange(num_rows)
    # The fourth row has two frames, and ends with the file.
    ends = np.minimum(starts + 0.64, 2.0)
    assert np.allclose(made["i3d_rgb"].spans, np.stack([starts, ends], axis=1))


def test_a_video_shorter_than_a_stack_has_one_row_or_none(gif):
    config = TINY | {"stack_size": 64, "step_size": 64}
    spec = {"weights": "untrained", **config}
    (row,) = create_extractor("i3d_rgb", **spec).extract(gif)["i3d_rgb"].spans
    assert row == pytest.approx([0, 2.0])
    extractor = create_extractor("i3d_rgb", tail="drop", **spec)
    assert extractor.extract(gif)["i3d_rgb"].rows.shape == (0, 1024)
    assert extractor.spec.extractor.samples_per_second(extractor.spec.config) == 25 / 64


def test_the_whole_frame_can_be_scaled_instead_of_cropped(gif):
    spec = configure_extractor("i3d_rgb", weights="untrained", whole_frame=True, crop=64)
    assert spec.request.output_size(40, 50) == (64, 64)
    assert spec.request.center_crop is None
