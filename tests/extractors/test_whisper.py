"""Whisper: windows of sound, both layouts of checkpoints, words with their seconds."""

import itertools

import made_media
import numpy as np
import pytest
import torch

from vlpipe.extractors import create_extractor
from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.media import AudioBlock
from vlpipe.extractors.networks.whisper import openai_layout
from vlpipe.extractors.speech.sound_windows import SAMPLE_RATE, SoundWindows
from vlpipe.stores.errors import UsageError
from vlpipe.stores.text_rows import texts_of_rows

SMALL = {"layers": 1, "width": 64, "max_tokens": 8, "temperatures": ()}
NOISE = np.random.default_rng(0).normal(0, 0.1, 70 * SAMPLE_RATE).astype(np.float32)


def windows_of(sound, block_s=7.3, start_s=0.5, silence_db=-60.0):
    sampler = SoundWindows(silence_db)
    size = int(block_s * SAMPLE_RATE)
    made = []
    for first in range(0, len(sound), size):
        start = start_s + first / SAMPLE_RATE
        made += sampler.push(AudioBlock(0, sound[first : first + size], start, first))
    return [*made, *sampler.finish()]


def test_windows_are_cut_at_the_quietest_place_and_lose_nothing():
    sound = NOISE.copy()
    for pause_s in (24.0, 47.0):
        sound[int(pause_s * SAMPLE_RATE) :][: SAMPLE_RATE // 2] *= 0.01
    made = windows_of(sound)
    edges = [sample.span for sample in made]
    assert edges[0][0] == 0.5
    assert edges[-1][1] == pytest.approx(70.5)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(edges))
    assert edges[0][1] == pytest.approx(24.75, abs=0.3)
    assert edges[1][1] == pytest.approx(47.75, abs=0.3)
    joined = np.concatenate([sample.data[: sample.context] for sample in made])
    assert np.array_equal(joined, sound)
    assert all(sample.data.shape == (30 * SAMPLE_RATE,) for sample in made)


def test_windows_do_not_depend_on_blocks_and_are_bounded():
    one, other = windows_of(NOISE), windows_of(NOISE, block_s=70)
    assert [s.span for s in one] == [s.span for s in other]
    assert max(s.context for s in one) <= 30 * SAMPLE_RATE


def test_silent_windows_are_not_looked_at():
    quiet = np.concatenate([NOISE[: 10 * SAMPLE_RATE], np.zeros(60 * SAMPLE_RATE, np.float32)])
    made = windows_of(quiet)
    assert [round(s.span[1], 1) for s in made] == [30.4]
    assert windows_of(np.full(SAMPLE_RATE // 20, 0.5, np.float32)) == []  # a twentieth of a second


@pytest.fixture(scope="module")
def untrained():
    return create_extractor("whisper", weights="untrained", **SMALL)


@pytest.fixture(scope="module")
def wave(tmp_path_factory):
    return made_media.make_audio(tmp_path_factory.mktemp("sound") / "tone.wav", seconds=3.0)


def test_words_have_seconds_within_the_sound_and_a_checkpoint_gives_them_again(
    untrained, wave, tmp_path
):
    made = untrained.extract(wave)["speech_words"]
    assert len(texts_of_rows(made.rows)) == len(made.rows) > 0
    assert (made.spans >= 0).all()
    assert (made.spans <= 3.0 + 1e-9).all()
    assert (np.diff(made.spans[:, 0]) >= 0).all()
    dims = {name: int(value) for name, value in vars(untrained.network.model.dims).items()}
    state = untrained.network.model.state_dict()
    torch.save({"dims": dims, "model_state_dict": state}, tmp_path / "own.pt")
    again = create_extractor("whisper", weights=tmp_path / "own.pt", max_tokens=8, temperatures=())
    assert again.network.model.dims == untrained.network.model.dims
    found = again.extract(wave)["speech_words"]
    assert np.array_equal(found.rows, made.rows)
    assert np.array_equal(found.spans, made.spans)


def test_what_the_network_says_is_silence_has_no_words(wave):
    extractor = create_extractor("whisper", weights="untrained", **SMALL, no_speech_from=0.0)
    assert len(extractor.extract(wave)["speech_words"].rows) == 0


def test_unlikely_text_is_decoded_again_from_one_seed(wave):
    settings = SMALL | {"temperatures": (0.7,)}
    first, again = (
        create_extractor("whisper", weights="untrained", **settings).extract(wave)["speech_words"]
        for _ in range(2)
    )
    assert np.array_equal(first.rows, again.rows)


def test_notes_tell_silence_from_no_sound(untrained):
    info = type("Info", (), {"audio": None})
    assert untrained.note(info, 0) == "no_audio"
    assert untrained.note(type("Info", (), {"audio": object()}), 0) == "no_speech"
    assert untrained.note(info, 3) is None


def test_the_layout_of_transformers_gives_the_same_network():
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=51865, d_model=64, encoder_layers=2, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=256, decoder_ffn_dim=256,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = WhisperForConditionalGeneration(config).eval()
    from vlpipe.extractors.networks.whisper import WhisperNetwork
    from vlpipe.extractors.weights.checkpoint import Checkpoint

    ours = WhisperNetwork(1, 64)
    ours.load(Checkpoint("model.safetensors", theirs.state_dict()))
    spectrum, ids = torch.randn(1, 80, 3000), torch.tensor([[50258, 50259, 50359, 50363, 11]])
    with torch.no_grad():
        wanted = theirs(input_features=spectrum, decoder_input_ids=ids)
        found = ours.eval().model(spectrum, ids)
        encoded = ours(spectrum)["encoded"]
    torch.testing.assert_close(encoded, wanted.encoder_last_hidden_state, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, wanted.logits, rtol=1e-4, atol=1e-4)


def test_openais_own_layout_stays_as_it_is(untrained):
    state = untrained.network.model.state_dict()
    assert openai_layout(state).keys() == state.keys()


def test_other_checkpoints_and_heads_are_refused(untrained, tmp_path):
    torch.save({"encoder.conv1.weight": torch.zeros(64, 80, 3)}, tmp_path / "half.pt")
    with pytest.raises(WeightsRejected, match=r"no entry 'encoder\.positional_embedding'"):
        create_extractor("whisper", weights=tmp_path / "half.pt")
    state = dict(untrained.network.model.state_dict())
    torch.save(state, tmp_path / "own.pt")
    with pytest.raises(UsageError, match="not those of Whisper's base"):
        create_extractor("whisper", weights=tmp_path / "own.pt", heads_of="base")
    state["decoder.token_embedding.weight"] = torch.zeros(1000, 64)
    torch.save(state, tmp_path / "words.pt")
    with pytest.raises(WeightsRejected, match="1000 words"):
        create_extractor("whisper", weights=tmp_path / "words.pt")
