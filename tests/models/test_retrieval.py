"""The task retrieval: text, loss, ranking over a whole split, figures, files."""

import csv
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from small_jsfusion import small

from vlpipe.models.tasks import find_task
from vlpipe.models.tasks.retrieval import RetrievalSettings, RetrievalTask
from vlpipe.models.tasks.sentence_task import SentenceExample
from vlpipe.stores.datasets import SentencePair
from vlpipe.stores.errors import UsageError

SENTENCES = ("A red dog runs.", "a dog sits", "the cat jumps", "a cat runs", "Someone waves!")
EXAMPLES = [SentenceExample(f"ret{n}", f"video{n // 2}", text) for n, text in enumerate(SENTENCES)]


class Sentences:
    """A dataset with those sentences."""

    name = "made"

    def sentence_pairs(self, split: str) -> Sequence[SentencePair]:
        return [SentencePair(e.id, "msr0", e.video_id, e.sentence) for e in EXAMPLES]


def fitted(**settings):
    return RetrievalTask.fit(RetrievalSettings(max_words=12, **settings), EXAMPLES, Sentences())


def batches_of(task, size):
    random = torch.Generator().manual_seed(0)
    videos = {
        f"video{n}": {
            "video": torch.rand(13, 8, generator=random),
            "video_len": torch.tensor(13 - 4 * n),
        }
        for n in range(3)
    }
    return [
        task.collate([(e, [videos[e.video_id]]) for e in EXAMPLES[start : start + size]])
        for start in range(0, len(EXAMPLES), size)
    ]


def test_examples_are_rows_and_splits_are_named():
    task = find_task("retrieval")
    assert task.read_examples(Sentences(), "test") == EXAMPLES
    with pytest.raises(UsageError, match="no split 'val'; they have: train, test"):
        task.read_examples(Sentences(), "val")
    with pytest.raises(UsageError, match="has no sentences for retrieval"):
        task.splits(type("Bare", (), {"name": "bare"})())


def test_rare_words_are_left_out():
    task = RetrievalTask.from_json(fitted(least_count=2).to_json())
    words = [word for word in task.words() if word.isalpha()]
    assert words == ["UNK", "a", "dog", "runs", "cat"]
    inputs, targets = task.encode(EXAMPLES[0])
    assert [task.words()[n] for n in inputs["words"][:3]] == ["a", "dog", "runs"]
    assert inputs["word_len"] == 3
    assert targets["sentence"].equal(inputs["words"])
    assert task.encode(EXAMPLES[4])[0]["word_len"] == 1
    assert task.model_settings() == {"vocabulary_size": len(task.words()), "max_words": 12}


def test_a_split_is_ranked_as_a_whole_whatever_the_batches():
    task = fitted()
    model = small(vocabulary_size=len(task.words()))
    with torch.no_grad():
        once = task.predict(model, batches_of(task, 5))
        (whole,) = batches_of(task, 5)
        wanted = model(**whole.inputs)["score"][[0, 2, 4]]  # (videos, sentences)
        parts = task.predict(model, batches_of(task, 2))
    assert [record["id"] for record in once] == [example.id for example in EXAMPLES]
    for n, record in enumerate(once):
        right = n // 2
        better = (wanted[:, n] > wanted[right, n]).sum()
        assert record["rank"] == 1 + better
        assert record["sentence_rank"] == 1 + (wanted[right] > wanted[right, n]).sum()
        assert record["prediction"] == f"video{wanted[:, n].argmax()}"
        assert list(record["best"].values()) == sorted(record["best"].values(), reverse=True)
        assert record["best"]["video1"] == pytest.approx(float(wanted[1, n]), abs=1e-5)
        assert parts[n]["rank"] == record["rank"]
    with torch.no_grad():
        assert [r["rank"] for r in task.decode(model(**whole.inputs), whole)] == [
            r["rank"] for r in once
        ]
    assert task.predict(model, []) == []
    with pytest.raises(UsageError, match="Linear has not all of them"):
        task.predict(torch.nn.Linear(1, 1), [])


def test_sentences_of_one_video_are_no_mistakes_for_each_other():
    task = fitted()
    (batch,) = batches_of(task, 5)
    scores = torch.zeros(5, 5)
    # Each of the first four has itself and three others, the last itself and four others.
    assert task.loss({"score": scores}, batch) == pytest.approx((4 * 40 + 50) / 5)


def test_figures_baseline_and_file(tmp_path):
    task = fitted()
    records = task.baseline(EXAMPLES, EXAMPLES)
    figures = task.metrics(records)
    assert {figures["MedR"], figures["MedR/video_to_text"]} == {2.0, 3.0}
    assert figures["R@1"] == 0
    assert figures["R@5"] == 100
    assert task.figure in figures
    path = task.write_predictions(records, tmp_path, "test")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["key"] for row in rows] == [example.id for example in EXAMPLES]
    assert set(rows[0]["best_videos"].split()) == {"video0", "video1", "video2"}


def test_it_learns_which_sentence_is_which_video():
    task = fitted()
    settings = {"vocabulary_size": len(task.words()), "dropout": 0.0, "norm_momentum": 0.1}
    model = small(**settings).train()
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    (batch,) = batches_of(task, 5)
    for _ in range(60):
        adam.zero_grad()
        task.loss(model(**batch.inputs), batch).backward()
        adam.step()
    with torch.no_grad():
        records = task.predict(model.eval(), batches_of(task, 2))
    assert np.mean([record["rank"] for record in records]) < 1.5
