"""iPerceive VideoQA: numbers of the published code, its layout, padding, losses, its additions."""

import math

import golden_cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlpipe.models import create_model, find_model, load_published
from vlpipe.models.frame_regions import frame_regions
from vlpipe.models.layers.bert import FrozenBert
from vlpipe.models.layers.frame_losses import balanced_cross_entropy, in_and_out_margin
from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError

CASE, TASK = "iperceive_videoqa", "subtitled_qa"
SMALL = {"text_width": 6, "region_width": 5, "middle": 8, "hidden": 8, "heads": 2}
LENGTHS = {
    "qas_mask": ([[8, 7, 6, 8, 5], [6, 6, 4, 7, 8]], 8),
    "sub_mask": ([[10, 9, 7, 10, 8, 6], [5, 10, 8, 6, 0, 0]], 10),
    "dense_cap_mask": ([[12, 11, 10, 12, 9, 8], [12, 7, 9, 12, 0, 0]], 12),
    "vid_mask": ([[5, 4, 5, 3, 5, 5], [5, 5, 2, 4, 0, 0]], 5),
}
MASK_OF = {"qas_bert": "qas_mask", "sub_bert": "sub_mask", "dense_bert": "dense_cap_mask",
           "vid": "vid_mask"}  # fmt: skip


def mask_of(lengths, width):
    return torch.arange(width) < torch.tensor(lengths)[..., None]


def golden_inputs():
    masks = {name: mask_of(*spec).float() for name, spec in LENGTHS.items()}
    drawn = golden_cases.inputs(CASE)
    rows = {n: torch.from_numpy(drawn[n]) * masks[m][..., None] for n, m in MASK_OF.items()}
    relevant = torch.zeros(2, 6, dtype=torch.bool)
    relevant[0, 1:4] = relevant[1, 0:3] = True
    return rows | masks | {"answer": torch.tensor([2, 4]), "relevant": relevant}


@pytest.fixture(scope="module")
def published():
    model = create_model("iperceive_videoqa", task=TASK, variant="public")
    return load_published(model, golden_cases.state(CASE)).eval()


def small_model(**changes):
    torch.manual_seed(0)
    return create_model("iperceive_videoqa", task=TASK, **(SMALL | changes)).eval()


def small_item(seed=0, frames=3, words=4, width=6):
    """One question of `words` words a text and `frames` frames, unpadded."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"qas_bert": (5, words, width), "sub_bert": (frames, words + 1, width),
              "dense_bert": (frames, words + 2, width), "vid": (frames, 2, 5)}  # fmt: skip
    rows = {name: torch.randn(1, *shape, generator=generator) for name, shape in shapes.items()}
    return rows | {MASK_OF[name]: torch.ones(rows[name].shape[:3]) for name in shapes}


def padded(inputs, frames, words, filling):
    """The same with so many frames and words more, which hold anything."""
    found = {}
    for name, mask in MASK_OF.items():
        more = (0, words, 0, 0 if name == "qas_bert" else frames)
        found[mask] = torch.nn.functional.pad(inputs[mask], more)
        rows = torch.nn.functional.pad(inputs[name], (0, 0, *more), value=filling)
        found[name] = rows
    return found


@torch.no_grad()
def test_numbers_are_those_of_the_published_code(published):
    wanted, found = golden_cases.outputs(CASE), published(**golden_inputs())
    for name in ("scores", "frame_logits", "frame_gates"):
        assert golden_cases.relative_error(found[name].numpy(), wanted[name]) < 1e-4, name
    for name in ("loss_ce_sum", "loss_bbce", "loss_iofsm"):
        assert float(found[name]) == pytest.approx(float(wanted[name]), rel=1e-4)
    total = sum(float(wanted[name]) for name in ("loss_ce_sum", "loss_bbce", "loss_iofsm"))
    assert float(found["loss"]) == pytest.approx(total, rel=1e-4)
    assert torch.equal(found["logits"], found["scores"])
    assert found["predictions"].tolist() == wanted["scores"].argmax(axis=1).tolist()


def test_its_published_layout_is_complete_and_reads_back(published):
    state, wanted = published.published_state(), golden_cases.state(CASE)
    tables = set(state) - set(wanted)
    assert len(tables) == 2
    assert all(state[key].shape == (500, 128) for key in tables)
    for key, value in wanted.items():
        np.testing.assert_array_equal(state[key].numpy(), value, err_msg=key)
    again = create_model("iperceive_videoqa", task=TASK)
    again.load_published({f"module.{key}": value for key, value in state.items()})
    for key, value in published.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert sum(p.numel() for p in again.parameters()) == 688_115


def test_a_foreign_checkpoint_is_refused_by_name(published):
    model, state = create_model("iperceive_videoqa", task=TASK), published.published_state()
    with pytest.raises(UsageError, match=r"unexpected: vcpt\.weight"):
        model.load_published(state | {"vcpt.weight": torch.zeros(3)})
    with pytest.raises(UsageError, match=r"missing: score\.0\.bias"):
        model.load_published({k: v for k, v in state.items() if k != "classifier.conv.0.bias"})
    key = "cls_encoder.stacked_encoderBlocks.0.position_encoding.pe"
    for wrong in (state[key] + 0.1, torch.zeros(500, 127)):
        with pytest.raises(UsageError, match=f"{key}.* not the usual table"):
            model.load_published(state | {key: wrong})


@torch.no_grad()
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 4), st.integers(0, 5), st.sampled_from([0.0, 7.0]), st.integers(0, 9))
def test_no_answer_depends_on_padding(frames, words, filling, seed):
    model, item = small_model(), small_item(seed)
    alone, wide = model(**item), model(**padded(item, frames, words, filling))
    torch.testing.assert_close(wide["scores"], alone["scores"], rtol=1e-4, atol=1e-5)
    gates = wide["frame_gates"]
    torch.testing.assert_close(gates[..., :3], alone["frame_gates"], rtol=1e-4, atol=1e-5)
    assert not gates[..., 3:].any()
    assert not wide["frame_logits"][..., 3:].any()


@torch.no_grad()
def test_no_answer_depends_on_its_batch():
    model, one, other = small_model(), small_item(1, frames=2, words=3), small_item(2, 5, 6)
    padded_one = padded(one, 3, 3, 0.0)
    both = {name: torch.cat([padded_one[name], other[name]]) for name in other
            if name not in ("vid", "vid_mask")}  # fmt: skip
    region = torch.nn.functional.pad(other["vid"], (0, 0, 0, 3))
    region_mask = torch.nn.functional.pad(other["vid_mask"], (0, 3))
    both |= {"vid": torch.cat([padded_one["vid"], region]),
             "vid_mask": torch.cat([padded_one["vid_mask"], region_mask])}  # fmt: skip
    found = model(**both)["scores"]
    for row, item in zip(found, (one, other), strict=True):
        torch.testing.assert_close(row, model(**item)["scores"][0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_as_published_padding_changes_scores():
    model, item = small_model(variant="public"), small_item()
    alone = model(**item)["scores"]
    for frames, words in ((2, 0), (0, 4)):
        assert (model(**padded(item, frames, words, 0.0))["scores"] - alone).norm() > 1e-3


@torch.no_grad()
def test_streams_that_are_empty_leave_finite_scores_that_depend_on_the_others():
    model, item = small_model(), small_item()
    without = item | {"dense_cap_mask": torch.zeros_like(item["dense_cap_mask"]),
                      "sub_mask": torch.zeros_like(item["sub_mask"])}  # fmt: skip
    found = model(**without)
    assert found["scores"].isfinite().all()
    assert found["frame_mask"].all()  # regions are there
    moved = model(**without | {"vid": item["vid"].flip(-1)})
    assert (moved["scores"] - found["scores"]).abs().max() > 1e-4
    nothing = model(**without | {"vid_mask": torch.zeros_like(item["vid_mask"])})
    assert nothing["scores"].isfinite().all()


def test_losses_of_frames_by_hand_and_with_an_empty_side():
    logits = torch.tensor([[1.0, -1.0, 0.5, 9.0]])
    inside = torch.tensor([[True, False, False, False]])
    outside = torch.tensor([[False, True, True, False]])
    minus_log = [math.log(1 + math.exp(-1.0)), math.log(1 + math.exp(-1.0)),
                 math.log(1 + math.exp(0.5))]  # fmt: skip
    wanted = minus_log[0] + (minus_log[1] + minus_log[2]) / 2
    assert float(balanced_cross_entropy(logits, inside, outside)) == pytest.approx(wanted)
    gates = torch.tensor([[0.9, 0.2, 0.4, 1.0]])
    assert float(in_and_out_margin(gates, inside, outside)) == pytest.approx(1 + 0.3 - 0.9)
    none = torch.zeros_like(inside)
    assert float(balanced_cross_entropy(logits, inside, none)) == pytest.approx(minus_log[0])
    assert float(in_and_out_margin(gates, inside, none)) == pytest.approx(1 - 0.9)


def test_a_span_of_all_frames_trains_on():
    model, item = small_model(variant="public").train(), small_item()
    outputs = model(**item, answer=torch.tensor([1]), relevant=torch.ones(1, 3, dtype=torch.bool))
    outputs["loss"].backward()
    assert outputs["loss"].isfinite()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) == len(list(model.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


@torch.no_grad()
def test_common_sense_starts_as_the_network_without_and_is_read():
    base = small_model()
    joined = small_model(has_commonsense=True, commonsense_width=4)
    joined.load_published(base.published_state())
    item = small_item()
    sense = {"commonsense": torch.rand(1, 3, 2, 4)}
    plain = base(**item)["scores"]
    torch.testing.assert_close(joined(**item, **sense)["scores"], plain, rtol=0.02, atol=0.02)
    joined.common_sense.map.weight[:4, 5:] += 2 * torch.eye(4)
    assert (joined(**item, **sense)["scores"] - plain).abs().max() > 0.01
    assert joined.published_state() is None
    with pytest.raises(TypeError, match="give commonsense"):
        joined(**item)


@torch.no_grad()
def test_words_are_looked_up():
    model = small_model(text="words", vocabulary_size=12)
    assert model.word_embedding.weight.shape == (12, 6)
    item, generator = small_item(), torch.Generator().manual_seed(3)
    for name in ("qas_bert", "sub_bert", "dense_bert"):
        item[name] = torch.randint(1, 12, item[name].shape[:3], generator=generator)
    found = model(**item)["scores"]
    vectors = {name: model.word_embedding(item[name]) for name in MASK_OF if name != "vid"}
    given = small_model()
    given.load_state_dict({k: v for k, v in model.state_dict().items() if k != "encoder.weight"})
    torch.testing.assert_close(given(**item | vectors)["scores"], found)


def test_slots_follow_the_text_and_the_join():
    model = find_model("iperceive_videoqa")
    wanted = {
        ("tokens", False): {"vid", "question_tokens", "question_place", "subtitle_tokens",
                            "caption_tokens"},
        ("words", False): {"vid"}, ("base", True): {"vid", "commonsense"},
    }  # fmt: skip
    for (text, join), slots in wanted.items():
        assert set(model.slots_in_use(model.Config(text=text, has_commonsense=join))) == slots
    found = model.settings_for(
        model.Config(), {"vid": (9, 7), "question_tokens": (5,), "commonsense": (3,)}
    )
    assert found == {"region_width": 7, "text_width": 5, "commonsense_width": 3}


def test_claimed_figures_are_marked():
    claimed = [p for p in find_model("iperceive_videoqa").published_results if p.value == 76.97]
    assert [p.source for p in claimed] == ["iPerceive VideoQA, claimed, val"]


@torch.no_grad()
def test_bert_reads_only_with_weights():
    pytest.importorskip("transformers")
    bert = FrozenBert("small", 20, at_once=2)
    ids, mask = torch.tensor([[1, 2, 0], [3, 4, 5], [6, 0, 0]]), torch.ones(3, 3, dtype=torch.bool)
    with pytest.raises(UsageError, match="BERT has no weights yet"):
        bert(ids, mask)
    bert.load_state_dict(bert.state_dict())  # weights that nobody gave to it
    state = {key: value for key, value in bert.state_dict().items() if key != "is_filled"}
    in_part = {key: value for key, value in state.items() if "layer.3" not in key}
    bert.load_state_dict(in_part, strict=False)
    with pytest.raises(UsageError, match="BERT has no weights yet"):
        bert.require_weights()
    bert.load_state_dict(state, strict=False)
    rows = bert(ids, mask)
    assert rows.shape == (3, 3, 256)
    torch.testing.assert_close(rows[2:], bert(ids[2:], mask[2:]), rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in bert.parameters())
    key = "bert.encoder.layer.0.output.LayerNorm.gamma"
    entry = "encoder.bert.encoder.layer.0.output.LayerNorm.weight"
    assert find_model("iperceive_videoqa").own_entry(key) == entry
    assert find_model("iperceive_videoqa").own_entry("score.0.bias") == "score.0.bias"


def test_regions_of_a_frame_in_rows_of_their_own_or_in_one():
    spans = np.array([[2.0, 4.0], [0.0, 2.0], [2.0, 4.0]])
    rows = np.array([[1.0, 0], [2, 0], [3, 0]])
    apart = frame_regions(Features(rows, spans), None, max_frames=9, commonsense_width=None)
    together = frame_regions(
        Features(np.array([[[2.0, 0], [0, 0]], [[1, 0], [3, 0]]]), np.array([[0.0, 2], [2, 4]])),
        None, max_frames=9, commonsense_width=None,
    )  # fmt: skip
    for found in (apart, together):
        assert found["vid"][..., 0].tolist() == [[2, 0], [1, 3]]
        assert found["vid_mask"].tolist() == [[True, False], [True, True]]
        assert found["frame_s"].tolist() == [1, 3]
    few = frame_regions(Features(rows, spans), None, max_frames=1, commonsense_width=None)
    assert few["frame_s"].tolist() == [1]


def test_common_sense_stands_beside_its_region_or_as_the_mean():
    regions = Features(np.ones((3, 2)), np.array([[0.0, 2], [2, 4], [2, 4]]))
    sense = Features(np.array([[1.0], [3], [5], [7]]), np.array([[0.0, 1], [0, 1], [2, 4], [2, 4]]))
    found = frame_regions(regions, sense, max_frames=9, commonsense_width=1)
    assert found["commonsense"][..., 0].tolist() == [[2, 0], [5, 7]]
    without = frame_regions(regions, None, max_frames=9, commonsense_width=1)
    assert not without["commonsense"].any()
