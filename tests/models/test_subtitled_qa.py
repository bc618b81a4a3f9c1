"""The task subtitled_qa: text, texts at frames, tokens of a store, figures, file, questions."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_subtitled import make_tables

from vlpipe.models.tasks import find_task
from vlpipe.models.tasks.frame_texts import (
    frames_within,
    nearest_lines,
    padded_texts,
    windows_around,
)
from vlpipe.models.tasks.subtitled_qa import SubtitledQaTask, SubtitledSettings
from vlpipe.models.tasks.subtitled_text import SubtitledVocabulary, clean, spoken
from vlpipe.models.token_features import timed_tokens, token_tensors
from vlpipe.stores import Features
from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.errors import UsageError

VIDEO = {
    "vid": torch.rand(4, 2, 3), "vid_mask": torch.ones(4, 2, dtype=torch.bool),
    "frame_s": torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64),
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("tvqa")
    make_tables(root)
    return open_dataset("tvqa", root)


@pytest.fixture(scope="module")
def examples(dataset):
    return SubtitledQaTask.read_examples(dataset, "train")


def fitted(examples, **settings):
    task = SubtitledQaTask.fit(SubtitledSettings(**settings), examples, None)
    return SubtitledQaTask.from_json(json.loads(json.dumps(task.to_json())))


def words_of(task, ids, mask):
    return [task.words()[i] for i in ids[mask].tolist()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(Leonard:)I don't... know, Penny's here!", "leonard : i do n't . know , penny 's here !"),
        ("They'll say we've I'm 5:30", "they 'll say we 've i 'm 5 : 30"),
        ("caf\xe9 [laughs] a-b `x`", "caf laughs a b `x`"),
        ("  ", ""),
    ],
)
def test_text_is_cut_as_in_the_code_of_tvqa(text, words):
    assert clean(text) == words


def test_who_speaks_is_said_or_unknown():
    assert spoken("(Ann:)Hi") == "(Ann:)Hi"
    assert clean(spoken("Hi")) == "unkname : hi"


def test_rare_words_are_unknown_and_pieces_have_marks_around(tmp_path):
    words = SubtitledVocabulary.of(["a b a", "B <eos>"], least_count=2)
    assert words.words == ("<pad>", "<unk>", "<eos>", "a", "b")
    assert words.encode("a c b b", 3) == [3, 1, 4]
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nhold\n##s\nshe\n")
    pytest.importorskip("tokenizers")
    pieces = SubtitledVocabulary.read(path)
    assert pieces.encode("She holds", 9) == [2, 6, 4, 5, 3]
    assert pieces.encode("She holds", 4) == [2, 6, 4, 3]
    assert pieces.encode("", 9) == []


@given(st.lists(st.floats(0, 99), min_size=1, max_size=9), st.floats(0, 99))
def test_the_two_nearest_lines_are_taken_in_order(starts, at):
    (found,) = nearest_lines(starts, [at])
    assert len(found) == min(2, len(starts))
    assert found == sorted(found)
    farthest = max(abs(starts[n] - at) for n in found)
    assert all(abs(starts[n] - at) >= farthest for n in range(len(starts)) if n not in found)


def test_windows_hold_their_start_and_not_their_end():
    assert nearest_lines([], [1.0]) == [[]]
    assert windows_around([(0, 2), (1, 9)], [0, 1, 2]) == [[0], [0, 1], [1]]


@pytest.mark.parametrize(
    ("span", "inside"),
    [((3, 5), [0, 1, 1, 0]), ((3.5, 4), [0, 0, 1, 0]), ((8, 9), [0, 0, 0, 1]),
     ((0, 0.5), [1, 0, 0, 0]), ((6, 2), [0, 0, 0, 1]), ((0, 99), [1, 1, 1, 1])],
)  # fmt: skip
def test_at_least_one_frame_is_relevant(span, inside):
    assert frames_within(VIDEO["frame_s"], span).tolist() == [bool(n) for n in inside]


def test_a_batch_holds_the_texts_of_each_frame(examples):
    task = fitted(examples, least_count=1)
    batch = task.collate([(example, [VIDEO]) for example in examples[:4]])
    inputs, first = batch.inputs, examples[0]
    assert inputs["qas_bert"].shape[:2] == (4, 5)
    asked = words_of(task, inputs["qas_bert"][0, 1], inputs["qas_mask"][0, 1])
    assert " ".join(asked) == f"what does ann hold ? {first.candidates[1]}"
    # Of lines at 0, 2, 4 and 6 s the nearest to 5 s are those at 4 and 6.
    said = words_of(task, inputs["sub_bert"][0, 2], inputs["sub_mask"][0, 2])
    assert " ".join(said) == clean(" ".join(spoken(line.text) for line in first.lines[2:4]))
    assert not inputs["dense_cap_mask"].any()
    assert inputs["vid"].shape == (4, 4, 2, 3)
    assert batch.targets["answer"].tolist() == [e.answer for e in examples[:4]]
    # Of question 3 the span is not a number: 10 to 30 seconds, behind all frames.
    assert batch.targets["relevant"][3].tolist() == [False, False, False, True]
    encoded, target = task.encode(first)
    assert torch.equal(encoded["qas_bert"][1][encoded["qas_mask"][1]],
                       inputs["qas_bert"][0, 1][inputs["qas_mask"][0, 1]])  # fmt: skip
    assert int(target["answer"]) == first.answer


def test_captions_stand_at_the_frames_in_their_windows(examples, tmp_path):
    path = tmp_path / "captions.json"
    events = [{"sentence": "A man waves", "timestamp": [2, 6]},
              {"sentence": "A dog", "timestamp": [4, 6]}]  # fmt: skip
    path.write_text(json.dumps({"results": {examples[0].video_id: events}}))
    task = fitted(examples, least_count=1, captions=path, max_caption_words=4)
    batch = task.collate([(examples[0], [VIDEO])])
    ids, mask = batch.inputs["dense_bert"][0], batch.inputs["dense_cap_mask"][0]
    told = [" ".join(words_of(task, *of_frame)) for of_frame in zip(ids, mask, strict=True)]
    assert told == ["", "a man waves", "a man waves a", ""]


def tokens_of(example, left_out=()):
    """A token a word: of question n candidate k it is (n, k), of line n (n, n)."""
    place = [(int(example.id), k) for k in range(5) for _ in range(k + 1) if k not in left_out]
    features = {
        "question_tokens": Features(torch.tensor(place, dtype=torch.float32).numpy(),
                                    torch.zeros(len(place), 2).double().numpy()),
        "question_place": Features(torch.tensor(place).numpy(),
                                   torch.zeros(len(place), 2).double().numpy()),
    }  # fmt: skip
    for slot, spans in (("subtitle_tokens", [(0, 1), (0, 1), (4, 5), (6, 7)]),
                        ("caption_tokens", [(0, 2), (2, 6), (2, 6)])):  # fmt: skip
        rows = torch.arange(len(spans), dtype=torch.float32)[:, None].expand(-1, 2)
        features[slot] = Features(rows.numpy(), torch.tensor(spans).double().numpy())
    return VIDEO | token_tensors(features)


def test_tokens_of_a_store_take_the_place_of_words(examples):
    task, example = fitted(examples), examples[0]
    video = tokens_of(example)
    assert [len(text.tokens) for text in timed_tokens(video, "subtitle_tokens")] == [2, 1, 1]
    inputs = task.collate([(example, [video])]).inputs
    assert inputs["qas_bert"].shape == (1, 5, 5, 2)
    assert inputs["qas_mask"].sum(-1).tolist() == [[1, 2, 3, 4, 5]]
    assert inputs["qas_bert"][0, 2, 0].tolist() == [int(example.id), 2]
    said = [row[mask][:, 0].tolist() for row, mask in
            zip(inputs["sub_bert"][0], inputs["sub_mask"][0], strict=True)]  # fmt: skip
    assert said == [[0, 1, 2], [0, 1, 2], [2, 3], [2, 3]]
    told = [row[mask][:, 0].tolist() for row, mask in
            zip(inputs["dense_bert"][0], inputs["dense_cap_mask"][0], strict=True)]  # fmt: skip
    assert told == [[0], [1, 2], [1, 2], []]
    del video["caption_tokens"], video["subtitle_tokens"]  # nothing is said, nothing is told
    inputs = task.collate([(example, [video])]).inputs
    assert not inputs["dense_cap_mask"].any()
    assert not inputs["sub_mask"].any()
    assert inputs["sub_bert"].shape == (1, 4, 1, 2)
    with pytest.raises(UsageError, match=f"no token features of question {example.id}, candidate"):
        task.collate([(example, [tokens_of(example, left_out=(3,))])])
    asked = task.ask(example.video_id, "What?", ["a", "b"])
    with pytest.raises(UsageError, match="a new question has none"):
        task.collate([(asked, [video])])


def test_texts_of_no_words_keep_one_place():
    ids, mask = padded_texts([[torch.tensor([1, 2])], [torch.tensor([], dtype=torch.int64)] * 2])
    assert ids.shape == mask.shape == (2, 2, 2)
    assert mask.sum() == 2


def test_the_loss_is_the_mean_of_the_three_sums(examples):
    task = fitted(examples)
    batch = task.collate([(example, [VIDEO]) for example in examples[:2]])
    scores = torch.zeros(2, 5)
    frames = torch.zeros(2, 5, 4)
    outputs = {"scores": scores, "frame_logits": frames, "frame_gates": frames + 0.5,
               "frame_mask": torch.ones(2, 5, 4, dtype=torch.bool)}  # fmt: skip
    wanted = torch.tensor(5.0).log() + 2 * torch.tensor(2.0).log() + 1
    torch.testing.assert_close(task.loss(outputs, batch), wanted)
    torch.testing.assert_close(task.loss({"scores": scores}, batch), torch.tensor(5.0).log())


def test_figures_are_by_series_and_none_where_answers_are_hidden(dataset, examples, tmp_path):
    task = fitted(examples)
    records = [{"id": str(n), "prediction": 1, "answer": n % 2, "part": part}
               for n, part in enumerate(("bbt", "bbt", "house"))]  # fmt: skip
    assert task.metrics(records) == {
        "accuracy": pytest.approx(100 / 3), "accuracy/bbt": 50, "accuracy/house": 0
    }  # fmt: skip
    hidden = SubtitledQaTask.read_examples(dataset, "test_public")
    baseline = task.baseline(examples, hidden)
    assert task.metrics(baseline) == {}
    assert task.shown(baseline[0]).right == ""
    path = task.write_predictions(records, tmp_path, "test_public")
    assert json.loads(path.read_text()) == {"0": 1, "1": 1, "2": 1}


def test_a_question_is_asked_about_a_video_with_subtitles(examples):
    task = fitted(examples)
    asked = task.ask(examples[0].video_id, "What is it?", ["a cup", "a hat"])
    assert task.beside(asked, examples).lines == examples[0].lines
    with pytest.raises(UsageError, match="what is said in 'unheard' is not known"):
        task.beside(task.ask("unheard", "What?", ["a", "b"]), examples)
    with pytest.raises(UsageError, match="no subtitles, and the network reads them"):
        task.collate([(asked, [VIDEO])])
    assert find_task("subtitled_qa") is SubtitledQaTask
