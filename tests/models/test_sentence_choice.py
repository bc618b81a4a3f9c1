"""The task mc: text, sentences of the batch as wrong ones, loss, figures, file."""

import csv

import pytest
import torch
from small_jsfusion import small

from vlpipe.models.tasks import find_task
from vlpipe.models.tasks.sentence_choice import SentenceChoiceSettings, SentenceChoiceTask
from vlpipe.stores.datasets import SentenceChoice
from vlpipe.stores.errors import UsageError

TEXTS = ("a red dog runs", "a dog sits", "the cat jumps", "a cat runs", "someone waves")


def choice(n, video, answer):
    offered = [TEXTS[(n + place - answer) % 5] for place in range(5)]
    return SentenceChoice(f"MC{n}", "msr0", video, tuple(offered), answer)


ROWS = [choice(n, f"video{n // 2}", (2 * n) % 5) for n in range(4)]


class Choices:
    """A dataset with those rows, whose files count from 1."""

    name = "made"
    choice_splits = ("train", "val")
    first_choice = 1

    def sentence_choices(self, split):
        return ROWS


EXAMPLES = SentenceChoiceTask.read_examples(Choices(), "train")


def fitted(**settings):
    chosen = SentenceChoiceSettings(max_words=12, **settings)
    return SentenceChoiceTask.fit(chosen, EXAMPLES, Choices())


def batch_of(task, examples=EXAMPLES):
    random = torch.Generator().manual_seed(0)
    video = {"video": torch.rand(13, 8, generator=random), "video_len": torch.tensor(13)}
    return task.collate([(example, [video]) for example in examples])


def test_examples_and_splits():
    task = find_task("mc")
    assert [e.candidates[e.answer] for e in EXAMPLES] == list(TEXTS[:4])
    assert [e.video_id for e in EXAMPLES] == ["video0", "video0", "video1", "video1"]
    with pytest.raises(UsageError, match="no split 'test'; they have: train, val"):
        task.read_examples(Choices(), "test")
    with pytest.raises(UsageError, match="no sentences to choose among"):
        task.splits(type("Bare", (Choices,), {"choice_splits": ()})())


def test_the_vocabulary_is_of_right_sentences_and_others_words_are_left_out():
    task = SentenceChoiceTask.from_json(fitted(least_count=1).to_json())
    assert "waves" not in task.words()
    inputs, targets = task.encode(EXAMPLES[3])  # someone waves is UNK alone
    place = EXAMPLES[3].candidates.index("someone waves")
    assert inputs["word_len"][place] == 1
    assert task.words()[inputs["words"][place, 0]] == "UNK"
    assert targets["answer"] == EXAMPLES[3].answer


def test_sentences_of_the_batch_are_wrong_ones_in_training_alone():
    task = fitted(num_random=5)
    batch = batch_of(task)
    assert batch.inputs["words"].shape == (4, 8, 12)  # five, and those of the three others
    assert batch.inputs["word_len"].shape == (4, 8)
    right = [tuple(batch.inputs["words"][n, e.answer].tolist()) for n, e in enumerate(EXAMPLES)]
    for n in range(4):
        others = [tuple(row) for row in batch.inputs["words"][n, 5:].tolist()]
        assert others == [right[(n + step) % 4] for step in (1, 2, 3)]
        own = [(n + step) % 4 // 2 == n // 2 for step in (1, 2, 3)]
        assert batch.targets["is_counted"][n].tolist() == [True] * 5 + [not same for same in own]
    logits = torch.zeros(4, 8)
    assert task.loss({"logits": logits}, batch) == pytest.approx(70)  # 5 given and 2 of others
    logits[torch.arange(4), batch.targets["answer"]] = 10.0
    assert task.loss({"logits": logits}, batch) == pytest.approx(10)  # the constant
    model = small("mc", vocabulary_size=len(task.words()))
    with torch.no_grad():
        records = task.predict(model, [batch, batch_of(task, EXAMPLES[:1])])
        wanted = model(**batch.inputs)["logits"][:, :5]
    assert [len(record["scores"]) for record in records] == [5] * 5
    for record, scores in zip(records, wanted, strict=False):
        assert record["scores"] == pytest.approx(scores.tolist(), abs=1e-5)
        assert record["prediction"] == int(scores.argmax())
    assert records[4]["scores"] == pytest.approx(records[0]["scores"], abs=1e-5)


def test_equal_sentences_are_no_mistakes_for_each_other():
    task = fitted()
    twin = SentenceChoice("MC9", "msr9", "video9", ROWS[0].choices, ROWS[0].answer)
    batch = batch_of(task, [EXAMPLES[0], task.example_of(twin)])
    assert batch.targets["is_counted"].tolist() == [[True] * 5 + [False]] * 2


def test_figures_chance_and_a_file_that_counts_as_the_benchmark_does(tmp_path):
    task = fitted()
    many = [task.example_of(choice(n, "video0", n % 5)) for n in range(400)]
    assert 12 < task.metrics(task.baseline(EXAMPLES, many))["accuracy"] < 28
    records = [task.question_record(example, 2) for example in EXAMPLES]
    assert task.metrics(records) == {"accuracy": 25.0}
    with task.write_predictions(records, tmp_path, "test").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["answer"] for row in rows] == ["3"] * 4
    assert rows[1]["a2"] == EXAMPLES[1].candidates[1]
    assert rows[1]["key"] == "MC1"


def test_it_is_asked_with_candidates():
    task = fitted()
    asked = task.ask("video0", "which fits ?", ["a dog sits", "a cat runs", "the cat jumps"])
    batch = batch_of(task, [asked])
    assert batch.inputs["words"].shape == (1, 3, 12)
    with torch.no_grad():
        (record,) = task.predict(small("mc", vocabulary_size=len(task.words())), [batch])
    assert task.shown(record).given in asked.candidates
    with pytest.raises(UsageError, match="chooses among candidates, and 0 are given"):
        task.ask("video0", "which fits ?")
