"""JSFusion: the formulas' numbers, the public code's order of work, masks, ablations, training."""

import golden_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_jsfusion import PlainPublic, tensorflow_state
from small_jsfusion import SMALL, material, small

from vlpipe.models import create_model, load_published
from vlpipe.models.layers.ranking_losses import choice_loss, retrieval_loss
from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError


@pytest.fixture(scope="module")
def published():
    model = create_model("jsfusion", task="retrieval")
    return load_published(model, golden_cases.state("jsfusion_score")).eval()


def worst(found, wanted):
    return max(golden_cases.relative_error(found[k].numpy(), wanted[k]) for k in wanted)


def test_formulas_without_padding(published):
    inputs = {k: torch.from_numpy(v) for k, v in golden_cases.inputs("jsfusion_score").items()}
    with torch.inference_mode():
        found = published(**inputs)
    own = torch.arange(2)
    wanted = golden_cases.outputs("jsfusion_score")
    told = {"score": found["score"], "pooled": found["pooled"]}
    told |= {name: found[name][own, own] for name in ("alpha", "gate3")}
    told |= {name: found[name][:, ::8] for name in ("d1v", "d1w")}
    assert worst(told, wanted) < 1e-4


def test_formulas_with_masks(published):
    drawn = golden_cases.inputs("jsfusion_score_masked")
    inputs = {k: torch.from_numpy(v) for k, v in drawn.items()}
    # Rows before the first frame and ids behind the last word are garbage here: they are not read.
    inputs |= {"words": inputs["words"][:, None], "word_len": inputs["word_len"][:, None]}
    with torch.inference_mode():
        found = published(**inputs)
    wanted = golden_cases.outputs("jsfusion_score_masked")
    assert worst({name: found[name][:, 0] for name in wanted}, wanted) < 1e-4
    assert found["gate1"].shape == (3, 1, 38, 38)


@pytest.mark.parametrize("variant", ["thesis", "public"])
@pytest.mark.parametrize("task", ["retrieval", "mc", "fib"])
def test_padding_has_no_influence(task, variant):
    model = small(task, variant=variant)
    inputs = material()
    if task == "mc":
        inputs |= {"words": inputs["words"].repeat(3, 1, 1)}
        inputs |= {"word_len": inputs["word_len"].repeat(3, 1)}
    elif task == "fib":
        inputs["words"][:, 0] = 1
    with torch.inference_mode():
        wanted = model(**inputs)
        for row, length in enumerate(inputs["video_len"]):
            inputs["video"][row, : 13 - length] = 77
        inside = torch.arange(12) < inputs["word_len"][..., None]
        inputs["words"] = inputs["words"].where(inside, torch.tensor(19))
        found = model(**inputs)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, msg=name)


@pytest.mark.parametrize("task", ["ret", "mc", "fib"])
def test_public_variant_reads_tensorflow_and_does_as_that_code(task):
    state = tensorflow_state(task)
    names = {"ret": "retrieval", "mc": "mc", "fib": "fib"}
    widths = (8, 8, 8, 4, 4, 8) if task == "fib" else SMALL["widths"]
    settings = {"variant": "public", "widths": widths, "vocabulary_size": 5, "num_answers": 2}
    model = load_published(small(names[task], **settings), state)
    inputs = material()
    inputs["words"][inputs["words"] == 1] = 2
    if task == "fib":
        inputs["words"][torch.arange(3), torch.tensor([3, 7, 0])] = 1
    if task == "mc":
        inputs |= {"words": inputs["words"].repeat(3, 1, 1)}
        inputs |= {"word_len": inputs["word_len"].repeat(3, 1)}
    with torch.inference_mode():
        found = model(**inputs)
    plain = PlainPublic(state, task)
    ids = inputs["words"][0] if task == "mc" else inputs["words"]
    num_words = inputs["word_len"][0] if task == "mc" else inputs["word_len"]
    for v in range(3):
        video, num_frames = inputs["video"][v], int(inputs["video_len"][v])
        for s in [v] if task == "fib" else range(3):
            wanted = plain(video, num_frames, ids[s], int(num_words[s]))
            got = found["logits"][v] if task == "fib" else found["score"][v, s]
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    if task == "fib":
        assert model.word_embed.num_embeddings == 20
        assert found["logits"].shape == (3, 11)


def test_flat_names_go_round():
    model, other = small(seed=0), small(seed=5)
    state = model.published_state()
    assert {"d1v.weight", "d1v_bn.running_var", "att.weight", "gate3.bias"} <= set(state)
    assert "att.bias" not in state
    with torch.inference_mode():
        wanted = model(**material())["score"]
        assert not torch.allclose(other(**material())["score"], wanted)
        found = load_published(other, state)(**material())["score"]
    assert torch.equal(found, wanted)
    with pytest.raises(UsageError, match=r"JSFusion \(thesis\).*missing: d8"):
        load_published(other, {k: v for k, v in state.items() if not k.startswith("d8")})


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder": "lstm"},
        {"encoder": "dense"},
        {"decoder": "max"},
        {"decoder": "mean"},
        {"decoder": "last_states"},
        {"gates": False},
        {"attention": False},
        {"audio": False},
        {"changes": True},
        {"variant": "public"},
    ],
    ids=str,
)
@pytest.mark.parametrize("task", ["retrieval", "fib"])
def test_every_ablation_learns_by_all_its_weights(settings, task):
    model = small(task, **settings, dropout=0.0).train()
    inputs = material()
    if not settings.get("audio", True):
        inputs["video"] = inputs["video"][..., :5]
    if settings.get("changes"):
        inputs["video"] = torch.cat([inputs["video"][..., :5], inputs["video"]], dim=2)
    inputs["words"][:, 0] = 1
    outputs = model(**inputs)
    if task == "fib":
        loss = F.cross_entropy(outputs["logits"], torch.tensor([1, 2, 3]))
    else:
        loss = retrieval_loss(outputs["score"])
    loss.backward()
    # A bias before a norm has no effect in training.
    idle = {
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0
    }
    assert all(name.endswith(".bias") for name in idle), idle


def test_training_norms_take_their_statistics_over_valid_cells():
    inputs = material()
    models = [small(dropout=0.0).train() for _ in range(2)]
    models[0](**inputs)
    inside = torch.arange(12) < inputs["word_len"][:, None]
    inputs["words"] = inputs["words"].where(inside, torch.tensor(19))
    inputs["video"][1, :9] = 77
    models[1](**inputs)
    means = [model.fusion.tensor.d2.norm.running_mean for model in models]
    torch.testing.assert_close(means[0], means[1])
    assert not torch.equal(means[0], small().fusion.tensor.d2.norm.running_mean)


def test_normalised_inputs_forget_scale_and_offset():
    scores = []
    for scale, offset in ((1.0, 0.0), (0.01, 7.0)):
        model = small(normalise_inputs=True, dropout=0.0, norm_momentum=1.0).train()
        inputs = material()
        inputs["video"] = inputs["video"] * scale + offset
        inputs["video"][1, :9] = 77  # padding takes no part
        model(**inputs)
        with torch.inference_mode():
            scores.append(model.eval()(**inputs)["score"])
    # eps beside a variance of 1e-5 is felt
    torch.testing.assert_close(scores[0], scores[1], atol=0.2, rtol=0.1)
    assert "input_norm.norm.running_mean" not in small().state_dict()


def test_wrong_combinations_are_refused():
    with pytest.raises(UsageError, match="variant public has no ablations"):
        small(variant="public", gates=False)
    with pytest.raises(UsageError, match="last_states needs an encoder"):
        small(decoder="last_states", encoder="dense")
    with pytest.raises(UsageError, match="D1 is 6 wide and D7 4"):
        small("fib", widths=(6, 7, 5, 4, 4, 4))
    with pytest.raises(ValueError, match="at most 12"):
        small()(video=torch.rand(1, 13, 8), words=torch.zeros(1, 13, dtype=torch.long))


def test_prepare_takes_equidistant_frames_and_the_sound_beside_them():
    model = small()
    spans = np.stack([np.arange(30), np.arange(30) + 1], axis=1) / 5
    frames = Features(np.arange(150, dtype=np.float16).reshape(30, 5), spans)
    sound = Features(
        np.array([[1, 1, 1], [2, 2, 2]], np.float16), np.array([[0, 0.96], [0.96, 1.92]])
    )
    found = model.prepare(model.config, {"frames": frames, "sound": sound})
    chosen = np.linspace(0, 30, 13, endpoint=False).astype(int)
    assert found["video_len"] == 13
    assert found["video"][:, 0].tolist() == (5 * chosen).tolist()
    assert found["video"][:, 5].tolist() == [1 if (n + 0.5) / 5 < 0.96 else 2 for n in chosen]
    assert np.array_equal(model.row_spans(model.config, {"frames": frames}), spans[chosen])

    short = model.prepare(model.config, {"frames": frames, "sound": sound}, (1.0, 1.6))
    assert short["video_len"] == 3
    assert short["video"][-3:, 0].tolist() == [25, 30, 35]
    assert not short["video"][:-3].any()
    assert model.row_spans(model.config, {"frames": frames}, (1.0, 1.6))[9].tolist() == [0, 0]

    silent = model.prepare(model.config, {"frames": frames})
    assert silent["video"].shape == (13, 8)
    assert not silent["video"][:, 5:].any()
    assert model.settings_for(model.config, {"frames": (2048,)}) == {
        "audio": False,
        "frame_width": 2048,
    }


def test_maps_are_read_flat():
    model = small()
    spans = np.stack([np.arange(4), np.arange(4) + 1], axis=1) / 5
    maps = np.arange(16, dtype=np.float16).reshape(4, 2, 1, 2)
    assert model.settings_for(model.config, {"frames": (2, 1, 2)})["frame_width"] == 4
    found = model.prepare(model.config, {"frames": Features(maps, spans)})
    assert found["video"][-4:, :4].tolist() == maps.reshape(4, 4).tolist()
    nothing = model.prepare(model.config, {"frames": Features(maps, spans)}, (5.0, 6.0))
    assert nothing["video_len"] == 0
    assert not nothing["video"].any()


def test_changes_stand_between_frames_and_sound_and_forget_where_it_is():
    model = small(changes=True)
    spans = np.stack([np.arange(5), np.arange(5) + 1], axis=1) / 5
    rng = np.random.default_rng(0)
    place = rng.standard_normal(5)
    figure = np.zeros((5, 5))
    figure[3] = [0, 0, 2, 0, -1]
    sound = Features(np.ones((1, 3), np.float32), np.array([[0.0, 1.0]]))
    frames = Features((place + figure).astype(np.float32), spans)
    video = model.prepare(model.config, {"frames": frames, "sound": sound})["video"]
    assert video.shape == (13, 5 + 5 + 3)
    assert np.array_equal(video[-5:, :5], frames.rows)
    np.testing.assert_allclose(video[-5:, 5:10], figure, atol=1e-6)
    assert bool((video[-5:, 10:] == 1).all())
    nothing = model.prepare(model.config, {"frames": frames, "sound": sound}, (5.0, 6.0))
    assert nothing["video_len"] == 0
    assert not nothing["video"].any()
    with torch.inference_mode():
        score = model(**material() | {"video": torch.rand(3, 13, 13)})["score"]
    assert score.shape == (3, 3)
    assert score.isfinite().all()


def test_losses_by_hand():
    scores = torch.tensor([[20.0, 12.0, 0.0], [3.0, 1.0, -20.0], [0.0, 0.0, 0.0]])
    # Row 0: 10 + 2 + 0; row 1: 12 + 10 + 0; row 2: 10 + 10 + 10.
    assert retrieval_loss(scores) == pytest.approx(64 / 3)
    assert retrieval_loss(scores, per="pair") == pytest.approx(64 / 9)
    is_other = torch.ones(3, 3, dtype=torch.bool)
    is_other[1, 0] = False
    assert retrieval_loss(scores, is_other=is_other) == pytest.approx(52 / 3)
    assert choice_loss(scores, torch.tensor([0, 1, 2])) == pytest.approx(64 / 3)
    assert choice_loss(scores[:1], torch.tensor([1])) == pytest.approx(18 + 10)
