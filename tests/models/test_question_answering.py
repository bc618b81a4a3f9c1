"""Tasks of question answering: text, answer sets, losses, decoding, figures, files."""

import json

import golden_cases
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlpipe.models.layers.answers import NO_ANSWER, answer_set_loss, count_predictions, hinge_loss
from vlpipe.models.metrics.question_answering import accuracy, count_error, rounded_count
from vlpipe.models.tasks import Batch, find_task
from vlpipe.models.tasks.question_answering import QuestionExample
from vlpipe.models.tasks.question_text import Vocabulary, clean, most_frequent
from vlpipe.models.tasks.registry import parse_task_settings
from vlpipe.stores.datasets import TgifDataset, open_dataset
from vlpipe.stores.errors import UsageError


def fitted(name, examples, **settings):
    task = find_task(name)
    return task.fit(parse_task_settings(task, settings), examples, None)


FRAMES = [
    QuestionExample("1", "a", "what color ?", "red", part="color", texts=("a red", "what", "red")),
    QuestionExample("2", "b", "what color ?", "blue", part="color", texts=("b", "what", "blue")),
    QuestionExample("3", "c", "where ?", "sea", part="location", texts=("c", "where", "sea")),
    QuestionExample("4", "d", "what color ?", "blue", part="color", texts=("d", "what", "blue")),
]


def test_cleaning_is_that_of_the_published_code():
    facts = json.loads((golden_cases.FOLDER / "tgif_vocab.json").read_text(encoding="utf-8"))
    assert [clean(text) for text in facts["sentences"]] == facts["cleaned"]


@pytest.mark.parametrize("task", ["count", "action"])
def test_published_ids_of_published_vocabularies_read_back(task):
    wanted = golden_cases.outputs("tgif_vocab")
    vocabulary = Vocabulary(tuple(str(word) for word in wanted[f"{task}_vocabulary"]))
    ids = wanted[f"{task}_test_ids"].reshape(-1, 20)[:200]
    lengths = wanted[f"{task}_test_lengths"].reshape(-1)[:200]
    for row, length in zip(ids, lengths, strict=True):
        text = " ".join(vocabulary.words[i] for i in row[:length])
        if "UNK" in text:
            continue
        found, count = vocabulary.encode(text, 20)
        assert found.tolist() == row.tolist()
        assert int(count) == length


def test_words_stand_in_the_order_of_first_appearance_with_one_end_mark():
    vocabulary = Vocabulary.of(["Who is it?", "it is Bob"])
    assert vocabulary.words == ("#START#", "UNK", "who", "is", "it", "\\?", "<EOS>", "bob")
    ids, length = vocabulary.encode("who was it ?", 6)
    assert (ids.tolist(), int(length)) == ([2, 1, 4, 5, 0, 0], 4)


@given(st.text(), st.integers(1, 8))
def test_any_text_has_ids(text, width):
    ids, length = Vocabulary.of(["a b c"]).encode(text, width)
    assert ids.shape == (width,)
    assert 1 <= int(length) <= width
    assert not ids[int(length) :].any()


def test_frequent_answers_stand_first_ties_in_order():
    assert most_frequent(["x", "y", "z", "y", "x", "w"], 3) == ("x", "y", "z")


@given(st.floats(-50, 50))
def test_counts_round_half_to_even_within_one_and_ten(raw):
    assert int(count_predictions(torch.tensor([raw], dtype=torch.float64))) == rounded_count(
        float(np.float32(raw))
    )
    assert rounded_count(2.5) == 2
    assert rounded_count(3.5) == 4


def test_zero_counts_as_one_in_the_error():
    assert count_error([1, 3], [0, 5]) == 2.0
    with pytest.raises(ValueError, match="0 predictions"):
        accuracy([], [])


def test_the_hinge_is_the_mean_over_rows_and_wrong_candidates():
    scores = torch.tensor([[1.0, 2.0, 0.5], [3.0, 0.0, 0.0]])
    right = torch.tensor([0, 0])
    by_hand = np.mean([max(0, 1 + 2 - 1), max(0, 1 + 0.5 - 1), 0, 0])
    assert float(hinge_loss(scores, right)) == pytest.approx(by_hand)


def test_unknown_answers_teach_nothing_and_are_never_right():
    logits = torch.randn(3, 4, requires_grad=True)
    answer_set_loss(logits, torch.tensor([NO_ANSWER, 2, NO_ANSWER])).backward()
    assert not logits.grad[[0, 2]].any()
    assert logits.grad[1].any()
    nothing = answer_set_loss(logits.detach(), torch.full((3,), NO_ANSWER))
    assert float(nothing) == 0
    task = fitted("frameqa", FRAMES, num_answers=2)
    assert task.answers == ("blue", "red")
    outputs = {"logits": torch.eye(2), "predictions": torch.tensor([0, 1])}
    records = task.decode(outputs, Batch(tuple(FRAMES[2:4]), {}))
    assert task.metrics(records)["accuracy"] == 0


def test_figures_of_parts_stand_beside_the_whole():
    task = fitted("frameqa", FRAMES)
    records = [task.question_record(e, "blue") for e in FRAMES]
    assert task.metrics(records) == {
        "accuracy": 50.0,
        "accuracy/color": pytest.approx(200 / 3),
        "accuracy/location": 0.0,
    }
    assert task.baseline(FRAMES, FRAMES)[0]["prediction"] == "blue"


def test_a_batch_of_choices_holds_question_and_candidate_as_one_sentence():
    example = QuestionExample("1", "v", "what now ?", 1, candidates=(" jump ", "sit down"))
    task = fitted("action", [example], max_words=6)
    item = (example, [{"clips": torch.zeros(2, 3)}])
    batch = task.collate([item, (example, [{"clips": torch.zeros(3, 3)}])])
    words = [[task.words()[i] for i in row if i] for row in batch.inputs["candidates"][0]]
    assert words == [["what", "now", "\\?", "jump"], ["what", "now", "\\?", "sit", "down"]]
    assert batch.inputs["candidates_length"].tolist() == [[4, 5], [4, 5]]
    assert batch.targets["answer"].tolist() == [1, 1]
    assert batch.inputs["clips"].shape == (2, 3, 3)
    assert batch.inputs["clips_length"].tolist() == [2, 3]


def test_the_most_frequent_right_candidate_is_the_baseline_of_choices():
    train = [
        QuestionExample(str(n), "v", "q", 0, candidates=(word, "other"))
        for n, word in enumerate(["jump", "jump", "sit"])
    ]
    task = fitted("action", train)
    asked = QuestionExample("9", "v", "q", 0, candidates=("sit", "jump"))
    assert task.baseline(train, [asked])[0]["prediction"] == 1
    with pytest.raises(UsageError, match="chooses among candidates"):
        task.ask("v", "what ?")


def test_tasks_round_trip_through_json():
    for name in ("frameqa", "count", "action"):
        examples = FRAMES if name == "frameqa" else [QuestionExample("1", "a", "how many ?", 2)]
        task = fitted(name, examples)
        again = type(task).from_json(json.loads(json.dumps(task.to_json())))
        assert again.to_json() == task.to_json()
        assert again.model_settings() == task.model_settings()


def test_an_answer_list_is_taken_in_its_order(tmp_path):
    path = tmp_path / "answer_set.txt"
    path.write_text("sea\nblue\nsea\n", encoding="utf-8")
    assert fitted("frameqa", FRAMES, answer_list=path).answers == ("sea", "blue")
    path.write_text("")
    with pytest.raises(UsageError, match="empty"):
        fitted("frameqa", FRAMES, answer_list=path)


def test_a_dataset_without_such_questions_is_refused(tmp_path):
    with pytest.raises(UsageError, match="'folder' has no questions for the task 'count'"):
        find_task("count").splits(open_dataset("folder", tmp_path))
    with pytest.raises(UsageError, match="no questions for the task 'open_ended'"):
        find_task("open_ended").splits(TgifDataset(tmp_path))


def test_predictions_are_written_in_the_form_of_the_tables(tmp_path):
    task = fitted("frameqa", FRAMES)
    records = [task.question_record(e, 'so "blue"') for e in FRAMES[:1]]
    path = task.write_predictions(records, tmp_path, "test")
    assert path.read_bytes().decode().splitlines() == [
        "gif_name\tquestion\tanswer\tvid_id",
        'a\twhat color ?\t"so ""blue"""\t1',
    ]
    open_ended = fitted("open_ended", FRAMES)
    path = open_ended.write_predictions(records, tmp_path, "test")
    assert json.loads(path.read_text()) == [
        {"answer": 'so "blue"', "id": 1, "question": "what color ?", "video_id": "a"}
    ]
