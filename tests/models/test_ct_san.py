"""CT-SAN: the formulas of its detector, attention and pooling, its settings and layouts."""

import golden_cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlpipe.models import create_model
from vlpipe.models.concept_words import concept_words
from vlpipe.models.layers.bilinear_pooling import CompactBilinearPooling
from vlpipe.models.layers.concept_detector import ConceptDetector, concept_targets
from vlpipe.models.layers.normed_lstm import Lstm, LstmState
from vlpipe.models.layers.semantic_attention import (
    InputAttention,
    OutputAttention,
    attention_penalty,
)
from vlpipe.models.pair_scores import score_all_pairs
from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError

# 5 channels on 5 x 3 cells (3 x 2 after pooling), 9 frames, 8 words of 6 numbers.
SMALL = {
    "vocabulary_size": 20, "num_answers": 7, "channels": 5, "grid": (5, 3), "max_frames": 9,
    "word_width": 6, "hidden": 4, "concepts": 3, "concept_ids": tuple(range(4, 14)),
    "pooled_width": 16, "maxout_width": 5,
}  # fmt: skip
TASKS = ("description", "fib", "mc", "retrieval")


def small(task="retrieval", seed=0, **changes):
    torch.manual_seed(seed)
    return create_model("ct-san", task=task, **SMALL | changes).eval()


def material(task="retrieval", num_videos=3, seed=1):
    random = torch.Generator().manual_seed(seed)
    found = {
        "video": torch.rand(num_videos, 9, 5, 3, 5, generator=random),
        "video_len": torch.tensor([9, 4, 1, 7])[:num_videos],
    }
    shape = (num_videos, 4, 8) if task == "mc" else (num_videos, 8)
    ids = torch.randint(4, 20, shape, generator=random)
    if task == "description":
        caption = torch.cat([torch.full((num_videos, 1), 2), ids], dim=1)
        caption[1, 5:] = 1
        caption[1, 4] = 3
        return found | {"caption": caption}
    length = torch.randint(1, 9, shape[:-1], generator=random)
    if task == "fib":
        ids[:, 0] = 1
        return found | {"question": ids, "question_length": length}
    return found | {"words": ids, "word_len": length}


def test_the_detector_follows_the_formulas():
    state = {
        key.removeprefix("concept."): torch.from_numpy(value)
        for key, value in golden_cases.state("ctsan_concept").items()
    }
    detector = ConceptDetector(2048, 500, 30, 16, "thesis").eval()
    detector.load_state_dict(state)
    inputs = golden_cases.inputs("ctsan_concept")
    video = torch.from_numpy(inputs["res5c"])
    is_real = torch.ones(2, 6, dtype=torch.bool)
    is_real[1, :2] = False  # padding in front
    video[1, :2] = 0
    with torch.inference_mode():
        found = detector(detector.reduced(video), is_real)
    wanted = golden_cases.outputs("ctsan_concept")
    np.testing.assert_allclose(found.logits.sigmoid(), wanted["p"], rtol=1e-4)
    np.testing.assert_allclose(found.maps, wanted["maps"], rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found.logits.topk(10).indices, wanted["top10"])
    targets = torch.from_numpy(inputs["concept_target"]).float()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        found.logits, targets, reduction="none"
    ).mean(dim=1)
    np.testing.assert_allclose(losses, wanted["loss"], rtol=1e-4)


def test_traces_differ_though_they_share_their_weights():
    torch.manual_seed(0)
    for kind in ("thesis", "public"):
        detector = ConceptDetector(5, 32, 7, 4, kind).eval()
        maps = detector(detector.reduced(torch.rand(1, 3, 4, 4, 5)), torch.ones(1, 3) > 0).maps
        first = maps[0, 0].flatten(1)
        assert first.equal(torch.eye(4))
        assert torch.allclose(maps.sum(dim=(-2, -1)), torch.ones(1, 3, 4))
        later = maps[0, 2].flatten(1)
        assert all((later[0] - other).abs().max() > 1e-6 for other in later[1:])


def test_the_public_detector_reads_padding_in_front_and_the_thesis_not():
    torch.manual_seed(0)
    video = torch.rand(1, 3, 4, 4, 5)
    padded = torch.cat([torch.zeros(1, 2, 4, 4, 5), video], dim=1)
    real = torch.tensor([[False, False, True, True, True]])
    for kind, is_same in (("thesis", True), ("public", False)):
        detector = ConceptDetector(5, 4, 7, 4, kind).eval()
        alone = detector(detector.reduced(video), torch.ones(1, 3) > 0)
        behind = detector(detector.reduced(padded), real)
        assert torch.allclose(alone.logits, behind.logits, atol=1e-6) == is_same
        assert not behind.maps[0, :2].any()
        assert behind.maps[0, 2].flatten(1).equal(torch.eye(4))  # it begins anew


def test_semantic_attention_by_hand():
    torch.manual_seed(0)
    words, concepts = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    attend = InputAttention(4, 6)
    attend.bias.data.fill_(3.0)
    x, gamma = attend(words, concepts)
    out = OutputAttention(4, 6)
    p, beta = out(x, concepts)
    for b in range(2):
        for m in range(3):
            scores = torch.stack([words[b, m] @ attend.weight @ a for a in concepts[b]])
            shares = scores.softmax(dim=0)
            added = attend.gate.weight * (shares[:, None] * concepts[b]).sum(dim=0)
            own = attend.proj.weight @ (words[b, m] + added)
            torch.testing.assert_close(gamma[b, m], shares)
            torch.testing.assert_close(x[b, m], own)
            turned = torch.stack([out.weight @ a.tanh() for a in concepts[b]])
            shares = (turned @ own).softmax(dim=0)
            torch.testing.assert_close(beta[b, m], shares)
            read = (shares[:, None] * turned).sum(dim=0)
            torch.testing.assert_close(p[b, m], own + out.gate.weight * read)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_penalty_counts_real_words_alone_and_has_a_slope_at_zero(num_words, num_concepts, seed):
    shares = np.random.default_rng(seed).dirichlet(np.ones(num_concepts), num_words)
    given_shares = torch.zeros(1, 6, num_concepts)
    given_shares[0, :num_words] = torch.from_numpy(shares)
    given_shares[0, num_words:] = 7.0
    given_shares.requires_grad_()
    is_real = torch.arange(6)[None] < num_words
    found = attention_penalty(given_shares, is_real)
    wanted = np.sqrt((shares.sum(axis=0) ** 2).sum()) + (np.sqrt(shares).sum(axis=1) ** 2).sum()
    assert found.item() == pytest.approx(wanted, rel=1e-3)
    at_zero = torch.zeros(1, 2, 3, requires_grad=True)
    attention_penalty(at_zero, torch.ones(1, 2) > 0).sum().backward()
    assert torch.isfinite(at_zero.grad).all()


def test_pooling_keeps_products_of_vectors():
    """The sketch of two vectors has nearly the inner products of their outer products."""
    torch.manual_seed(0)
    pool = CompactBilinearPooling(8, 4000, is_normalised=False)
    x, y = torch.randn(2, 40, 8)
    found = pool(x, y)
    wanted = (x @ x.T) * (y @ y.T)
    assert torch.corrcoef(torch.stack([(found @ found.T).flatten(), wanted.flatten()]))[0, 1] > 0.95
    plain = torch.zeros(40, 4000)
    for i in range(8):
        for j in range(8):
            place = (pool.hash1[i] + pool.hash2[j]) % 4000
            plain[:, place] += pool.sign1[i] * pool.sign2[j] * x[:, i] * y[:, j]
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)
    again = CompactBilinearPooling(8, 4000)
    assert again.hash1.equal(pool.hash1)  # the same in every process
    half = again(x.half(), y.half())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.norm(dim=1), torch.ones(40))
    zero = torch.zeros(1, 8, requires_grad=True)
    again(zero, zero).sum().backward()
    assert torch.isfinite(zero.grad).all()


@pytest.mark.parametrize("is_bidirectional", [False, True])
@pytest.mark.parametrize("has_norms", [False, True])
def test_lstms_read_sequences_of_any_length_alike(has_norms, is_bidirectional):
    torch.manual_seed(0)
    lstm = Lstm(3, 4, num_layers=2, is_bidirectional=is_bidirectional, has_norms=has_norms).eval()
    rows, length = torch.randn(3, 6, 3), torch.tensor([6, 2, 4])
    start = LstmState(*torch.randn(2, 2, 3, 4))
    assert LstmState.of_flat(start.flat(), 2).hidden.equal(start.hidden)
    seen, end = lstm.run(rows, length, start)
    for place, count in enumerate(length.tolist()):
        one = slice(place, place + 1)
        first = LstmState(start.hidden[:, one], start.cell[:, one])
        alone, alone_end = lstm.run(rows[one, :count], length[one], first)
        torch.testing.assert_close(seen[one, :count], alone)
        torch.testing.assert_close(end.last[one], alone_end.last)
        assert not seen[place, count:].any()
    if not has_norms and not is_bidirectional:
        torch.testing.assert_close(
            lstm(rows[:1], (start.hidden[:, :1], start.cell[:, :1]))[0], seen[:1]
        )


def test_norms_that_change_nothing_leave_a_plain_lstm():
    """A layer norm of numbers whose mean is 0 and deviation 1 is the identity."""
    torch.manual_seed(0)
    normed, plain = Lstm(3, 4, has_norms=True), Lstm(3, 4)
    plain.load_state_dict({k: v for k, v in normed.state_dict().items() if "norms" not in k})
    for layer in normed.norms.values():
        layer.forward = lambda x: x
    rows, length = torch.randn(2, 5, 3), torch.tensor([5, 3])
    for found, wanted in zip(normed.run(rows, length), plain.run(rows, length), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("detector", ["thesis", "public"])
def test_padding_and_company_change_nothing(task, detector):
    # Roots of products near zero would make their rounding a thousand times as large.
    model = small(task, detector=detector, normalise_pooled=False)
    inputs = material(task)
    with torch.inference_mode():
        whole = model(**inputs)
        for place in range(3):
            one = slice(place, place + 1)
            alone = model(**{name: tensor[one] for name, tensor in inputs.items()})
            for name in ("logits", "p", "maps"):
                if name in whole:
                    torch.testing.assert_close(whole[name][one], alone[name], atol=1e-5, rtol=1e-4)
            if task == "retrieval":
                score = whole["score"][place, place]
                torch.testing.assert_close(score, alone["score"][0, 0], atol=1e-5, rtol=1e-4)
        changed = {name: tensor.clone() for name, tensor in inputs.items()}
        changed["video"][1, :5] = 9.0  # padding
        if task != "description":
            words, length = (
                ("question", "question_length") if task == "fib" else ("words", "word_len")
            )
            is_padding = torch.arange(8) >= changed[length][..., None]
            changed[words][is_padding] = 15
        for name, value in model(**changed).items():
            torch.testing.assert_close(value, whole[name])


def test_pairs_are_scored_as_in_a_batch():
    model = small()
    inputs = material()
    with torch.inference_mode():
        whole = model(**inputs)["score"]
        videos = model.encode_video(inputs["video"], inputs["video_len"])
        sentences = model.encode_words(inputs["words"], inputs["word_len"])
        found = score_all_pairs(model, videos, sentences, cells_at_once=50)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-4)
    with pytest.raises(TypeError, match="no scores of pairs"):
        small("fib").score_pairs(videos, sentences)


@pytest.mark.parametrize("changes", [{}, {"layers": 1, "layer_norm": False}, {"concepts": 0}])
def test_written_words_are_the_likeliest_after_those_before(changes):
    model = small("description", **changes)
    inputs = material("description")
    video = {name: inputs[name] for name in ("video", "video_len")}
    ids = model.write_captions(**video, max_words=5)
    with torch.inference_mode():
        logits = model(**video, caption=torch.cat([ids, ids[:, :1]], dim=1))["logits"]
    for row, told in zip(ids, logits.argmax(dim=-1), strict=True):
        end = (row == 3).nonzero()
        stop = int(end[0]) if len(end) else len(row) - 1
        assert row[1 : stop + 1].tolist() == told[:stop].tolist()
    beams = model.write_captions(**video, max_words=5, beams=1 + 2)
    assert beams.shape[0] == 3


def test_ablations_have_the_parts_that_they_say():
    def names(**changes):
        return set(small("fib", **changes).state_dict())

    base = names(concepts=0)
    assert not any(key.startswith(("att_in.w", "att_out", "concept.out")) for key in base)
    assert "att_in.proj.weight" in base
    assert "att_out.weight" not in names(output_attention=False)
    assert "att_in.weight" not in names(input_attention=False)
    assert "concept.out.bias" in names(detector="thesis")
    assert "concept.out.bias" not in names()
    assert "out_bn.running_mean" in names(variant="public", word_width=4)
    with pytest.raises(UsageError, match="word_width is 6, hidden 4"):
        small(variant="public")
    with pytest.raises(UsageError, match="names word 13 of 12"):
        small(vocabulary_size=12)


def test_detection_learns_from_the_words_of_the_right_sentence():
    model = small("fib").train()
    inputs = material("fib")
    outputs = model(**inputs)
    sentence = torch.tensor([[4, 5, 0], [0, 0, 0], [13, 13, 2]])
    targets = concept_targets(sentence, model.concept_ids)
    assert targets.nonzero().tolist() == [[0, 0], [0, 1], [2, 9]]
    loss = model.auxiliary_loss(outputs, {"sentence": sentence})
    wanted = torch.nn.functional.binary_cross_entropy(outputs["p"], targets)
    torch.testing.assert_close(loss, wanted + 0.01 * outputs["penalty"])
    loss.backward()
    assert model.concept.trace_rnn.weight_hh_l0.grad.abs().sum() > 0
    base = small("fib", concepts=0).train()
    assert base.auxiliary_loss(base(**inputs), {"sentence": sentence}) is None


def test_the_words_that_can_be_concepts(tmp_path):
    words = ("#START#", "UNK", "the", "dog", "runs", "quickly", "cat", "2", "jumps")
    told = [text.split() for text in ("the dog runs", "the dog dog jumps quickly", "a cat runs 2")]
    assert concept_words(told, words, 10) == (3, 4, 6, 8)
    assert concept_words(told, words, 2) == (3, 4)
    path = tmp_path / "concepts.txt"
    path.write_text("Cat\nquickly\nabsent\ncat\n")
    assert concept_words(told, words, 10, path) == (6, 5)
    with pytest.raises(UsageError, match="cannot be read"):
        concept_words(told, words, 10, tmp_path / "absent")
    with pytest.raises(UsageError, match="no word of the training sentences"):
        concept_words([["the"]], words, 10)


def test_frames_are_chosen_and_stand_at_the_end():
    model, config = type(small()), small().config
    rows = np.arange(20 * 75, dtype=np.float16).reshape(20, 5, 5, 3)
    spans = np.stack([np.arange(20.0), np.arange(1.0, 21.0)], axis=1)
    found = model.prepare(config, {"frames": Features(rows, spans)})
    assert found["video_len"] == 9
    assert found["video"].dtype == torch.float16
    np.testing.assert_array_equal(found["video"][1].permute(2, 0, 1), rows[2])
    few = model.prepare(config, {"frames": Features(rows[:2], spans[:2])})
    assert few["video_len"] == 2
    assert not few["video"][:7].any()
    shown = model.row_spans(config, {"frames": Features(rows[:2], spans[:2])})
    assert shown[-2:].tolist() == [[0, 1], [1, 2]]
    assert not shown[:7].any()
    assert model.settings_for(config, {"frames": (64,)}) == {"channels": 64, "grid": (1, 1)}


def tensorflow_state(task):
    """The variables of the public code, for 12 words and 9 concepts, 4 numbers wide."""
    d = 4
    shapes = {
        "word_embed": (12, d),
        "video_rnn/basic_lstm_cell/kernel": (5 + d, 4 * d),
        "video_rnn/basic_lstm_cell/bias": (4 * d,),
        "attr_video_embedding/kernel": (3, 3, 5, d),
        "attr_rnn/basic_lstm_cell/weights": (2 * d, 4 * d),
        "attr_rnn/basic_lstm_cell/biases": (4 * d,),
        "attr_rnn/conv1/kernel": (3, 3, d, d),
        "attr_rnn/conv1/bias": (d,),
        "attr_rnn/conv2/kernel": (3, 3, d, 1),
        "attr_rnn/conv2/bias": (1,),
        "attr_logit/K": (3, 2, d, 9),
    }
    if task == "description":
        shapes |= {
            "caption_rnn/input_W": (d, d), "caption_rnn/input_b": (),
            "caption_rnn/input_w_1": (1, d),
            "caption_rnn/basic_lstm_cell/kernel": (2 * d, 4 * d),
            "caption_rnn/basic_lstm_cell/bias": (4 * d,),
            "caption_rnn/output_W": (d, d), "caption_rnn/output_b": (),
            "caption_rnn/output_w_1": (1, d),
            "caption_rnn/weights": (d, 12), "caption_rnn/biases": (12,),
        }  # fmt: skip
    else:
        shapes |= {
            "attended_input/input_W": (d, d), "attended_input/input_b": (),
            "attended_input/input_w": (1, d),
            **{
                f"fib_rnn/bidirectional_rnn/{side}/basic_lstm_cell/{part}": shape
                for side in ("fw", "bw")
                for part, shape in (("kernel", (2 * d, 4 * d)), ("bias", (4 * d,)))
            },
            "affine/weights": (2 * d, d), "affine/biases": (d,),
            "attended_output/output_W": (d, d), "attended_output/output_b": (),
            "attended_output/output_w": (1, d),
            **{f"BatchNorm/{n}": (d,) for n in ("beta", "gamma", "moving_mean", "moving_variance")},
            "attended_output/weights": (d, 12), "attended_output/biases": (12,),
        }  # fmt: skip
    random = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=random) for name, shape in shapes.items()}


@pytest.mark.parametrize("task", ["description", "fib"])
def test_public_variables_are_read(task):
    theirs = tensorflow_state(task)
    public = {"variant": "public", "word_width": 4}
    model = small(task, **public)
    model.load_published({f"module.{key}": value for key, value in theirs.items()})
    own = model.state_dict()
    assert own["word_embed.weight"].equal(theirs["word_embed"])
    assert model.concept.out.weight.shape == (9, 6 * 4)
    # Trace 3 stands at row 1, column 1 of three rows and two columns.
    torch.testing.assert_close(
        own["concept.out.weight"][:, 3 * 4 : 4 * 4].T, theirs["attr_logit/K"][1, 1]
    )
    conv = theirs["attr_rnn/conv1/kernel"]
    assert own["concept.att_conv1.weight"][1, 2, 0, 1] == conv[0, 1, 2, 1]
    kernel, bias = (
        theirs[f"video_rnn/basic_lstm_cell/{part}"].chunk(4, dim=-1) for part in ("kernel", "bias")
    )
    torch.testing.assert_close(own["video_rnn.weight_ih_l0"][4:8], kernel[2][:5].T)  # forget
    torch.testing.assert_close(own["video_rnn.weight_hh_l0"][8:12], kernel[1][5:].T)  # cell
    torch.testing.assert_close(own["video_rnn.bias_ih_l0"][4:8], bias[2] + 1)
    assert "att_in.proj.weight" not in own
    inputs = material(task)
    tokens = "caption" if task == "description" else "question"
    inputs[tokens] = inputs[tokens].clamp_max(11)
    with torch.inference_mode():
        wanted = model(**inputs)
    assert wanted["logits"].shape[-1] == 12
    again = small(task, **public)
    again.load_published(model.published_state())
    with torch.inference_mode():
        torch.testing.assert_close(again(**inputs)["logits"], wanted["logits"])
    broken = dict(theirs)
    del broken["attr_rnn/conv2/bias"]
    with pytest.raises(UsageError, match=r"missing: concept\.att_conv2\.bias"):
        small(task, **public).load_published(broken)
