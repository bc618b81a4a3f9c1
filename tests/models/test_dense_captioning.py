"""The tasks about events: examples, batches, learning, figures, files."""

import json

import numpy as np
import pytest
import torch

from vlpipe.models import create_model, find_model
from vlpipe.models.caption_vocabulary import (
    END,
    PADDING,
    SPECIAL_WORDS,
    START,
    UNKNOWN,
    CaptionVocabulary,
    clean_caption,
    published_words,
)
from vlpipe.models.layers.event_anchors import anchors_of
from vlpipe.models.metrics.dense_captioning import read_submission
from vlpipe.models.tasks import find_task
from vlpipe.models.tasks.dense_captioning import DescribedVideo, EventSettings
from vlpipe.stores import Features
from vlpipe.stores.datasets import DenseCaptions
from vlpipe.stores.errors import UsageError

KINDS = ("a man runs", "a dog sits down", "two women sing a song")
SMALL = {
    "word_width": 24, "inner": 24, "heads": 2, "layers": 1, "head_width": 16, "dropout": 0.0,
    "audio_kernels": (3,), "video_kernels": (1, 3), "audio_rows": 0, "video_rows": 0,
    "audio_anchors_s": (1.0, 2.0), "video_anchors_s": (1.0, 2.0, 3.0), "train_words": True,
    "project_audio": 24, "project_video": 24, "video_width": 6, "audio_width": 4,
    "smoothing": 0.1, "other_weight": 5.0,
}  # fmt: skip


class Annotations:
    """A dataset of two files of videos, one of them described by two annotators."""

    name = "made"

    def captions(self, split):
        return {
            "train": [told("t0", [(0, 4, KINDS[0])]), told("t1", [(4, 9, KINDS[1])])],
            "val_1": [told("a", [(0, 4, KINDS[0])]), told("b", [(2, 6, KINDS[2])])],
            "val_2": [told("b", [(1, 6, KINDS[2]), (7, 9, KINDS[0])]), told("empty", [])],
        }[split]


def told(video, events):
    return DenseCaptions(
        video, 10.0, tuple((float(s), float(e)) for s, e, _ in events), tuple(t for *_, t in events)
    )


def made_videos(count, seed):
    """Videos of 12 s with two events each, whose kind stands in the rows of picture and sound."""
    random = np.random.default_rng(seed)
    spans = np.arange(12)[:, None] + [[0.0, 1.0]]
    found = []
    for number in range(count):
        rows = random.normal(0, 0.1, (12, 6)).astype(np.float32)
        sound = random.normal(0, 0.1, (12, 4)).astype(np.float32)
        events = []
        for first in (int(random.integers(0, 3)), int(random.integers(6, 9))):
            kind = int(random.integers(len(KINDS)))
            rows[first : first + 3, kind] += 1
            rows[[first, first + 2], [3, 4]] += 1
            sound[first : first + 3, kind] += 1
            events.append((float(first), first + 3.0, KINDS[kind]))
        name = f"v{seed}_{number}"
        annotation = DenseCaptions(
            name, 12.0, tuple((s, e) for s, e, _ in events), tuple(t for *_, t in events)
        )
        features = {
            "rgb": Features(rows, spans), "flow": Features(0 * rows, spans),
            "audio": Features(sound, spans),
        }  # fmt: skip
        found.append((DescribedVideo(name, 12.0, (annotation,)), features))
    return found


def batches_of(task, model, videos, size=16):
    items = [(e, [type(model).prepare(model.config, features)]) for e, features in videos]
    return [task.collate(items[n : n + size]) for n in range(0, len(items), size)]


def learnt(name, steps, **settings):
    train, test = made_videos(48, 0), made_videos(12, 1)
    task = find_task(name).fit(EventSettings(**settings), [e for e, _ in train], None)
    torch.manual_seed(0)
    fields = find_model("bmt").Config.model_fields
    known = {k: v for k, v in task.model_settings().items() if k in fields}
    model = create_model("bmt", task=name, **(SMALL | known))
    batches = batches_of(task, model, train)
    adam = torch.optim.Adam(model.parameters(), lr=4e-3)
    for step in range(steps):
        batch = batches[step % len(batches)]
        loss = task.loss(model(**batch.inputs), batch)
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        records = task.predict(model.eval(), batches_of(task, model, test))
    return task, model, records, [e for e, _ in train], [e for e, _ in test]


def test_examples_are_videos_with_what_each_annotator_says():
    task = find_task("dense_captioning")
    assert task.splits(Annotations()) == ("train", "test")
    assert [e.id for e in task.read_examples(Annotations(), "train")] == ["t0", "t1"]
    a, b = task.read_examples(Annotations(), "test")  # a video without events is none
    assert (len(a.annotations), len(b.annotations)) == (1, 2)
    assert b.clips[0].video_id == "b"
    with pytest.raises(UsageError, match="no split 'val'"):
        task.read_examples(Annotations(), "val")
    with pytest.raises(UsageError, match="no sentences for events"):
        task.splits(type("Folder", (), {"name": "folder"})())


def test_a_batch_holds_the_events_of_all_its_videos():
    task = find_task("captioning")
    examples = task.read_examples(Annotations(), "train")
    fitted = task.fit(EventSettings(), examples, Annotations())
    rows = [{"rgb": torch.ones(n, 3)} for n in (2, 4)]
    batch = fitted.collate([(e, [video]) for e, video in zip(examples, rows, strict=True)])
    assert batch.inputs["events"].tolist() == [[0, 0, 4], [1, 4, 9]]
    assert batch.inputs["caption"][:, 0].tolist() == [START, START]
    assert batch.inputs["caption"][0, -1] == PADDING  # three words beside four
    assert batch.inputs["rgb_length"].tolist() == [2, 4]
    assert batch.inputs["duration_s"].tolist() == [10, 10]


def test_a_fitted_task_travels_with_its_words():
    task = find_task("dense_captioning")
    fitted = task.fit(EventSettings(beams=2), task.read_examples(Annotations(), "train"), None)
    again = task.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again.words() == fitted.words()
    assert again.settings == fitted.settings
    assert again.model_settings() == fitted.model_settings()
    assert fitted.model_settings()["event_lengths_s"] == [4.0, 5.0]
    assert fitted.words()[:5] == (*SPECIAL_WORDS, "a")


def test_captions_of_given_events_are_learnt():
    task, _, records, train, test = learnt("captioning", 120)
    found, baseline = task.metrics(records), task.metrics(task.baseline(train, test))
    assert found["bleu_3"] > 90 > 60 > baseline["bleu_3"]
    assert found["meteor_exact_stem"] > baseline["meteor_exact_stem"]
    first = records[0]["prediction"][0][0]
    assert (first["start_s"], first["end_s"]) == test[0].annotations[0].spans[0]
    assert first["sentence"][0].isupper()


def test_proposals_and_captions_are_learnt_together(tmp_path):
    task, model, records, train, test = learnt(
        "dense_captioning", 160, proposals=4, suppress_from=0.3
    )
    found, baseline = task.metrics(records), task.metrics(task.baseline(train, test))
    assert found["recall/tiou_0.5"] > 80
    assert found["f1"] > baseline["f1"]
    assert found["bleu_3"] > baseline["bleu_3"]
    assert all(len(r["prediction"][0]) <= 4 for r in records)
    confidences = [e["confidence"] for e in records[0]["prediction"][0]]
    assert confidences == sorted(confidences, reverse=True)
    path = task.write_predictions(records, tmp_path, "test")
    assert read_submission(path).keys() == {e.id for e in test}
    assert model.events_audio.anchors.tolist() == [pytest.approx(3.0)]  # all events last 3 s


def test_proposals_alone_are_learnt():
    task, _, records, train, test = learnt("proposals", 60, proposals=4, suppress_from=0.3)
    assert task.metrics(records)["f1"] > task.metrics(task.baseline(train, test))["f1"]
    assert records[0]["prediction"][0][0]["sentence"] == ""


def test_a_video_that_no_proposal_fits_has_none():
    task, model, *_ = learnt("dense_captioning", 0)
    (example, features) = made_videos(1, 2)[0]
    short = DescribedVideo(example.id, 0.1)
    batch = batches_of(task, model, [(short, features)])[0]
    with torch.no_grad():
        (record,) = task.predict(model, [batch])
    assert record["prediction"] == [[]]
    assert record["answer"] == []


def test_both_annotators_count():
    task = find_task("captioning")
    examples = task.read_examples(Annotations(), "test")
    fitted = task.fit(EventSettings(), examples, None)
    right = [fitted.record(e, [as_events(of) for of in e.annotations]) for e in examples]
    assert fitted.metrics(right)["bleu_3"] == pytest.approx(100.0, abs=1e-3)
    wrong = right[1]["prediction"][1]
    for event in wrong:
        event["sentence"] = "nothing"
    # Of the second annotator's one video no word is right, of the first's all are.
    assert fitted.metrics(right)["bleu_3"] == pytest.approx(50.0, abs=1e-3)


def as_events(annotation):
    from vlpipe.models.metrics.dense_captioning import EventCaption

    pairs = zip(annotation.spans, annotation.sentences, strict=True)
    return [EventCaption(*span, sentence) for span, sentence in pairs]


def test_vocabulary_has_the_published_order():
    vocabulary = CaptionVocabulary.of(["The man doesn\u2019t sit.", "the dog, the 3.5 km"])
    assert vocabulary.words == (
        *SPECIAL_WORDS, "the", ",", "3.5", "does", "dog", "km", "man", "n't", "sit"
    )  # fmt: skip
    ids = vocabulary.encode("The cat doesn't")
    assert ids == [START, 4, UNKNOWN, 7, 11, END]
    assert vocabulary.sentence(ids[1:-1]) == "The <unk> does n't"
    assert vocabulary.encode("the dog sits", 1) == [START, 4, END]
    assert clean_caption("He\u2019s  3.5 m.\ntall. ") == "He's 3.5 m tall"


def test_published_words_must_be_those_of_the_checkpoint(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("the\na\n")
    with pytest.raises(UsageError, match="2 words with the SHA-256"):
        published_words(path)
    with pytest.raises(UsageError, match="starts with the"):
        CaptionVocabulary(("the",))


def test_anchors_are_the_centres_of_lengths():
    lengths = [1.0, 1.1, 0.9, 5.0, 5.2, 20.0]
    assert anchors_of(lengths, 3) == pytest.approx((1.0, 5.1, 20.0))
    assert anchors_of([3.0, 3.0], 48) == (3.0,)
    with pytest.raises(ValueError, match="no event"):
        anchors_of([0.0, -1.0], 3)
