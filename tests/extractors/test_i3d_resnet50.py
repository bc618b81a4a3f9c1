"""I3D-ResNet50 against the port's numbers, non-local blocks by hand, and the clips of MASN."""

import golden_cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.i3d_resnet50 import (
    ClipSampler,
    I3dResNet50Network,
    NonLocal,
    layer4_shape,
    pool_boxes,
)
from vlpipe.extractors.media import AudioBlock, FrameBlock


def state_of_case():
    drawn = golden_cases.state("i3d_resnet50")
    return {key: torch.from_numpy(value) for key, value in drawn.items()}


def state_with_non_local():
    """The 327 entries of i3d_r50_nl_kinetics.pth, drawn by name."""
    names = I3dResNet50Network(non_local=True).state_dict()
    return {
        key: torch.from_numpy(golden_cases.draw_weight(key, tuple(value.shape)))
        for key, value in names.items()
        if not key.endswith("num_batches_tracked")
    }


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "i3d_r50_kinetics.pth"
    torch.save(state_of_case(), path)
    return path


@pytest.fixture(scope="module")
def non_local_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "i3d_r50_nl_kinetics.pth"
    torch.save(state_with_non_local(), path)
    return path


def test_the_network_gives_the_published_numbers(plain_file):
    drawn = golden_cases.inputs("i3d_resnet50")["i3d_resnet50.clips"]
    clips = torch.from_numpy(drawn.repeat(32, axis=3).repeat(32, axis=4))
    made = create_extractor("i3d_resnet50", weights=plain_file).network(clips)
    wanted = golden_cases.outputs("i3d_resnet50")
    for name in ("pooled", "logits"):
        assert golden_cases.relative_error(made[name].numpy(), wanted[name]) < 1e-5
    part = made["layer4"][:1, ::16].numpy()
    assert golden_cases.relative_error(part, wanted["layer4_slice"]) < 1e-5
    boxes = torch.tensor(
        [[0, 0, 0, 224, 224], [0, 20, 30, 120, 200], [1, 100.5, 60.25, 150.75, 90.5]]
    )
    pooled = pool_boxes(made["layer4"], boxes).numpy()
    assert golden_cases.relative_error(pooled, wanted["roi_mean"]) < 1e-5


def test_both_checkpoints_are_read_and_bring_their_blocks(plain_file, non_local_file):
    assert len(torch.load(plain_file)) == 267
    assert len(torch.load(non_local_file)) == 327
    torch.manual_seed(0)
    x = torch.rand(1, 3, 8, 64, 64)
    plain = create_extractor("i3d_resnet50", weights=plain_file)
    stated = create_extractor("i3d_resnet50", weights=plain_file, non_local=False)
    assert torch.equal(plain.network(x)["layer4"], stated.network(x)["layer4"])
    found = create_extractor("i3d_resnet50", weights=non_local_file)
    stated = create_extractor("i3d_resnet50", weights=non_local_file, non_local=True)
    assert torch.equal(found.network(x)["layer4"], stated.network(x)["layer4"])
    blocks = [name for name, m in found.network.named_modules() if isinstance(m, NonLocal)]
    assert blocks == ["layer2.1.nl", "layer2.3.nl", "layer3.1.nl", "layer3.3.nl", "layer3.5.nl"]
    assert not any(isinstance(m, NonLocal) for m in plain.network.modules())


def test_the_other_checkpoint_is_refused_where_the_blocks_are_stated(plain_file, non_local_file):
    with pytest.raises(WeightsRejected, match=r"60 entries not of this network \(layer2\.1\.nl"):
        create_extractor("i3d_resnet50", weights=non_local_file, non_local=False)
    with pytest.raises(WeightsRejected, match=r"60 entries missing \(layer2\.1\.nl"):
        create_extractor("i3d_resnet50", weights=plain_file, non_local=True)


def test_counters_and_other_numbers_of_classes_are_read(tmp_path):
    state = state_of_case() | {"bn1.num_batches_tracked": torch.tensor(3)}
    state |= {"fc.weight": torch.zeros(7, 2048), "fc.bias": torch.zeros(7)}
    torch.save(state, tmp_path / "seven.pth")
    network = create_extractor("i3d_resnet50", weights=tmp_path / "seven.pth").network
    assert network(torch.zeros(1, 3, 8, 32, 32))["logits"].shape == (1, 7)
    del state["conv1.weight"]
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(WeightsRejected, match=r"I3D-ResNet50.*1 entries missing \(conv1.weight\)"):
        create_extractor("i3d_resnet50", weights=tmp_path / "broken.pth")


def test_a_non_local_block_is_attention_over_coarser_keys():
    block = NonLocal(8).eval()
    state = {k: golden_cases.draw_weight(k, tuple(v.shape)) for k, v in block.state_dict().items()}
    block.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    x = np.random.default_rng(1).standard_normal((8, 2, 4, 6)).astype(np.float32)
    w = {k: v.astype(np.float64) for k, v in state.items()}

    def conv(name, cells):  # (in, n) -> (out, n)
        return w[f"{name}.weight"][:, :, 0, 0, 0] @ cells + w[f"{name}.bias"][:, None]

    coarse = x.reshape(8, 2, 2, 2, 3, 2).max(axis=(3, 5)).reshape(8, -1)
    keys, values = conv("phi", coarse), conv("g", coarse)
    seen = []
    for query in conv("theta", x.reshape(8, -1)).T:
        weights = np.exp(query @ keys / np.sqrt(4))
        seen.append(values @ weights / weights.sum())
    out = conv("out", np.array(seen).T)
    norm = (out - w["bn.running_mean"][:, None]) / np.sqrt(w["bn.running_var"][:, None] + 1e-5)
    wanted = x.reshape(8, -1) + norm * w["bn.weight"][:, None] + w["bn.bias"][:, None]
    with torch.inference_mode():
        made = block(torch.from_numpy(x)[None])[0].numpy()
    assert golden_cases.relative_error(made, wanted.reshape(x.shape)) < 1e-6


@pytest.mark.parametrize(
    ("num_frames", "edge", "shape"),
    [
        (8, 224, (2048, 1, 7, 7)),
        (16, 224, (2048, 2, 7, 7)),
        (32, 256, (2048, 4, 8, 8)),
        (10, 99, (2048, 1, 3, 3)),
        (8, 32, (2048, 1, 1, 1)),
    ],
)
def test_declared_maps_are_those_that_are_made(num_frames, edge, shape):
    assert layer4_shape(num_frames, edge) == shape
    with torch.device("meta"):
        network = I3dResNet50Network(non_local=True).eval()
        made = network(torch.empty(1, 3, num_frames, edge, edge))
    assert made["layer4"].shape == (1, *shape)
    config = {"clip_size": num_frames, "crop": edge, "outputs": ["layer4"]}
    (output,) = configure_extractor("i3d_resnet50", weights="untrained", **config).outputs
    assert (output.feature, output.row_shape) == ("i3d_resnet50_layer4", shape)


@pytest.mark.parametrize("non_local", [False, True])
def test_untrained_activations_fit_float16(non_local):
    extractor = create_extractor("i3d_resnet50", weights="untrained", non_local=non_local)
    largest = []

    def note(_module, _inputs, output):
        if isinstance(output, torch.Tensor):
            largest.append(float(output.abs().max()))

    for module in extractor.network.modules():
        module.register_forward_hook(note)
    x = torch.rand(1, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = extractor.network(x)
    assert 1 < max(largest) < 1000
    assert 0.01 < float(made["pooled"].mean()) < 100


def run(sampler, num_frames, block_sizes):
    """All samples of a video whose frame k has the level k + 1."""
    frames = np.zeros((num_frames, 2, 3, 3), np.uint8) + np.arange(
        1, num_frames + 1, dtype=np.uint8
    ).reshape(-1, 1, 1, 1)
    spans = np.stack([np.arange(num_frames) / 6, np.arange(1, num_frames + 1) / 6], axis=1)
    samples, first, sizes = [], 0, iter(block_sizes)
    while first < num_frames:
        last = first + next(sizes, 100)
        samples += sampler.push(FrameBlock(0, frames[first:last], spans[first:last], first))
        first = last
    return [*samples, *sampler.finish()]


def clips_of_masn(num_frames, size, step):
    """Levels 2 (k + 1) - 255 of the frames of every clip, 0 where it has none."""
    clips = []
    for anchor in range(0, num_frames, step):
        chosen = [k for k in range(anchor - size // 2, anchor + size // 2) if 0 <= k < num_frames]
        levels = [2 * (k + 1) - 255 for k in chosen]
        zeros = [0] * (size - len(levels))
        clips.append(zeros + levels if len(levels) <= size // 2 else levels + zeros)
    return clips


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 60),
    st.sampled_from([8, 10, 16]),
    st.integers(1, 9),
    st.lists(st.integers(1, 20), max_size=6),
)
def test_clips_surround_their_anchor_frames(num_frames, size, step, block_sizes):
    samples = run(ClipSampler(size, step, "unit"), num_frames, block_sizes)
    wanted = clips_of_masn(num_frames, size, step)
    assert [sample.data[:, 0, 0, 0].tolist() for sample in samples] == wanted
    anchors = np.arange(0, num_frames, step)
    spans = np.array([sample.span for sample in samples]).reshape(-1, 2)
    assert np.allclose(spans, np.stack([anchors / 6, (anchors + 1) / 6], axis=1))


def test_clips_at_the_ends_are_filled_with_frames_of_zeros():
    clips = [s.data[:, 0, 0, 0] for s in run(ClipSampler(8, 1, "unit"), 20, ())]
    present = ["".join("x" if level else "." for level in clip) for clip in clips]
    assert present[:3] == ["....xxxx", "xxxxx...", "xxxxxx.."]
    assert present[4:17] == ["xxxxxxxx"] * 13
    assert present[17:] == ["xxxxxxx.", "xxxxxx..", "xxxxx..."]
    (only,) = run(ClipSampler(8, 1, "unit"), 1, ())
    assert (only.data[:7] == 0).all()
    assert (only.data[7] == -253).all()


@pytest.mark.parametrize(
    ("scaling", "scale"),
    [("unit", lambda x: 2 * x / 255 - 1), ("caffe2", lambda x: (x - 114.75) / 57.375)],
)
def test_frames_are_scaled_and_missing_ones_are_zero(scaling, scale):
    extractor = create_extractor("i3d_resnet50", weights="untrained", scaling=scaling, crop=32)
    samples = run(extractor.sampler(None), 5, ())
    x = extractor.to_input(np.stack([samples[0].data, samples[4].data]))
    assert x.shape == (2, 3, 8, 2, 3)
    levels = scale(np.arange(1, 6, dtype=np.float64))
    assert np.allclose(x[0, 0, :, 0, 0].numpy(), [0, 0, 0, 0, *levels[:4]], atol=1e-6)
    assert np.allclose(x[1, 2, :, 1, 2].numpy(), [*levels, 0, 0, 0], atol=1e-6)


def test_only_small_frames_are_enlarged():
    request = configure_extractor("i3d_resnet50", weights="untrained").request
    assert request.fps == 6
    assert request.resize.output_size(150, 200) == (226, 301)
    assert request.resize.output_size(360, 480) == (360, 480)
    assert request.output_size(150, 200) == (224, 224)


def test_sound_is_refused():
    with pytest.raises(TypeError, match="AudioBlock"):
        ClipSampler(8, 1, "unit").push(AudioBlock(0, np.zeros(1, np.float32), 0.0, 0))
