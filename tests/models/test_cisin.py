"""CiSIN: the formulas' numbers, the public code's order of work, the sheet of traps, losses."""

import golden_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_cisin import plain_cisin, published_state

from vlpipe.models import create_model, load_published
from vlpipe.models.layers.body_vectors import BodyVectors
from vlpipe.models.layers.identity_losses import (
    gender_loss,
    grounding_loss,
    token_loss,
    track_loss,
)
from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError

SMALL = {"text_width": 6, "hidden": 10, "face_width": 7, "motion_width": 9}


def small(seed=0, **settings):
    torch.manual_seed(seed)
    return create_model("cisin", task="reid", **SMALL | settings).eval()


def material(num_sets=1, seed=1):
    """Five tokens and six tracks a set; token 4 lies in a clip without tracks."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(num_sets, *shape, generator=random)

    inputs = {
        "someone": draw(5, 6), "action": draw(5, 6), "face": F.normalize(draw(6, 7), dim=-1),
        "motion": draw(6, 9), "meta": draw(6, 4).sigmoid(),
        "parts": F.normalize(draw(6, 3, 5), dim=-1), "visible": draw(6, 3) > 0,
        "token_clip": torch.tensor([[0, 0, 1, 2, 4]]).repeat(num_sets, 1),
        "track_clip": torch.tensor([[0, 0, 1, 2, 2, 3]]).repeat(num_sets, 1),
    }  # fmt: skip
    inputs["face"][:, 2] = 0
    inputs["visible"][:, 3] = False
    return inputs


def test_formulas():
    model = load_published(create_model("cisin", task="reid"), golden_cases.state("cisin_graphs"))
    drawn = {k: torch.from_numpy(v)[None] for k, v in golden_cases.inputs("cisin_graphs").items()}
    drawn |= {name: 0.3 * drawn[name] for name in ("someone", "action", "motion")}
    drawn["face"] = 0.4 * F.normalize(drawn["face"], dim=-1)
    drawn["parts"] = F.normalize(drawn["parts"], dim=-1)
    drawn["visible"][:, 6] = 0
    clips = {
        "token_clip": torch.tensor([[0, 0, 1, 2, 3, 4]]),
        "track_clip": torch.tensor([[0, 0, 1, 2, 3, 3, 4]]),
    }
    with torch.inference_mode():
        found = model.eval()(**drawn, **clips)
        printed = create_model("cisin", task="reid", same_clip_prior=False).eval()
        printed = load_published(printed, golden_cases.state("cisin_graphs"))(**drawn, **clips)
    wanted = golden_cases.outputs("cisin_graphs")
    for name, value in wanted.items():
        assert golden_cases.relative_error(found[name][0].numpy(), value) < 1e-4, name
    assert golden_cases.relative_error(printed["C"][0].numpy(), wanted["C_hard"]) < 1e-4
    assert golden_cases.relative_error(found["C"][0].numpy(), wanted["C_hard"]) > 1e-3


def test_public_variant_does_as_that_code():
    state = published_state()
    model = load_published(small(variant="public"), state)
    inputs = material()
    with torch.inference_mode():
        found = model(**inputs)
    one = {name: value[0] for name, value in inputs.items()}
    ground, vid, said, same, gender = plain_cisin(state, **one)
    for name, wanted in {"G": ground, "V": vid, "L": said, "C": same, "gender": gender}.items():
        torch.testing.assert_close(found[name][0], wanted, atol=1e-5, rtol=1e-4, msg=name)


def test_encoders_that_are_not_there_are_left_out_and_others_missed():
    state = published_state() | {"bert.pooler.dense.bias": torch.zeros(6)}
    load_published(small(variant="public"), state)
    kept = {k: v for k, v in state.items() if not k.startswith("fuse_fc")}
    with pytest.raises(UsageError, match=r"CiSIN \(public\).*missing: ground\.score"):
        load_published(small(variant="public"), kept)
    with pytest.raises(UsageError, match=r"unexpected: other\.weight"):
        load_published(small(variant="public"), state | {"other.weight": torch.zeros(1)})
    model, other = small(), small(seed=4)
    load_published(other, model.published_state())
    assert torch.equal(other.ground.face.fc1.weight, model.ground.face.fc1.weight)


@pytest.mark.parametrize("variant", ["thesis", "public"])
def test_padding_and_company_in_a_batch_change_nothing(variant):
    model, inputs = small(variant=variant), material(2)
    one = {name: value[:1] for name, value in inputs.items()}
    one["token_clip"], one["track_clip"] = one["token_clip"][:, :4], one["track_clip"][:, :5]
    one |= {name: one[name][:, :4] for name in ("someone", "action")}
    for name in ("face", "motion", "meta", "parts", "visible"):
        one[name] = one[name][:, :5]
    inputs["token_clip"][0, 4] = inputs["track_clip"][0, 5] = -1
    with torch.inference_mode():
        wanted, found = model(**one), model(**inputs)
    sizes = {"G": (4, 5), "P": (4, 5), "V": (5, 5), "C": (4, 4), "R": (4, 4), "gender": (4,)}
    for name, size in sizes.items():
        cut = found[name][0][tuple(slice(n) for n in size)]
        torch.testing.assert_close(cut, wanted[name][0], msg=name)
        assert found[name][0].abs().sum() == pytest.approx(float(cut.abs().sum()), rel=1e-5), name


def test_what_is_absent_has_the_score_of_the_bias_and_no_infinity():
    with torch.inference_mode():
        found = small()(**material())
    assert found["f"][0, 2].tolist() == pytest.approx([-0.5] * 6)
    assert found["q"][0, 3].tolist() == pytest.approx([-0.5] * 6)
    assert torch.isfinite(found["G"]).all()
    assert found["P"][0].sum(dim=1).tolist() == [1, 1, 1, 1, 0]
    assert found["R"][0, 4].tolist() == [0.5] * 5


def test_the_prior_makes_two_tokens_of_a_clip_others():
    with torch.inference_mode():
        found = small()(**material())
    below = 1 / (1 + np.exp(0.1))
    assert found["R"][0, 0, :2].tolist() == pytest.approx([below, below])
    assert found["R"].diagonal(dim1=1, dim2=2)[0, :4].tolist() == pytest.approx([below] * 4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"variant": "public"},
        {"motion": False},
        {"box": False},
        {"parts": False},
        {"gender": False},
        {"text_graph": False},
        {"grounding_graph": False},
        {"plus_text": True},
        {"same_clip_prior": False},
    ],
    ids=str,
)
def test_every_switch_learns_by_all_its_weights(settings):
    model, inputs = small(**settings, dropout=0.0).train(), material(2)
    outputs = model(**inputs)
    is_right = torch.zeros(2, 5, 6, dtype=torch.bool)
    is_right[:, [0, 1, 2, 3], [0, 1, 2, 3]] = True
    is_token, is_track = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 6, dtype=torch.bool)
    is_own = inputs["token_clip"][:, :, None] == inputs["track_clip"][:, None]
    person = torch.tensor([0, 1, 0, 1, 2, 0])
    token = torch.tensor([0, 1, 0, 1, 0])
    loss = grounding_loss(outputs["G"], is_right, is_own, is_token)
    same_person = (person == person[:, None]).expand(2, -1, -1)
    kind = "cross_entropy" if model.config.variant == "public" else "triplets"
    loss = loss + track_loss(outputs["V"], same_person, is_track, kind=kind)
    loss = loss + token_loss(outputs["C"], (token == token[:, None]).expand(2, -1, -1), is_token)
    if model.config.gender:
        loss = loss + gender_loss(outputs["gender"], token.expand(2, -1), is_token)
    loss.backward()
    idle = {
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0
    }
    allowed = {"video.face_scale.bias", "video.part_scale.bias"}  # differences cancel them
    if not model.config.text_graph:
        allowed |= {f"text.pair.fc{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")}
    assert idle <= allowed


def test_apart_what_tokens_learn_stays_with_the_text():
    for is_joint in (True, False):
        model = small(is_joint=is_joint, dropout=0.0).train()
        outputs = model(**material())
        outputs["C"].sum().backward()
        assert (model.ground.face.fc1.weight.grad is not None) == is_joint
        assert (model.video.face.fc1.weight.grad is not None) == is_joint
        assert model.text["pair"].fc1.weight.grad is not None


def test_wrong_settings_and_missing_tensors_are_named():
    with pytest.raises(UsageError, match="nothing makes C"):
        small(text_graph=False, grounding_graph=False)
    for name, said in (("motion", "motion=False"), ("parts", "parts=False"), ("action", "text=")):
        inputs = material()
        del inputs[name]
        with pytest.raises(TypeError, match=said):
            small()(**inputs)


def test_a_small_bert_reads_word_pieces():
    model = small(text="small", vocabulary_size=30)
    inputs = material(2)
    given = {k: v for k, v in inputs.items() if k not in ("someone", "action")}
    text = {
        "pieces": torch.randint(5, 30, (2, 11)),
        "pieces_length": torch.tensor([11, 7]),
        "someone_at": torch.tensor([[1, 3, 5, 6, 2]] * 2),
        "action_at": torch.tensor([[2, 4, 6, 6, 3]] * 2),
    }
    with torch.inference_mode():
        wanted = model(**given, **text)
        text["pieces"][1, 7:] = 0
        found = model(**given, **text)
    torch.testing.assert_close(found["C"], wanted["C"])
    assert wanted["gender"].shape == (2, 5)
    assert "bert.encoder.layer.3.output.dense.weight" in model.published_state()
    with pytest.raises(TypeError, match="give pieces"):
        model(**given)


def test_body_vectors_stand_at_the_key_points():
    torch.manual_seed(0)
    body = BodyVectors().eval()
    images = torch.rand(1, 3, 224, 224)
    points = torch.full((1, 17, 2), 0.5)
    points[0, 1] = torch.tensor([1.0, 0.0])  # x right, y top
    with torch.inference_mode():
        found = body(images, points)
        cells = body.body(images).view(2048, 7, 7)
    torch.testing.assert_close(found[0, 1], F.normalize(cells[:, 0, 6], dim=0))
    torch.testing.assert_close(found[0, 0], F.normalize(cells[:, 3, 3], dim=0))


def clip_features():
    """Three tracks; the ids of their boxes have a gap."""
    spans = np.array([[0.0, 1.0], [0.0, 2.0], [1.0, 2.0]])
    meta = np.array([[0.1, 0.1, 0.1, 0.2], [0.2, 0.2, 0.2, 0.9], [0.3, 0.3, 0.3, 0.5]])
    box_spans = np.array([[0.0, 0.5], [0.0, 0.5], [0.5, 1.0], [1.5, 2.0]])
    return {
        "meta": Features(meta.astype(np.float32), spans),
        "face": Features(np.arange(21, dtype=np.float16).reshape(3, 7), spans),
        "face_count": Features(np.array([3, 0, 1], np.int32), spans),
        "boxes": Features(np.arange(16, dtype=np.float32).reshape(4, 4), box_spans),
        "box_track": Features(np.array([0, 2, 2, 5], np.int32), box_spans),
        "box_frame": Features(np.array([0, 0, 1, 3], np.int32), box_spans),
    }


def test_tracks_of_a_clip_come_by_length_with_their_boxes():
    features, model = clip_features(), small(motion=False, parts=False)
    clip = model.prepare(model.config, features)
    assert clip["track_row"].tolist() == [1, 2, 0]
    assert clip["has_face"].tolist() == [False, True, True]
    assert clip["face"][:, 0].tolist() == [7, 14, 0]
    assert clip["box_track"].tolist() == [2, 0, 0, 1]
    early = model.prepare(model.config, features, (0.0, 0.5))
    assert early["track_row"].tolist() == [1, 0]
    assert early["box_track"].tolist() == [1, 0, 0]
    assert early["box_frame"].tolist() == [0, 0, 1]
    none = {name: Features(f.rows[:0], f.spans[:0]) for name, f in features.items()}
    assert model.prepare(model.config, none)["face"].shape == (0, 7)
    without = {k: v for k, v in features.items() if not k.startswith("box")}
    assert "boxes" not in model.prepare(model.config, without)
    shapes = {"face": (512,), "face_count": (), "meta": (4,)}
    assert model.settings_for(model.config, shapes) == {
        "face_width": 512,
        "motion": False,
        "parts": False,
    }


def test_entries_of_bert_alone_find_their_place():
    cls = type(small())
    place = "encoder.bert.embeddings.LayerNorm.weight"
    for key in ("bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.gamma", place):
        assert cls.own_entry(key) == place
    assert cls.own_entry("s_s_proj.0.weight") == "ground.text_face.fc1.weight"
    assert cls.own_entry("body.conv1.weight") == "body.body.conv1.weight"


def test_normalised_inputs_are_of_real_tracks_alone():
    model, inputs = small(normalise_inputs=True, dropout=0.0).train(), material()
    inputs["track_clip"][0, 5] = -1
    model(**inputs)
    kept = model.norms["meta"].norm.running_mean
    torch.testing.assert_close(kept, 0.1 * inputs["meta"][0, :5].mean(dim=0))
    faces = inputs["face"][0, [0, 1, 3, 4]]  # of track 2 no face is seen
    torch.testing.assert_close(model.norms["face"].norm.running_mean, 0.1 * faces.mean(dim=0))


def test_grounding_loss_by_hand():
    scores = torch.tensor([[[2.0, 1.0, 0.0], [0.5, 4.0, 0.0], [0.0, 0.0, 7.0]]])
    is_own = torch.tensor([[[True, True, False], [True, True, False], [False, False, True]]])
    is_right = torch.eye(3, dtype=torch.bool)[None]
    # By token: 3 - 2 + 1, 3 - 4 + 0.5 below 0, and no wrong track for the third: 2 / 3.
    # By track: 3 - 2 + 0.5, 3 - 4 + 1 below 0, 3 - 7 + 0 below 0: 1.5 / 3.
    found = grounding_loss(scores, is_right, is_own, torch.ones(1, 3, dtype=torch.bool))
    assert found == pytest.approx(2 / 3 + 0.5)
    nothing = grounding_loss(scores, is_right & False, is_own, torch.ones(1, 3, dtype=torch.bool))
    assert nothing == 0


def test_identity_losses_by_hand():
    known = torch.tensor([[True, True, True, False]])
    same = torch.tensor([[[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]]]).bool()
    v = torch.tensor([[[9.0, 1, 0, 9], [1, 9, 3, 9], [0, 3, 9, 9], [9, 9, 9, 9]]])
    # Anchors 0 and 1 have a positive and a negative: 2 - 1 + 0 and 2 - 1 + 3.
    assert track_loss(v, same, known, kind="triplets") == pytest.approx((1 + 4) / 2)
    terms = [np.log1p(np.exp(-1)), np.log1p(np.exp(0)), np.log1p(np.exp(3))]
    found = track_loss(v, same, known, kind="cross_entropy")
    assert found == pytest.approx(sum(terms) / 3, rel=1e-5)
    c = torch.full((1, 4, 4), 0.5)
    assert token_loss(c, same, known) == pytest.approx(np.log(2), rel=1e-5)
    assert token_loss(c, same, known & False) == 0
    gender = torch.tensor([[0.25, 0.5, 0.9, 0.0]])
    female = torch.tensor([[True, False, True, True]])
    only = torch.tensor([[True, False, False, False]])
    assert gender_loss(gender, female, only) == pytest.approx(np.log(4), rel=1e-5)
