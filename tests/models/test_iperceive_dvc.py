"""iPerceive DVC: common sense fused with MDVC's picture, proposals, and learning both at once."""

import golden_cases
import numpy as np
import pytest
import torch

from vlpipe.models import create_model
from vlpipe.models.caption_vocabulary import END, START
from vlpipe.models.layers.bi_sst import BiSst
from vlpipe.models.proposals import temporal_iou, video_proposals
from vlpipe.stores import Features

SIZES = {
    "vocabulary_size": 60, "speech_vocabulary_size": 40, "speech_width": 20, "audio_width": 16,
    "video_width": 24, "inner": 32, "layers": 2, "commonsense_width": 6, "proposal_hidden": 12,
    "video_anchors_s": (1.0, 2.0, 4.0), "video_stride_s": 1.0,
}  # fmt: skip


def made(task="dense_captioning", **settings):
    torch.manual_seed(0)
    return create_model("iperceive_dvc", task=task, **(SIZES | settings))


def videos(**more):
    torch.manual_seed(1)
    return {
        "rgb": torch.randn(2, 8, 24), "flow": torch.randn(2, 8, 24),
        "audio": torch.randn(2, 8, 16), "commonsense": torch.rand(2, 8, 6),
        "subs": torch.tensor([[START, 5, END], [START, 9, END]]),
    } | more  # fmt: skip


CAPTION = torch.tensor([[START, 9, 8, END], [START, 7, 11, END]])


@torch.no_grad()
def test_a_checkpoint_of_mdvc_gives_mdvcs_numbers_until_common_sense_is_learnt():
    model, mdvc = made().eval(), create_model("mdvc", task="captioning", **mdvc_sizes()).eval()
    for network in (model, mdvc):
        network.load_published(
            {k: torch.from_numpy(v) for k, v in golden_cases.state("mdvc_captioner").items()}
        )
    given = videos(caption=CAPTION)
    found = model(**given)["logp"]
    del given["commonsense"]
    torch.testing.assert_close(found, mdvc(**given)["logp"])


def mdvc_sizes():
    kept = ("commonsense_width", "proposal_hidden", "video_anchors_s", "video_stride_s")
    return {name: value for name, value in SIZES.items() if name not in kept}


@torch.no_grad()
def test_common_sense_changes_the_picture_alone():
    model = made("captioning").eval()
    model.fuse.weight[:, 24:].normal_()
    streams = [
        model._streams(
            *(videos()[name] for name in ("rgb", "flow", "audio", "subs")), None, None, None,
            commonsense=commonsense,
        )
        for commonsense in (torch.rand(2, 8, 6), torch.rand(2, 8, 6))
    ]  # fmt: skip
    assert not torch.equal(streams[0]["video"][0], streams[1]["video"][0])
    assert torch.equal(streams[0]["audio"][0], streams[1]["audio"][0])
    assert torch.equal(streams[0]["subs"][0], streams[1]["subs"][0])


def test_without_common_sense_none_is_asked_for():
    model = made(has_commonsense=False).eval()
    given = videos(caption=CAPTION)
    del given["commonsense"]
    assert model(**given)["logp"].shape == (2, 3, 60)
    with pytest.raises(TypeError, match="commonsense"):
        made()(**given)


def test_captions_and_proposals_learn_together():
    model = made().train()
    given = videos(
        caption=CAPTION, events=torch.tensor([[0, 1.0, 5.0], [1, 2.0, 4.0]], dtype=torch.float64),
        duration_s=torch.tensor([8.0, 8.0]), rgb_length=torch.tensor([8, 6]),
        video_step_s=torch.tensor([1.0, 1.0]),
    )  # fmt: skip
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for step in range(40):
        found = model(**given)
        adam.zero_grad()
        found["loss"].backward()
        if step == 0:
            assert float(model.fuse.weight.grad[:, 24:].norm()) > 0
            assert float(model.proposals.reading.weight_hh_l0.grad.norm()) > 0
        adam.step()
        losses.append((float(found["loss"].detach()), float(found["proposal_loss"].detach())))
    assert losses[-1][0] < losses[0][0]
    assert losses[-1][1] < 0.5 * losses[0][1]
    best = video_proposals(model.eval()(**given)["predictions"][0].detach(), 8.0)
    assert float(temporal_iou(best[:1, :2], torch.tensor([[1.0, 5.0]]))) >= 0.5


@torch.no_grad()
def test_confidence_is_the_product_of_both_readings():
    torch.manual_seed(0)
    bi_sst = BiSst(5, 4, (2.0, 6.0))
    x, mask = torch.randn(1, 4, 5), torch.tensor([[True, True, True, False]])
    found = bi_sst(x, mask, torch.tensor([2.0]), None)["predictions"].view(4, 2, 3)
    read, _ = bi_sst.reading(x[:, :3])
    ends, starts = bi_sst.ends(read[0, :, :4]), bi_sst.starts(read[0, :, 4:])
    # Three rows of 2 s that end with the third begin with the first: 0 to 6 s.
    wanted = ends[2, 1].sigmoid() * starts[0, 1].sigmoid()
    torch.testing.assert_close(
        found[2, 1], torch.stack([torch.tensor(3.0), torch.tensor(6.0), wanted])
    )
    assert found[3, :, 2].tolist() == [0, 0]


def test_rows_between_changes_repeat_and_objects_of_a_frame_are_averaged():
    model = made()
    spans = np.arange(5)[:, None] + [[0.0, 1.0]]
    frames = np.array([[1.2, 1.3], [1.2, 1.3], [3.0, 3.1]])
    found = type(model).prepare(
        model.config,
        {
            "rgb": Features(np.ones((5, 24), np.float16), spans),
            "commonsense": Features(
                np.array([1, 3, 8], np.float16)[:, None].repeat(6, axis=1), frames
            ),
        },
    )
    assert found["commonsense"][:, 0].tolist() == [0, 2, 2, 8, 8]
    assert found["commonsense"].shape == (5, 6)
    assert float(found["video_step_s"]) == 1.0
    nothing = type(model).prepare(
        model.config, {"rgb": Features(np.ones((5, 24), np.float16), spans)}
    )
    assert not nothing["commonsense"].any()


@torch.no_grad()
def test_captions_of_proposals_are_those_without_caches():
    model = made().eval()
    model.generator.weight.normal_(std=2.0)
    given = videos(
        events=torch.tensor([[0, 1.0, 5.0], [1, 2.0, 4.0]], dtype=torch.float64),
        duration_s=torch.tensor([8.0, 8.0]),
    )  # fmt: skip
    ids = model.write_captions(**given, max_words=10)
    logp = model(**given, caption=torch.cat([ids, ids[:, :1]], dim=1))["logp"]
    written = logp[:, :-1].argmax(dim=-1)
    has_ended = (ids[:, :-1] == END).cumsum(dim=1) > 0
    assert torch.equal(written[~has_ended], ids[:, 1:][~has_ended])
