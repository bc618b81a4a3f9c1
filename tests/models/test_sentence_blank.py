"""The task fib: text, the blank's own id, answers, file."""

import csv

import pytest
import torch
from small_jsfusion import small

from vlpipe.models.tasks import find_task
from vlpipe.models.tasks.sentence_blank import SentenceBlankSettings, SentenceBlankTask
from vlpipe.stores.datasets import SentenceBlank
from vlpipe.stores.errors import UsageError

ROWS = [
    SentenceBlank("FIB0", "vid1", "vid1", "A red dog runs.", "A _____ dog runs.", "Red"),
    SentenceBlank("FIB1", "vid1", "vid1", "A dog, it sits", "A dog, it _____", "sits"),
    SentenceBlank("FIB2", "vid2", "vid2", "A red cat", "A _____ cat", "red"),
]


class Blanks:
    """A dataset with those rows."""

    name = "made"
    blank_splits = ("train", "val", "test")

    def sentence_blanks(self, split):
        return ROWS if split == "train" else ROWS[1:]


EXAMPLES = SentenceBlankTask.read_examples(Blanks(), "train")


def fitted(**settings):
    return SentenceBlankTask.fit(
        SentenceBlankSettings(max_words=12, **settings), EXAMPLES, Blanks()
    )


def test_examples_answers_and_settings():
    task = SentenceBlankTask.from_json(fitted().to_json())
    assert find_task("fib") is SentenceBlankTask
    assert [(e.id, e.video_id, e.answer) for e in EXAMPLES] == [
        ("FIB0", "vid1", "red"), ("FIB1", "vid1", "sits"), ("FIB2", "vid2", "red"),
    ]  # fmt: skip
    assert task.answers == ("red", "sits")
    settings = task.model_settings()
    assert settings["num_answers"] == 2
    assert task.words()[settings["blank_id"]] == "_____"
    with pytest.raises(UsageError, match="no sentences with blanks"):
        task.splits(type("Bare", (), {"name": "bare"})())


def test_rare_words_are_left_out_and_the_blank_stays():
    inputs, targets = fitted(least_count=2).encode(EXAMPLES[0])
    words = fitted(least_count=2).words()
    assert [words[n] for n in inputs["question"][: inputs["question_length"]]] == [
        "a", "_____", "dog",
    ]  # fmt: skip
    assert targets["answer"] == 0


def test_a_network_answers_at_the_blank():
    task = fitted()
    settings = task.model_settings()
    model = small("fib", **settings)
    video = {"video": torch.rand(13, 8), "video_len": torch.tensor(13)}
    batch = task.collate([(example, [video]) for example in EXAMPLES])
    with torch.no_grad():
        outputs = model(**batch.inputs)
        records = task.predict(model, [batch])
        assert torch.isfinite(task.loss(outputs, batch))
    assert outputs["logits"].shape == (3, 2)
    assert {record["prediction"] for record in records} <= {"red", "sits"}
    assert set(records[0]["best"]) == {"red", "sits"}


def test_the_most_frequent_word_and_the_file(tmp_path):
    task = fitted()
    records = task.baseline(EXAMPLES, EXAMPLES)
    assert task.metrics(records)["accuracy"] == pytest.approx(200 / 3)
    with task.write_predictions(records, tmp_path, "test").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert rows[0] == {
        "key": "FIB0", "video_id": "vid1", "blank_sentence": "A _____ dog runs.", "answer": "red",
    }  # fmt: skip


def test_a_sentence_without_a_blank_is_refused():
    with pytest.raises(UsageError, match="no blank: 'a dog runs'"):
        fitted().ask("vid1", "a dog runs")
    assert fitted().ask("vid1", "a _____ runs").question == "a _____ runs"
