"""BMT against its published code, its decoding with and without caches, and its prepared rows."""

import golden_cases
import numpy as np
import pytest
import torch

from vlpipe.models import create_model, load_published
from vlpipe.models.caption_vocabulary import END, PADDING, START
from vlpipe.models.decoding import beam_captions, cut_captions
from vlpipe.models.proposals import evaluation_proposals, suppress, temporal_iou, video_proposals
from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError

TINY = {
    "vocabulary_size": 60, "audio_width": 12, "video_width": 20, "word_width": 16, "inner": 32,
    "head_width": 8, "audio_kernels": (3, 5), "video_kernels": (1, 3), "audio_rows": 0,
    "video_rows": 0, "audio_anchors_s": (1.0, 4.0), "video_anchors_s": (1.0, 2.0, 8.0),
    "audio_stride_s": 1.0, "video_stride_s": 2.0,
}  # fmt: skip
DURATION_S = 34.2
EVENTS = ((5.0, 4.0), (20.0, 12.5), (17.0, 33.0), (33.9, 0.8))  # centre, length


def tensors(case):
    return {name: torch.from_numpy(value) for name, value in golden_cases.inputs(case).items()}


@pytest.fixture(scope="module")
def captioner():
    model = create_model("bmt", task="captioning")
    load_published(model, golden_cases.state("bmt_captioner"))
    return model.eval()


@pytest.fixture(scope="module")
def captioner_inputs():
    given = tensors("bmt_captioner")
    given["rgb"][1, 8:], given["flow"][1, 8:], given["audio"][1, 21:] = 1, 0, 1
    caption = given["caption"]
    caption[:, 0], caption[0, 10], caption[1, 7], caption[1, 8:] = START, END, END, PADDING
    return given


def tiny(task="dense_captioning", **settings):
    torch.manual_seed(0)
    model = create_model("bmt", task=task, **(TINY | settings)).eval()
    if model.has_captioner:
        # Sharper than fresh weights, so that captions differ and end at different places.
        with torch.no_grad():
            model.words.weight.normal_()
            model.generator.weight.mul_(8)
    return model


def tiny_videos(count=5, audio_rows=9, video_rows=6):
    torch.manual_seed(1)
    return {
        "rgb": torch.randn(count, video_rows, 20),
        "flow": torch.randn(count, video_rows, 20),
        "audio": torch.randn(count, audio_rows, 12),
    }


def test_captioner_gives_the_published_numbers(captioner, captioner_inputs):
    wanted = golden_cases.outputs("bmt_captioner")
    with torch.no_grad():
        found = captioner(**captioner_inputs)
    logp, best = found["logp"], found["logp"].topk(5, dim=-1)
    for name, value in (
        ("logp_every16", logp[..., ::16]),
        ("top5_logp", best.values),
        ("Av", found["Av"]),
        ("Va_every8", found["Va"][..., ::8]),
        ("loss", found["loss"]),
    ):
        assert golden_cases.relative_error(value.numpy(), wanted[name]) < 1e-4, name
    assert int(found["n_tokens"]) == wanted["n_tokens"]
    assert (best.indices.numpy() == wanted["top5_ids"]).mean() > 0.99


def test_captioner_has_the_published_size_and_layout(captioner):
    assert sum(p.numel() for p in captioner.parameters()) == 53_546_452
    assert sum(p.numel() for p in captioner.parameters() if p.requires_grad) == 50_494_852
    state, wanted = captioner.published_state(), golden_cases.state("bmt_captioner")
    assert state.keys() == wanted.keys()
    assert all(np.array_equal(state[key], wanted[key]) for key in state)


def test_lengths_say_the_same_as_marked_rows(captioner, captioner_inputs):
    lengths = {"rgb_length": torch.tensor([12, 8]), "audio_length": torch.tensor([30, 21])}
    with torch.no_grad():
        marked = captioner(**captioner_inputs)["logp"]
        told = captioner(**captioner_inputs, **lengths)["logp"]
    torch.testing.assert_close(told, marked)


@pytest.mark.slow
def test_proposals_are_the_published_ones():
    wanted = golden_cases.outputs("bmt_proposals")
    model = create_model("bmt", task="proposals").eval()
    state = golden_cases.state("bmt_proposals")
    for key in state:
        if key.endswith(".conv_layers.6.weight"):
            state[key] *= 0.05
    load_published(model, state)
    assert sum(p.numel() for p in model.parameters()) == 248_150_432
    assert model.published_state().keys() == state.keys()
    given = {name.removesuffix("_prop"): x for name, x in tensors("bmt_proposals").items()}
    given["rgb"][:, 13:], given["flow"][:, 13:], given["audio"][:, 36:] = 1, 0, 1
    events = torch.tensor([[0.0, c - n / 2, c + n / 2] for c, n in EVENTS], dtype=torch.float64)
    with torch.no_grad():
        found = model(**given, events=events, duration_s=torch.tensor([DURATION_S]))
    names = ("losses_audio", "losses_video", "loss_total")
    for name in (*(n for n in wanted if n.startswith("raw_")), *names):
        assert golden_cases.relative_error(found[name].numpy(), wanted[name]) < 1e-4, name
    predictions = found["predictions"][0]
    error = golden_cases.relative_error(predictions[::16].numpy(), wanted["pred_every16"])
    assert error < 1e-4
    for name, proposals in (
        ("top100", evaluation_proposals(predictions, DURATION_S)),
        ("eval_nms", evaluation_proposals(predictions, DURATION_S, suppress_from=0.4)),
        ("single_video", video_proposals(predictions, DURATION_S, suppress_from=None)),
        ("single_video_nms", video_proposals(predictions, DURATION_S)),
    ):
        kept = wanted[name]
        if name == "top100":  # the reference drops short ones after this point
            kept = kept[kept[:, 1] - kept[:, 0] > 0.2]
        ours, theirs = (rows[np.lexsort(rows.T[:2])] for rows in (proposals.numpy(), kept))
        assert golden_cases.relative_error(ours, theirs) < 1e-4, name


def without_cache(model, videos, max_words):
    """The published order: everything is computed again for each word."""
    ids = torch.full((len(videos["rgb"]), 1), START)
    while ids.shape[1] <= max_words and not (ids == END).any(dim=1).all():
        # A last word is appended, which the forward pass leaves out of the prefix.
        logp = model(**videos, caption=torch.cat([ids, ids[:, :1]], dim=1))["logp"]
        ids = torch.cat([ids, logp[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    return ids


@torch.no_grad()
def test_greedy_ids_are_those_without_caches():
    model, videos = tiny("captioning"), tiny_videos(6)
    videos["rgb"][2, 4:], videos["flow"][2, 4:], videos["audio"][3, 5:] = 1, 0, 1
    liked = int(without_cache(model, videos, 2)[0, 1])
    for part in (model.generator.weight, model.generator.bias):
        part[PADDING] = part[liked] + 0.01  # what is written but never looked at
    plain = without_cache(model, videos, 20)
    assert (plain == PADDING).any()
    assert torch.equal(model.write_captions(**videos, max_words=20), plain)
    assert torch.equal(model(**videos)["ids"], without_cache(model, videos, 30))


@torch.no_grad()
def test_captions_stop_when_all_have_ended():
    model = tiny("captioning")
    model.generator.bias[END] += 1e3
    ids = model.write_captions(**tiny_videos(3))
    assert ids.tolist() == [[START, END]] * 3
    assert cut_captions(ids) == [[], [], []]


@torch.no_grad()
def test_one_beam_is_greedy_and_more_find_better_captions():
    model, videos = tiny("captioning"), tiny_videos(6)
    model.generator.bias[END] += 6
    streams = model._inputs(*videos.values(), None, None)
    memory = model._remember(model.encode(model._projected(streams)))
    greedy = cut_captions(model.write_captions(**videos, max_words=12))
    found = {}
    for beams in (1, 4):
        ids, scores = beam_captions(
            model, memory.select(torch.arange(6)), 6, beams=beams, max_words=12,
            device=torch.device("cpu"), length_power=0.0,
        )  # fmt: skip
        found[beams] = scores
        if beams == 1:
            assert cut_captions(ids) == greedy
        for item, (row, score) in enumerate(zip(ids, scores.tolist(), strict=True)):
            assert score == pytest.approx(log_share(model, videos, item, row), rel=1e-4)
    assert (found[4] >= found[1] - 1e-5).all()
    assert (found[4] > found[1] + 1e-3).any()


def log_share(model, videos, item, row):
    """The sum of the logarithms of the shares of a caption's words, computed at once."""
    one = {name: x[item : item + 1] for name, x in videos.items()}
    logp = model(**one, caption=row[None])["logp"][0]
    words = row[1:].tolist()
    words = words[: words.index(END) + 1] if END in words else words
    return sum(float(logp[place, word]) for place, word in enumerate(words))


@torch.no_grad()
def test_an_event_has_its_share_of_the_rows():
    model, videos = tiny(), tiny_videos(2, audio_rows=10, video_rows=5)
    events = torch.tensor([[1, 2.0, 6.0], [0, 10.0, 10.0], [0, 0.0, 10.0]], dtype=torch.float64)
    ids = torch.tensor([[START, 9, 8, END]] * 3)
    given = {"caption": ids, "events": events, "duration_s": torch.tensor([10.0, 10.0])}
    found = model(**videos, **given)["logp"]
    for place, (item, audio, video) in enumerate(
        [(1, slice(2, 6), slice(1, 3)), (0, slice(9, 10), slice(4, 5)), (0, slice(10), slice(5))]
    ):
        part = {
            "rgb": videos["rgb"][item : item + 1, video],
            "flow": videos["flow"][item : item + 1, video],
            "audio": videos["audio"][item : item + 1, audio],
        }
        torch.testing.assert_close(found[place], model(**part, caption=ids[:1])["logp"][0])


@torch.no_grad()
def test_heads_see_padding_as_the_published_ones_do():
    videos = tiny_videos(1)
    lengths = {"rgb_length": torch.tensor([4]), "audio_length": torch.tensor([9])}
    filled = tiny(audio_rows=12, video_rows=8)(**videos, **lengths)["predictions"]
    marked = {
        "rgb": torch.cat([videos["rgb"][:, :4], torch.ones(1, 4, 20)], dim=1),
        "flow": torch.cat([videos["flow"][:, :4], torch.zeros(1, 4, 20)], dim=1),
        "audio": torch.cat([videos["audio"], torch.ones(1, 3, 12)], dim=1),
    }
    torch.testing.assert_close(filled, tiny()(**marked)["predictions"])


@torch.no_grad()
def test_a_long_video_is_looked_at_in_windows():
    videos = tiny_videos(2, audio_rows=20, video_rows=10)
    steps = {"video_step_s": torch.tensor([2.0, 2.0]), "audio_step_s": torch.tensor([1.0, 1.0])}
    lengths = {"rgb_length": torch.tensor([10, 4]), "audio_length": torch.tensor([20, 8])}
    model = tiny(audio_rows=8, video_rows=4)
    found = model(**videos, **lengths, **steps)["predictions"]
    whole = 2 * 2 * 8 + 2 * 3 * 4  # heads x anchors x rows of sound, and of picture
    windows = found.unflatten(1, (-1, whole))  # windows of 8 s start at 0, 4, 8, 12 s
    assert windows.shape[1] == 4
    part = {n: x[:1, 4:12] if n == "audio" else x[:1, 2:6] for n, x in videos.items()}
    alone = model(**part)["predictions"]
    alone[..., 0] += 4.0
    best = alone[0].sort(dim=0, descending=True).values
    torch.testing.assert_close(windows[0, 1].sort(dim=0, descending=True).values, best)
    assert windows[1, 2:, :, 2].max() == 0  # the second video ended after 8 s
    assert windows[1, 0, :, 2].min() > 0


def test_training_lowers_the_loss_of_both_parts_or_of_the_heads_alone():
    videos = tiny_videos(2)
    given = {
        "caption": torch.tensor([[START, 9, 8, END], [START, 7, END, PADDING]]),
        "events": torch.tensor([[0, 1.0, 6.0], [1, 3.0, 12.0]], dtype=torch.float64),
        "duration_s": torch.tensor([12.0, 12.0]),
    }
    for trains_captioner in (True, False):
        model = tiny(train_captioner=trains_captioner).train()
        learning = [p for p in model.parameters() if p.requires_grad]
        before = {name: p.clone() for name, p in model.named_parameters()}
        adam = torch.optim.Adam(learning, lr=3e-3)
        losses = []
        for _ in range(12):
            found = model(**videos, **given)
            adam.zero_grad()
            found["loss"].backward()
            adam.step()
            losses.append(float(found["loss"].detach()))
        assert losses[-1] < losses[0]
        changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert any(name.startswith("events_video.") for name in changed)
        assert any(name.startswith("encoder.") for name in changed) is trains_captioner
        assert "words.weight" not in changed


def test_a_video_without_events_teaches_that_there_are_none():
    model = tiny().train()
    found = model(
        **tiny_videos(1), events=torch.zeros(0, 3, dtype=torch.float64), duration_s=torch.ones(1)
    )
    assert torch.isfinite(found["loss"])
    assert found["losses_audio"][:3].tolist() == [0, 0, 0]


def test_both_published_parts_fill_one_network():
    model, captioner, heads = tiny(), tiny("captioning"), tiny("proposals")
    model.load_published(captioner.published_state())
    model.load_published(heads.published_state())
    assert torch.equal(model.generator.weight, captioner.generator.weight)
    assert torch.equal(
        model.events_audio.heads[0].convolutions[0].weight,
        heads.events_audio.heads[0].convolutions[0].weight,
    )


def test_a_checkpoint_brings_its_vocabulary_and_is_refused_if_it_does_not_fit():
    state = tiny("captioning", vocabulary_size=77).published_state()
    model = tiny("captioning")
    model.load_published(state)
    assert model.words.num_embeddings == model.generator.out_features == 77
    del state["module.generator.linear.bias"]
    with pytest.raises(UsageError, match=r"missing: generator\.bias"):
        model.load_published(state)


def test_prepared_rows_are_cut_to_one_length_and_zeros_stand_for_no_sound():
    model = tiny()
    steps = np.arange(7)[:, None] * 2.5 + [[0, 2.5]]
    features = {
        "rgb": Features(np.ones((7, 20), np.float16), steps),
        "flow": Features(np.ones((6, 20), np.float16), steps[:6]),
        "audio": Features(np.zeros((0, 12), np.float16), np.zeros((0, 2))),
    }
    found = type(model).prepare(model.config, features)
    assert found["rgb"].shape == found["flow"].shape == (6, 20)
    assert found["audio"].tolist() == [[0.0] * 12]
    assert (int(found["rgb_length"]), int(found["audio_length"])) == (6, 1)
    assert (float(found["video_step_s"]), float(found["audio_step_s"])) == (2.5, 1.0)


def test_normalised_and_projected_inputs_learn():
    model = tiny(normalise_inputs=True, project_audio=16, project_video=24).train()
    lengths = {"rgb_length": torch.tensor([6, 3]), "audio_length": torch.tensor([9, 1])}
    found = model(**tiny_videos(2), **lengths, caption=torch.tensor([[START, 9, END]] * 2))
    found["loss"].backward()
    assert found["Va"].shape == (2, 6, 24)
    assert float(model.input_video.map.weight.grad.norm()) > 0


def test_proposals_of_nothing_and_of_one():
    one = torch.tensor([[5.0, 4.0, 0.9]])
    assert video_proposals(one, 10.0).tolist() == [[3.0, 7.0, pytest.approx(0.9)]]
    assert evaluation_proposals(one, 2.5).shape == (0, 3)
    assert suppress(torch.zeros(0, 3), 0.4).shape == (0, 3)


def test_suppression_starts_at_the_threshold():
    spans = torch.tensor([[0.0, 10.0, 0.9], [0.0, 4.0, 0.8], [6.0, 9.0, 0.7]])
    assert temporal_iou(spans[:1, :2], spans[1:, :2]).tolist() == [pytest.approx([0.4, 0.3])]
    assert len(suppress(spans, 0.39)) == 2
    assert len(suppress(spans, 0.41)) == 3
