"""MDVC against its published code, and its decoding with and without caches."""

import golden_cases
import numpy as np
import pytest
import torch

from vlpipe.models import create_model, load_published
from vlpipe.models.caption_vocabulary import END, PADDING, START
from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError

SIZES = {
    "vocabulary_size": 60, "speech_vocabulary_size": 40, "speech_width": 20, "audio_width": 16,
    "video_width": 24, "inner": 32, "layers": 2,
}  # fmt: skip


@pytest.fixture
def model():
    made = create_model("mdvc", task="captioning", **SIZES)
    return load_published(made, golden_cases.state("mdvc_captioner")).eval()


@pytest.fixture
def given():
    found = {
        name.removeprefix("mdvc_"): torch.from_numpy(value)
        for name, value in golden_cases.inputs("mdvc_captioner").items()
    }
    found["rgb"][1, 5:], found["flow"][1, 5:], found["audio"][1, 5:] = 1, 0, 1
    found["subs"][:, 0], found["subs"][1, 4], found["subs"][1, 5:] = START, END, PADDING
    caption = found["caption"]
    caption[:, 0], caption[0, 7], caption[1, 5], caption[1, 6:] = START, END, END, PADDING
    return found


@torch.no_grad()
def test_it_gives_the_published_numbers_and_words(model, given):
    wanted = golden_cases.outputs("mdvc_captioner")
    found = model(**given)
    for name in ("logp", "loss"):
        assert golden_cases.relative_error(found[name].numpy(), wanted[name]) < 1e-5, name
    caption = given.pop("caption")
    assert int(found["n_tokens"]) == int((caption[:, 1:] != PADDING).sum())
    assert model.write_captions(**given, max_words=12).tolist() == wanted["greedy"].tolist()


def test_the_layout_comes_back(model):
    state, wanted = model.published_state(), golden_cases.state("mdvc_captioner")
    assert state.keys() == wanted.keys()
    assert all(np.array_equal(state[key], wanted[key]) for key in state)


@torch.no_grad()
def test_lengths_say_the_same_as_marked_rows(model, given):
    told = model(**given, rgb_length=torch.tensor([7, 5]))["logp"]
    torch.testing.assert_close(told, model(**given)["logp"])


def without_cache(model, given, max_words):
    ids = torch.full((len(given["rgb"]), 1), START)
    while ids.shape[1] <= max_words and not (ids == END).any(dim=1).all():
        # A last word is appended, which the forward pass leaves out of the prefix.
        logp = model(**given, caption=torch.cat([ids, ids[:, :1]], dim=1))["logp"]
        ids = torch.cat([ids, logp[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    return ids


@torch.no_grad()
def test_captions_of_events_are_those_without_caches(model, given):
    del given["caption"]
    torch.manual_seed(0)
    model.generator.weight.normal_(std=2.0)
    whole = model.write_captions(**given, max_words=20)
    assert torch.equal(whole, without_cache(model, given, 20))
    assert len({tuple(row) for row in whole.tolist()}) == 2
    events = torch.tensor([[1, 0.0, 10.0], [0, 0.0, 10.0], [0, 2.0, 4.0]], dtype=torch.float64)
    of_events = {
        "events": events, "duration_s": torch.tensor([10.0, 10.0]),
        "subs": given["subs"][[1, 0, 0]],
    }  # fmt: skip
    found = model.write_captions(**(given | of_events), max_words=20)
    assert found[:2].tolist() == whole[[1, 0]].tolist()
    assert model.write_captions(**given, max_words=20, beams=3).shape[0] == 2


@torch.no_grad()
def test_without_speech_there_are_two_streams(given):
    model = create_model("mdvc", task="captioning", **SIZES, has_speech=False).eval()
    del given["subs"]
    assert model.fusion.in_features == 16 + 24
    assert model(**given)["logp"].shape == (2, 7, 60)


def test_published_sizes():
    with torch.device("meta"):
        two = create_model("mdvc", task="captioning", has_speech=False)
        three = create_model("mdvc", task="captioning", speech_vocabulary_size=1)
    assert round(sum(p.numel() for p in two.parameters()) / 1e6, 2) == 149.18
    assert round(sum(p.numel() for p in three.parameters()) / 1e6) == 167


def test_missing_speech_and_foreign_checkpoints_are_named(model, given):
    del given["subs"]
    with pytest.raises(TypeError, match="subs"):
        model(**given)
    with pytest.raises(UsageError, match="missing"):
        model.load_published({"module.generator.linear.bias": torch.zeros(60)})


def test_missing_streams_are_zeros_of_equal_length():
    config = create_model("mdvc", task="captioning", **SIZES).config
    spans = np.arange(6)[:, None] * 0.96 + [[0, 0.96]]
    silent = {"rgb": Features(np.ones((6, 24), np.float16), spans)}
    found = type(create_model("mdvc", task="captioning", **SIZES)).prepare(config, silent)
    assert (found["audio"].shape, found["flow"].shape) == ((6, 16), (6, 24))
    assert not found["audio"].any()
    sound = silent | {"audio": Features(np.ones((4, 16), np.float16), spans[:4])}
    found = type(create_model("mdvc", task="captioning", **SIZES)).prepare(config, sound)
    assert (len(found["rgb"]), int(found["rgb_length"])) == (4, 4)
