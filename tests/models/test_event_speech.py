"""What is said in events: of stored words with their seconds, and of annotations."""

import json

import numpy as np
import pytest
import torch

from vlpipe.models import create_model
from vlpipe.models.caption_vocabulary import END, PADDING, SPECIAL_WORDS, START, UNKNOWN
from vlpipe.models.layers.spoken_words import words_of_events
from vlpipe.models.tasks import find_task
from vlpipe.models.tasks.dense_captioning import DescribedVideo, EventSettings
from vlpipe.stores import Features
from vlpipe.stores.datasets import DenseCaptions
from vlpipe.stores.errors import UsageError
from vlpipe.stores.text_rows import text_rows

WORDS = ("Cut", "the", "onion,", "then", "fry", "it.")
SIZES = {
    "speech_width": 8, "audio_width": 4, "video_width": 8, "inner": 8, "heads": 2, "dropout": 0.0
}  # fmt: skip
ROWS = Features(np.ones((10, 8), np.float32), np.arange(10)[:, None] + [[0.0, 1.0]])


def said(words, first_s=0.0):
    starts = first_s + np.arange(len(words), dtype=np.float64)
    return Features(text_rows(words), np.stack([starts, starts + 1], axis=1))


def video(name, spans, speech=()):
    told = DenseCaptions(name, 10.0, tuple(spans), ("a man cooks",) * len(spans), tuple(speech))
    return DescribedVideo(name, 10.0, (told,))


def prepared(task, model, *videos):
    items = []
    for example, features in videos:
        found = {"rgb": ROWS, "flow": ROWS, **features}
        items.append((example, [type(model).prepare(model.config, found)]))
    return task.collate(items)


def fitted(examples, speech, **settings):
    task = find_task("captioning").fit(EventSettings(**settings), examples, None)
    return task.fit_features({"speech": found} if found else {} for found in speech)


def test_words_that_overlap_an_event_stand_between_start_and_end():
    speech = torch.tensor([[10, 11, 12, PADDING], [20, 21, 22, 23]])
    spans = torch.tensor([[[0, 1], [1, 2], [2, 3], [0, 0]], [[0, 1], [1, 1], [1, 4], [4, 5]]])
    events = torch.tensor([[0, 0, 9], [1, 1, 2], [0, 1.5, 2.5], [1, 8, 9]], dtype=torch.float64)
    found = words_of_events(speech, spans.double(), events, most=9)
    assert found.tolist() == [
        [START, 10, 11, 12, END],
        [START, 21, 22, END, PADDING],  # a word as long as nothing counts where it begins
        [START, 11, 12, END, PADDING],
        [START, END, PADDING, PADDING, PADDING],
    ]
    whole = words_of_events(speech, spans.double(), None, most=2)
    assert whole.tolist() == [[START, 10, 11, END], [START, 20, 21, END]]
    nothing = words_of_events(torch.zeros(2, 0), torch.zeros(2, 0, 2), None, most=2)
    assert nothing.tolist() == [[START, END]] * 2


def test_a_batch_holds_the_words_of_its_videos_as_ids():
    examples = [video("a", [(0, 5)]), video("b", [(0, 5)])]
    task = fitted(examples, [said(WORDS), None])
    words = task.speech.vocabulary.words
    assert sorted(words[4:]) == sorted(("cut", "the", "onion", ",", "then", "fry", "it"))
    model = create_model("mdvc", task="captioning", **SIZES, **task.model_settings())
    batch = prepared(
        task, model, (examples[0], {"speech": said(("fry", "onion,", "well"))}), (examples[1], {})
    )
    ids = batch.inputs["speech"]
    assert [words[n] for n in ids[0].tolist()[:3]] == ["fry", "onion", ","]
    assert ids[0, 3] == UNKNOWN
    assert ids[1].tolist() == [PADDING] * 4
    spans = batch.inputs["speech_spans"][0].tolist()
    assert spans == [[0, 1], [1, 2], [1, 2], [2, 3]]  # both parts of a word have its time
    assert model.eval()(**batch.inputs)["logp"].shape[0] == 2


def test_the_words_of_speech_travel_with_the_task():
    task = fitted([video("a", [(0, 5)])], [said(WORDS)])
    again = type(task).from_json(json.loads(json.dumps(task.to_json())))
    assert again.speech == task.speech
    assert again.model_settings() == task.model_settings()
    assert task.model_settings()["speech_vocabulary_size"] == 4 + 7
    rare = fitted([video("a", [(0, 5)])], [said(("one", "one", "two"))], least_speech_count=2)
    assert rare.speech.vocabulary.words == (*SPECIAL_WORDS, "one")
    silent = find_task("captioning").fit(EventSettings(), [video("a", [(0, 5)])], None)
    assert silent.model_settings()["has_speech"] is False


@torch.no_grad()
def test_stored_words_and_the_column_of_the_annotations_say_the_same():
    examples = [video("a", [(0, 3), (3, 6)], ["Cut the onion,", "then fry it."])]
    stored = fitted(examples, [said(WORDS)])
    told = fitted(examples, [None], speech_from="annotations")
    assert told.speech == stored.speech
    torch.manual_seed(0)
    model = create_model("mdvc", task="captioning", **SIZES, **stored.model_settings()).eval()
    one = prepared(stored, model, (examples[0], {"speech": said(WORDS)}))
    other = prepared(told, model, (examples[0], {}))
    assert ("subs" in one.inputs, "subs" in other.inputs) == (False, True)
    torch.testing.assert_close(model(**one.inputs)["logp"], model(**other.inputs)["logp"])
    assert stored.predict(model, [one]) == told.predict(model, [other])


def test_speech_that_is_not_there_is_named():
    examples = [video("a", [(0, 3)])]
    with pytest.raises(UsageError, match="do not tell what is said"):
        fitted(examples, [], speech_from="annotations")
    spoken = [video("a", [(0, 3)], ["hello"])]
    with pytest.raises(UsageError, match="no annotation has the speech of"):
        find_task("dense_captioning").fit(EventSettings(speech_from="annotations"), spoken, None)
    task = find_task("captioning").fit(EventSettings(), examples, None)
    model = create_model("mdvc", task="captioning", **SIZES, vocabulary_size=9)
    with pytest.raises(UsageError, match="listens to speech") as caught:
        prepared(task, model, (examples[0], {}))
    assert "given_subtitles" in caught.value.hint


def test_a_model_that_does_not_listen_takes_no_words():
    examples = [video("a", [(0, 3)])]
    task = fitted(examples, [said(WORDS)])
    settings = task.model_settings() | {"has_speech": False}
    model = create_model("mdvc", task="captioning", **SIZES, **settings)
    assert "speech" not in type(model).slots_in_use(model.config)
    batch = prepared(task, model, (examples[0], {}))
    assert "speech" not in batch.inputs
    assert model(**batch.inputs)["logp"].shape[0] == 1


@pytest.mark.parametrize("name", ["mdvc", "iperceive_dvc"])
def test_captions_follow_what_is_said(name):
    """Pictures are alike: only the words tell which of two sentences belongs to an event."""
    random = np.random.default_rng(0)
    videos = []
    for number in range(12):
        spans = [(0.0, 4.0), (5.0, 9.0)]
        kinds = random.integers(0, 2, 2)
        words = [w for k in kinds for w in (("sing", "it") if k else ("kick", "it"))]
        starts = np.array([1.0, 2.0, 6.0, 7.0])
        sentences = tuple("a woman sings" if k else "a dog plays ball" for k in kinds)
        told = DenseCaptions(f"v{number}", 10.0, tuple(spans), sentences)
        features = Features(text_rows(words), np.stack([starts, starts + 1], axis=1))
        videos.append((DescribedVideo(f"v{number}", 10.0, (told,)), {"speech": features}))
    task = fitted([e for e, _ in videos], [f["speech"] for _, f in videos])
    torch.manual_seed(0)
    more = {"has_commonsense": False} if name == "iperceive_dvc" else {}
    sizes = SIZES | {"smoothing": 0.1} | more | task.model_settings()
    model = create_model(name, task="captioning", **sizes)
    batch = prepared(task, model, *videos[:8])
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        loss = model(**batch.inputs)["loss"]
        adam.zero_grad()
        loss.backward()
        adam.step()
    records = task.predict(model.eval(), [prepared(task, model, *videos[8:])])
    for record in records:
        found = [event["sentence"] for event in record["prediction"][0]]
        assert found == [event["sentence"].capitalize() for event in record["answer"][0]]
