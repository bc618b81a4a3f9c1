"""MASN: numbers of the published code, its switches, and work shared over candidates."""

import json

import golden_cases
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vlpipe.models import create_model, load_published
from vlpipe.stores.errors import UsageError

CASE = "masn_count"
SMALL = {
    "vocabulary_size": 30, "appearance_width": 8, "motion_width": 8, "num_objects": 3,
    "max_clips": 4, "max_words": 9, "word_width": 6, "hidden": 16, "glimpses": 2,
    "graph_layers": 1,
}  # fmt: skip


def published_checkpoint():
    """The drawn entries, and the gains that the case fixes."""
    facts = json.loads((golden_cases.FOLDER / f"{CASE}.json").read_text(encoding="utf-8"))
    gains = {key: np.float32(value) for key, value in facts["constants"].items()}
    return golden_cases.state(CASE) | gains


def golden_inputs():
    return {
        name.split(".", 1)[1]: torch.from_numpy(value)
        for name, value in golden_cases.inputs(CASE).items()
    }


@pytest.fixture(scope="module")
def published():
    return load_published(create_model("masn", task="count"), published_checkpoint()).eval()


def small_inputs(task="action", batch=2, **settings):
    """Random tensors that fit SMALL."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    t, n, c = SMALL["max_clips"], SMALL["num_objects"], SMALL["appearance_width"]
    tensors = {
        "appearance_global": draw(batch, t, c),
        "motion_global": draw(batch, t, c),
        "appearance_local": draw(batch, t, n, c),
        "motion_local": draw(batch, t, n, c),
        "boxes": draw(batch, t, n, 6).abs(),
        "video_length": torch.randint(1, t + 1, (batch,), generator=generator),
    }
    if task in ("action", "transition"):
        ids = torch.randint(2, 30, (batch, 5, SMALL["max_words"]), generator=generator)
        lengths = torch.randint(1, SMALL["max_words"] + 1, (batch, 5), generator=generator)
        tensors |= {"candidates": ids, "candidates_length": lengths}
    else:
        ids = torch.randint(2, 30, (batch, SMALL["max_words"]), generator=generator)
        lengths = torch.randint(1, SMALL["max_words"] + 1, (batch,), generator=generator)
        tensors |= {"question": ids, "question_length": lengths}
    return tensors | settings


def small_model(task="action", **settings):
    torch.manual_seed(0)
    return create_model("masn", task=task, **(SMALL | settings)).eval()


@torch.no_grad()
def test_numbers_are_those_of_the_published_code(published):
    wanted = golden_cases.outputs(CASE)
    found = published(**golden_inputs())
    assert golden_cases.relative_error(found["logits"].numpy(), wanted["logits"]) < 1e-4
    assert found["predictions"].tolist() == wanted["predictions"].tolist()
    assert float(found["loss"]) == pytest.approx(float(wanted["loss"]), rel=1e-4)


@torch.no_grad()
def test_attention_is_that_of_the_published_code(published):
    wanted = golden_cases.outputs(CASE)["mid_attention"]  # every 20th node, motion
    seen = []
    hook = published.motion.attention.register_forward_hook(lambda *call: seen.append(call[2][1]))
    published(**golden_inputs())
    hook.remove()
    found = seen[0][:, 0].transpose(2, 3)[:, :, ::20].numpy()  # (B, G, nodes, L)
    assert golden_cases.relative_error(found, wanted) < 1e-4


@torch.no_grad()
def test_scores_depend_on_the_longest_question_as_published_unless_padding_is_masked(published):
    inputs = golden_inputs()
    two = {name: value[:2] for name, value in inputs.items()}
    wanted = golden_cases.outputs(CASE)["logits_rows_0_1_alone"]
    assert golden_cases.relative_error(published(**two)["logits"].numpy(), wanted) < 1e-4
    clean = create_model("masn", task="count", mask_padded_words=True)
    load_published(clean, published_checkpoint()).eval()
    one = {name: value[:1] for name, value in inputs.items()}
    alone, beside = clean(**one)["logits"], clean(**inputs)["logits"][:1]
    torch.testing.assert_close(alone, beside, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_batch_of_one_works(published):
    one = {name: value[:1] for name, value in golden_inputs().items()}
    assert published(**one)["logits"].shape == (1,)


def test_its_published_layout_is_complete_and_reads_back(published):
    state = published.published_state()
    wanted = published_checkpoint()
    assert not set(wanted) - set(state)
    for key, value in wanted.items():
        if not key.startswith("sentence_encoder.compress_hn_layers"):
            np.testing.assert_array_equal(state[key].numpy(), value, err_msg=key)
    assert state["pos_enc.pe"].shape == (20, 512)
    again = create_model("masn", task="count")
    again.load_published({f"module.{key}": value for key, value in state.items()})
    for key, value in published.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert type(published).published_file_name("frameqa", 59.734) == "FrameQA_59.73.pth"


def test_a_checkpoint_of_another_task_is_refused_by_name(published):
    state = published.published_state()
    del state["fc.bias"]
    with pytest.raises(UsageError, match=r"missing: output\.bias"):
        create_model("masn", task="count").load_published(state)


def test_published_parameter_counts():
    model = create_model("masn", task="count")
    assert sum(p.numel() for p in model.parameters()) == 28_855_132 - 786_432
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 23_147_496


@torch.no_grad()
@pytest.mark.parametrize("mask_padded_words", [False, True])
def test_sharing_the_video_changes_no_score_and_matches_candidates_alone(mask_padded_words):
    shared = small_model(mask_padded_words=mask_padded_words)
    apart = small_model(mask_padded_words=mask_padded_words, share_video=False)
    apart.load_state_dict(shared.state_dict())
    inputs = small_inputs(batch=3)
    scores = shared(**inputs)["logits"]
    torch.testing.assert_close(apart(**inputs)["logits"], scores, rtol=0, atol=1e-5)
    # The published code runs once for each place of a candidate.
    for place in range(5):
        one = {k: v for k, v in inputs.items() if not k.startswith("candidates")}
        one["candidates"] = inputs["candidates"][:, place : place + 1]
        one["candidates_length"] = inputs["candidates_length"][:, place : place + 1]
        torch.testing.assert_close(shared(**one)["logits"][:, 0], scores[:, place], atol=1e-5,
                                   rtol=0)  # fmt: skip


@torch.no_grad()
def test_sharing_the_video_takes_a_third_of_the_arithmetic():
    sizes = {"appearance_width": 256, "motion_width": 256, "num_objects": 10, "hidden": 64,
             "max_clips": 20, "max_words": 20, "vocabulary_size": 30, "word_width": 30}  # fmt: skip
    t, n, c = 20, 10, 256
    inputs = {
        "appearance_global": torch.randn(1, t, c), "motion_global": torch.randn(1, t, c),
        "appearance_local": torch.randn(1, t, n, c), "motion_local": torch.randn(1, t, n, c),
        "boxes": torch.rand(1, t, n, 6), "video_length": torch.tensor([t]),
        "candidates": torch.randint(2, 30, (1, 5, 20)),
        "candidates_length": torch.full((1, 5), 14),
    }  # fmt: skip
    counted = []
    for share in (True, False):
        model = create_model("masn", task="action", share_video=share, **sizes).eval()
        with FlopCounterMode(display=False) as counter:
            model(**inputs)
        counted.append(counter.get_total_flops())
    assert counted[1] / counted[0] > 3


@torch.no_grad()
def test_what_lies_past_the_lengths_never_reaches_a_score():
    model, inputs = small_model("count"), small_inputs("count", batch=3)
    inputs["video_length"] = torch.tensor([2, 1, 3])
    inputs["question_length"] = torch.tensor([8, 3, 5])
    spoilt = {name: value.clone() for name, value in inputs.items()}
    for row in range(3):
        for name in ("appearance_global", "motion_global", "appearance_local", "motion_local"):
            spoilt[name][row, inputs["video_length"][row] :] = 1e3
        spoilt["question"][row, inputs["question_length"][row] :] = 7
    torch.testing.assert_close(model(**spoilt)["logits"], model(**inputs)["logits"])


@torch.no_grad()
def test_a_full_video_loses_its_last_clip_only_as_published():
    inputs = small_inputs("count", batch=1)
    inputs["video_length"] = torch.tensor([SMALL["max_clips"]])
    changed = inputs | {"motion_global": inputs["motion_global"].clone()}
    changed["motion_global"][:, -1] += 5
    for is_masked in (True, False):
        model = small_model("count", mask_last_position=is_masked)
        is_same = torch.equal(model(**inputs)["logits"], model(**changed)["logits"])
        assert is_same == is_masked


def test_frozen_projections_stay_and_trained_ones_learn():
    for is_trained in (False, True):
        model = small_model("count", train_projections=is_trained).train()
        model(**small_inputs("count"), answer=torch.tensor([2.0, 3.0]))["loss"].backward()
        assert (model.appearance.project_local.weight.grad is not None) == is_trained


@torch.no_grad()
@pytest.mark.parametrize(("task", "shape"), [("action", (2, 5)), ("count", (2,)),
                                             ("frameqa", (2, 4))])  # fmt: skip
def test_attention_sums_to_one_for_each_question(task, shape):
    model = small_model(task, num_answers=4)
    found = model(**small_inputs(task))
    assert found["logits"].shape == shape
    questions = shape[1] if task == "action" else 1
    assert found["appearance_attention"].shape == (2, questions, 4, 3)
    for name in ("appearance_attention", "motion_attention", "word_attention"):
        sums = found[name].flatten(2).sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))
