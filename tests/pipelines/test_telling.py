"""From rows of features to events: the network's own, whole videos and long ones in parts."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from vlpipe.models import create_model
from vlpipe.models.caption_vocabulary import CaptionVocabulary
from vlpipe.models.proposals import temporal_iou, video_proposals
from vlpipe.models.tasks.dense_captioning import DenseCaptioning, EventSettings
from vlpipe.pipelines.captioning.telling import EventChoice, Teller, windows_of
from vlpipe.stores import FeatureDefinition, Features, FeatureStore
from vlpipe.stores.errors import UsageError

STEPS_S = {"rgb": 0.5, "audio": 1.0}
WIDTHS = {"rgb": 12, "audio": 6}
LENGTHS_S = {"short": 20.0, "silent": 8.0, "tiny": 0.5, "long": 300.0, "blind": 5.0}


@pytest.fixture(scope="module")
def readers():
    store = FeatureStore.create("memory://telling")
    rng = np.random.default_rng(0)
    for name, width in WIDTHS.items():
        definition = FeatureDefinition(name, "float32", (width,), ("channel",))
        with store.writer([definition]) as writer:
            for video, length_s in LENGTHS_S.items():
                count = round(length_s / STEPS_S[name])
                if (video, name) in (("silent", "audio"), ("blind", "rgb")):
                    count = 0
                edges = np.arange(count + 1) * STEPS_S[name]
                rows = rng.standard_normal((count, width), np.float32)
                writer.add(video, {name: Features(rows, np.stack([edges[:-1], edges[1:]], 1))})
    return {name: store[name] for name in WIDTHS}


@pytest.fixture(scope="module")
def teller():
    vocabulary = CaptionVocabulary.of(["one two three four five six seven eight nine ten"])
    task = DenseCaptioning(EventSettings(max_words=6, proposals=20), vocabulary, (2.0, 4.0, 8.0))
    torch.manual_seed(0)
    model = create_model(
        "bmt", task="dense_captioning", vocabulary_size=len(vocabulary), audio_width=6,
        video_width=12, word_width=16, inner=32, head_width=8, audio_kernels=(3,),
        video_kernels=(1, 5), audio_rows=30, video_rows=60, audio_anchors_s=(2.0, 4.0),
        video_anchors_s=(2.0, 4.0, 8.0),
    ).eval()  # fmt: skip
    with torch.no_grad():  # sharper than fresh weights, so that captions differ
        model.words.weight.normal_()
        model.generator.weight.mul_(8)
    return Teller(model, model.config, task, torch.device("cpu"))


def test_events_and_words_are_those_of_the_network(teller, readers):
    inputs = teller.model.prepare(
        teller.config,
        {
            slot: Features(*reader.read("short", with_spans=True))
            for slot, reader in readers.items()
        },
    )
    inputs = {name: tensor[None] for name, tensor in inputs.items()}
    inputs["duration_s"] = torch.tensor([20.0])
    with torch.no_grad():
        predictions = teller.model(**inputs)["predictions"][0]
    wanted = video_proposals(predictions, 20.0, most=20, suppress_from=0.4)
    found = teller.tell(readers, "short", 20.0, EventChoice())
    assert 1 < len(found) == len(wanted)
    assert [(e.start_s, e.end_s, e.confidence) for e in found] == [
        (round(row[0], 2), round(row[1], 2), round(row[2], 4)) for row in wanted.double().tolist()
    ]
    events = torch.cat([torch.zeros(len(wanted), 1), wanted[:, :2]], 1).double()
    sentences = teller.task.write(teller.model, inputs, events)
    assert len(set(sentences)) > 1
    assert [event.sentence for event in found] == sentences
    assert temporal_iou(wanted[:, :2], wanted[:, :2]).fill_diagonal_(0).max() < 0.4


def test_a_choice_narrows_what_is_told(teller, readers):
    every = teller.tell(readers, "short", 20.0, EventChoice(suppress_from=None))
    assert len(every) == 20, "as many as the run's evaluation counts"
    sure = (every[4].confidence + every[5].confidence) / 2
    few = teller.tell(readers, "short", 20.0, EventChoice(None, None, sure))
    assert few == [event for event in every if event.confidence >= sure]
    assert len(teller.tell(readers, "short", 20.0, EventChoice(most=1))) == 1


@pytest.mark.parametrize("video", ["silent", "tiny"])
def test_videos_without_sound_and_of_one_row_are_told(teller, readers, video):
    length_s = LENGTHS_S[video]
    found = teller.tell(readers, video, length_s, EventChoice())
    assert found
    assert all(0 <= e.start_s < e.end_s <= length_s for e in found)
    assert any(event.sentence for event in found)


def test_a_video_without_pictures_is_an_error(teller, readers):
    with pytest.raises(UsageError, match=r"'blind' has no rows of rgb"):
        teller.tell(readers, "blind", 5.0, EventChoice())


def test_a_long_video_is_told_part_by_part(teller, readers, monkeypatch):
    """Parts hold no more rows than asked for, and events from all over the video come out."""
    seen = []
    prepare = Teller._inputs

    def watched(self, rows, window):
        inputs = prepare(self, rows, window)
        seen.append((inputs["rgb"].shape[1], inputs["audio"].shape[1]))
        return inputs

    monkeypatch.setattr(Teller, "_inputs", watched)
    per_second = 4 * (12 / 0.5 + 6 / 1.0)
    small = Teller(
        teller.model, teller.config, teller.task, teller.device, part_bytes=round(60 * per_second)
    )
    found = small.tell(readers, "long", 300.0, EventChoice(most=60))
    assert len(seen) >= 2 * 9
    assert max(rows for rows, _ in seen) <= 121
    assert max(rows for _, rows in seen) <= 61
    assert len({int(event.start_s // 100) for event in found}) == 3
    assert all(0 <= e.start_s < e.end_s <= 300 for e in found)
    assert sum(bool(event.sentence) for event in found) > 0.5 * len(found)
    confidences = [event.confidence for event in found]
    assert confidences == sorted(confidences, reverse=True)


@pytest.mark.parametrize(("duration_s", "longest_s"), [(10, 10), (100, 40), (101, 40), (3600, 37)])
def test_windows_cover_the_video_and_overlap_by_half(duration_s, longest_s):
    windows = windows_of(duration_s, longest_s)
    assert windows[0][0] == 0
    assert windows[-1][1] == duration_s
    for (start, end), (after, _) in pairwise(windows):
        assert end - start == longest_s
        assert after == start + longest_s / 2


@pytest.mark.parametrize("wrong", [{"most": 0}, {"suppress_from": 0.0}, {"least_confidence": 2.0}])
def test_a_choice_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError):
        EventChoice(**wrong)
