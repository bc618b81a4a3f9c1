"""RAFT flow against torchvision's own network and transforms."""

import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights, raft_small

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.extractors.raft import RaftNetwork, raft_checkpoints
from vlpipe.extractors.samples import Sample


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(5)
    return raft_small().eval()


@pytest.fixture(scope="module")
def checkpoint(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "raft_small.pth"
    torch.save(reference.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def pairs():
    return np.random.default_rng(0).integers(0, 256, (2, 2, 128, 136, 3), dtype=np.uint8)


def test_rows_are_torchvisions_flow(reference, checkpoint, pairs):
    preset = Raft_Small_Weights.DEFAULT.transforms()
    first, second = (torch.from_numpy(pairs[:, k]).permute(0, 3, 1, 2) for k in (0, 1))
    with torch.inference_mode():
        wanted = reference(*preset(first, second), num_flow_updates=3)[-1].numpy()
    extractor = create_extractor(
        "raft", weights={"raft_small": checkpoint}, model="small", num_updates=3, size=(128, 136)
    )
    made = extractor.infer([Sample(pair, (0, 1)) for pair in pairs]).rows["raft_small"]
    assert made.shape == (2, 2, 128, 136)
    assert np.linalg.norm(made - wanted) / np.linalg.norm(wanted) < 1e-4


def test_frames_of_any_size_are_padded_and_the_flow_is_cut_back(reference):
    network = RaftNetwork("small", 2).eval()
    network.raft.load_state_dict(reference.state_dict())
    frames = torch.randint(0, 256, (3, 3, 131, 140), generator=torch.Generator().manual_seed(1))
    frames = frames.to(torch.uint8)
    with torch.inference_mode():
        cut = network(frames[:-1], frames[1:])["flow"]
        padded = network.flow_of_stack(frames, pairs_at_once=1)
    assert cut.shape == (2, 2, 131, 140)
    assert padded.shape == (2, 2, 136, 144)
    # Five spare rows: two above, three below; four spare columns.
    assert torch.allclose(cut, padded[:, :, 2:133, 2:142], atol=1e-4)


def test_the_two_networks_are_features_of_their_own():
    large = configure_extractor("raft", weights="untrained").definitions()[0]
    small = configure_extractor("raft", weights="untrained", model="small").definitions()[0]
    assert (large.name, small.name) == ("raft_large", "raft_small")
    assert large.row_shape == (2, 256, 256)


def test_checkpoints_are_torchvisions_with_its_default_first():
    entries = raft_checkpoints("raft_large")
    assert len(entries) == len(Raft_Large_Weights)
    assert entries[0].url == Raft_Large_Weights.DEFAULT.url
    assert entries[0].sha256 == "ff5fadd5"


def test_each_network_asks_for_its_own_checkpoint(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissing, match="raft_large_c_t_skht_v2"):
        configure_extractor("raft", weights={"raft_small": checkpoint})
    with pytest.raises(WeightsRejected, match="torchvision raft_large"):
        create_extractor("raft", weights={"raft_large": checkpoint})
