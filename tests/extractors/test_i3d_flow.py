"""I3D on flow: rows of a clip equal the steps taken one by one, for both flow networks."""

import golden_cases
import numpy as np
import pytest
import torch
from made_media import make_video
from plain_pwc import plain_flow

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.extractors.i3d_flow import I3dFlowNetwork
from vlpipe.extractors.inputs.flow_quantise import flow_to_input
from vlpipe.extractors.media import DecodePool

SMALL = {"stack_size": 16, "step_size": 16, "resize": 36, "crop": 32}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints in the published layouts, by role."""
    folder = tmp_path_factory.mktemp("weights")
    made = {}
    for case, role in (("i3d_flow", "i3d_flow"), ("pwc_net", "pwc_net")):
        state = {k: torch.from_numpy(v) for k, v in golden_cases.state(case).items()}
        if role == "i3d_flow":
            # So that a level more or less shows in the row.
            state["conv3d_1a_7x7.conv3d.weight"] *= 4
        made[role] = folder / f"{role}.pt"
        torch.save(state, made[role])
    return made


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """36 frames: two full windows of 17 with a step of 16, and three frames left."""
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    return make_video(path, seconds=1.44, size=(60, 48))


@pytest.fixture(scope="module")
def extractor(files):
    return create_extractor(
        "i3d_flow", weights=files, tail="drop", outputs=("pooled", "mixed_5c"), **SMALL
    )


def decode(path, request):
    with DecodePool(workers=1) as pool, pool.open(path, [request]) as stream:
        return np.concatenate([block.frames for block in stream])


def test_rows_equal_the_steps_taken_one_by_one(extractor, files, clip):
    made = extractor.extract(clip)
    frames = decode(clip, extractor.spec.request)
    assert frames.shape == (36, 36, 45, 3)
    images = torch.from_numpy(frames).permute(0, 3, 1, 2)
    state = {k: torch.from_numpy(v) for k, v in golden_cases.state("pwc_net").items()}
    rows = made["i3d_flow"].rows
    assert rows.shape == (2, 1024)
    assert made["i3d_flow_mixed_5c"].rows.shape == (2, 1024, 2, 1, 1)
    assert np.allclose(made["i3d_flow"].spans, [[0, 0.64], [0.64, 1.28]])
    with torch.inference_mode():
        for k, row in enumerate(rows):
            # The last frame of a stack opens the next one.
            stack = images[16 * k : 16 * k + 17]
            flow = plain_flow(state, stack[:-1], stack[1:])  # (16, 2, 36, 45)
            crop = flow[:, :, 2:34, 6:38]
            levels = torch.round(128 + 255 / 40 * crop.clamp(-20, 20))
            x = (2 * levels / 255 - 1).permute(1, 0, 2, 3).unsqueeze(0)  # (1, 2, 16, 32, 32)
            wanted = extractor.network.i3d(x)["pooled"][0].numpy()
            # A flow that lies on the border of two levels may fall to either side.
            assert golden_cases.relative_error(row, wanted) < 2e-3
    assert golden_cases.relative_error(rows[0], rows[1]) > 5e-3


def test_the_network_composes_flow_levels_and_i3d(extractor):
    random = torch.Generator().manual_seed(4)
    x = torch.randint(0, 256, (2, 17, 3, 33, 40), generator=random).to(torch.uint8)
    network = extractor.network
    with torch.inference_mode():
        made = network(x)
        flows = [network.flow.flow_of_stack(frames) for frames in x]
        wanted = network.i3d(torch.stack([flow_to_input(flow, 32) for flow in flows]))
    assert set(made) == {"pooled", "mixed_5c", "logits"}
    for name, value in made.items():
        assert torch.equal(value, wanted[name])


def test_still_pictures_are_level_128(files):
    # Untrained PWC-Net sees flow in anything; its last biases and weights at zero see none.
    extractor = create_extractor("i3d_flow", weights="untrained", **SMALL)
    for name, parameter in extractor.network.flow.named_parameters():
        if name.split(".")[1] == "six" or name.startswith("refiner.main.12"):
            parameter.zero_()
    seen = []
    extractor.network.i3d.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    extractor.network(extractor.to_input(np.full((1, 17, 36, 36, 3), 90, np.uint8)))
    assert seen[0].shape == (1, 2, 16, 32, 32)
    assert torch.allclose(seen[0], torch.full_like(seen[0], 1 / 255), atol=1e-6)


def test_a_short_video_has_one_row_when_the_tail_is_cycled(files, tmp_path):
    short = make_video(tmp_path / "short.mp4", seconds=0.2, size=(60, 48))
    cycled = create_extractor("i3d_flow", weights=files, **SMALL).extract(short)["i3d_flow"]
    assert cycled.rows.shape == (1, 1024)
    assert np.allclose(cycled.spans, [[0, 0.2]])


def test_raft_is_chosen_by_the_configuration():
    spec = configure_extractor("i3d_flow", weights="untrained", flow="raft", **SMALL)
    network = spec.extractor.build_network(spec.config).eval()
    assert isinstance(network, I3dFlowNetwork)
    network.flow.num_updates = 1
    x = torch.randint(0, 256, (1, 11, 3, 36, 45)).to(torch.uint8)
    with torch.inference_mode():
        made = network(x)
    assert made["pooled"].shape == (1, 1024)
    assert torch.isfinite(made["pooled"]).all()
    other = configure_extractor("i3d_flow", weights="untrained", **SMALL)
    assert spec.definitions()[0].generation != other.definitions()[0].generation


def test_each_configuration_asks_for_its_own_checkpoints(files, tmp_path, monkeypatch):
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path))
    spec = configure_extractor("i3d_flow", weights=files)
    assert sorted(spec.weights.files) == ["i3d_flow", "pwc_net"]
    with pytest.raises(WeightsMissing, match="raft_large") as caught:
        configure_extractor("i3d_flow", weights=files, flow="raft")
    assert "raft_large_c_t_skht_v1" in str(caught.value.hint)
    with pytest.raises(WeightsRejected, match="I3D for optical flow"):
        create_extractor("i3d_flow", weights=files | {"i3d_flow": files["pwc_net"]})


def test_piergiajs_weights_bring_their_eps():
    entries = {
        entry.name: entry
        for entry in configure_extractor(
            "i3d_flow", weights="untrained"
        ).extractor.published_checkpoints()["i3d_flow"]
    }
    assert entries["i3d_flow_piergiaj_imagenet"].settings == {"eps": 1e-3}
    assert not entries["i3d_flow_kinetics"].settings
