"""VGGish against the published code's numbers, and its rules for short, silent and absent sound."""

import golden_cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlpipe.extractors import create_extractor
from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.extractors.inputs.log_mel import EXAMPLE_HOP, EXAMPLE_SAMPLES, log_mel_examples
from vlpipe.extractors.media import AudioBlock
from vlpipe.extractors.vggish import ExampleSampler


@pytest.fixture(scope="module")
def state():
    return {k: torch.from_numpy(v) for k, v in golden_cases.state("vggish_net").items()}


@pytest.fixture(scope="module")
def network_file(state, tmp_path_factory):
    """The 18 entries of the published vggish-10086976.pth."""
    path = tmp_path_factory.mktemp("weights") / "vggish-10086976.pth"
    torch.save({k: v for k, v in state.items() if not k.startswith("pca")}, path)
    return path


@pytest.fixture(scope="module")
def logmel():
    drawn = golden_cases.inputs("vggish_net")["vggish_net.logmel"]
    return torch.from_numpy(0.25 * drawn).unsqueeze(1)


def test_the_network_gives_the_published_embedding(network_file, logmel):
    made = create_extractor("vggish", weights=network_file).network(logmel)
    wanted = golden_cases.outputs("vggish_net")
    for name in ("embedding", "embedding_pre_relu"):
        assert golden_cases.relative_error(made[name].numpy(), wanted[name]) < 1e-5


@pytest.mark.parametrize("form", ["npz", "pth of arrays", "one file", "float64"])
def test_pca_and_quantisation_give_the_published_levels(
    state, network_file, logmel, tmp_path, form
):
    pca = {k: v.numpy() for k, v in state.items() if k.startswith("pca")}
    weights = {"vggish": network_file, "vggish_pca": tmp_path / "pca"}
    if form in ("npz", "float64"):
        weights["vggish_pca"] = tmp_path / "vggish_pca_params.npz"
        kind = np.float64 if form == "float64" else np.float32
        np.savez(weights["vggish_pca"], **{k: v.astype(kind) for k, v in pca.items()})
    elif form == "pth of arrays":
        torch.save(pca, weights["vggish_pca"])
    else:
        weights = tmp_path / "all.pt"
        torch.save(state, weights)
    extractor = create_extractor("vggish", weights=weights, postprocess="pca")
    made = extractor.network(logmel)
    wanted = golden_cases.outputs("vggish_net")
    assert golden_cases.relative_error(made["pca"].numpy(), wanted["pca"]) < 1e-5
    for name in ("quantised_round", "quantised_trunc"):
        difference = made[name].numpy() - wanted[name].astype(np.float32)
        assert np.abs(difference).max() <= 1
        assert (difference != 0).mean() < 0.01
    assert torch.equal(made["features"], made["pca"])


def test_the_configuration_chooses_what_is_stored(network_file, state, logmel, tmp_path):
    torch.save(state, tmp_path / "all.pt")
    for settings_, name in [
        ({"postprocess": "quantised"}, "quantised_trunc"),
        ({"postprocess": "quantised", "rounding": "round"}, "quantised_round"),
        ({"final_relu": False}, "embedding_pre_relu"),
    ]:
        made = create_extractor("vggish", weights=tmp_path / "all.pt", **settings_).network(logmel)
        assert torch.equal(made["features"], made[name])


def test_layers_named_after_tensorflow_are_read(state, network_file, logmel, tmp_path):
    names = {
        "features.0": "features.vggish/conv1",
        "features.3": "features.vggish/conv2",
        "features.6": "features.vggish/conv3/conv3_1",
        "features.8": "features.vggish/conv3/conv3_2",
        "features.11": "features.vggish/conv4/conv4_1",
        "features.13": "features.vggish/conv4/conv4_2",
        "embeddings.0": "embedding.vggish/fc1/fc1_1",
        "embeddings.2": "embedding.vggish/fc1/fc1_2",
        "embeddings.4": "embedding.vggish/fc2",
    }
    renamed = {
        f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value
        for key, value in state.items()
        if not key.startswith("pca")
    }
    torch.save(renamed, tmp_path / "vggish_model.pt")
    ours = create_extractor("vggish", weights=tmp_path / "vggish_model.pt").network(logmel)
    same = create_extractor("vggish", weights=network_file).network(logmel)
    assert torch.equal(ours["embedding"], same["embedding"])


def test_pca_without_its_checkpoint_says_where_to_get_it(network_file, tmp_path, monkeypatch):
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissing, match=r"vggish_pca_params-970ea276\.pth"):
        create_extractor("vggish", weights={"vggish": network_file}, postprocess="pca")
    with pytest.raises(WeightsRejected, match="pca_eigen_vectors"):
        create_extractor("vggish", weights=network_file, postprocess="pca")


def test_the_front_end_gives_the_published_examples():
    drawn = golden_cases.inputs("vggish_frontend")["vggish_frontend.noise16k"].astype(np.float64)
    n = np.arange(len(drawn))
    wave = 0.1 * drawn + 0.3 * np.sin(2 * np.pi * 440 * n / 16000)
    wanted = golden_cases.outputs("vggish_frontend")["examples_16k"]
    assert golden_cases.relative_error(log_mel_examples(wave), wanted) < 1e-6
    assert golden_cases.relative_error(log_mel_examples(wave.astype(np.float32)), wanted) < 1e-5


@pytest.mark.parametrize(
    ("num_samples", "num_examples"),
    [(0, 0), (1, 0), (239, 0), (15_360, 0), (15_599, 0), (15_600, 1), (30_959, 1), (30_960, 2)],
)
def test_an_example_needs_0975_seconds(num_samples, num_examples):
    assert log_mel_examples(np.zeros(num_samples)).shape == (num_examples, 96, 64)


def test_silence_is_the_logarithm_of_the_offset():
    assert np.allclose(log_mel_examples(np.zeros(EXAMPLE_SAMPLES)), np.log(0.01))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=12), st.floats(0, 2))
def test_blocks_of_any_length_give_the_same_examples(lengths, start_s):
    wave = np.random.default_rng(0).standard_normal(sum(lengths)).astype(np.float32)
    sampler = ExampleSampler()
    samples, first = [], 0
    for length in lengths:
        block = AudioBlock(0, wave[first : first + length], start_s + first / 16_000, first)
        samples += sampler.push(block)
        first += length
    samples += sampler.finish()
    whole = log_mel_examples(wave)
    assert np.array_equal(np.array([s.data for s in samples]).reshape(-1, 96, 64), whole)
    for k, sample in enumerate(samples):
        assert sample.span == pytest.approx((start_s + 0.96 * k, start_s + 0.96 * k + 0.975))
    assert EXAMPLE_HOP == 15_360
