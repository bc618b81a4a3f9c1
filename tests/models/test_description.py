"""The task of describing clips: what is read, learnt, written and counted."""

import json

import pytest
import torch
from torch import nn

from vlpipe.models.tasks.description import DescriptionSettings, DescriptionTask
from vlpipe.models.tasks.sentence_task import SentenceExample
from vlpipe.models.tasks.task import Batch
from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.errors import UsageError

TRAIN = [
    SentenceExample("1", "v1", "A dog jumps."),
    SentenceExample("2", "v2", "A cat sits, then a dog jumps"),
    SentenceExample("3", "v3", "a dog jumps"),
]


def fitted(**settings):
    return DescriptionTask.fit(DescriptionSettings(**settings), TRAIN, None)


def test_captions_are_padded_and_cut():
    task = fitted(max_words=4)
    video = {"video": torch.zeros(2), "video_len": torch.tensor(1)}
    batch = task.collate([(example, (video,)) for example in TRAIN])
    ids = task.vocabulary.ids
    assert batch.inputs["caption"].tolist() == [
        [2, ids["a"], ids["dog"], ids["jumps"], 3, 1],
        [2, ids["a"], ids["cat"], ids["sits"], ids[","], 3],
        [2, ids["a"], ids["dog"], ids["jumps"], 3, 1],
    ]
    assert batch.targets["sentence"].equal(batch.inputs["caption"])
    assert batch.inputs["video"].shape == (3, 2)
    again = DescriptionTask.from_json(json.loads(json.dumps(task.to_json())))
    assert again.vocabulary == task.vocabulary
    assert again.settings == task.settings
    assert next(iter(task.sentences_of(TRAIN))) == ["a", "dog", "jumps"]


def test_padding_costs_nothing():
    task = fitted()
    batch = task.collate([(example, ({},)) for example in TRAIN])
    size = len(task.vocabulary)
    logits = torch.randn(3, batch.inputs["caption"].shape[1] - 1, size)
    wanted = 0.0
    for row, ids in zip(logits, batch.inputs["caption"].tolist(), strict=True):
        for step, word in enumerate(ids[1:]):
            wanted -= float(row[step].log_softmax(dim=0)[word]) if word != 1 else 0.0
    found = float(task.loss({"logits": logits}, batch))
    assert found == pytest.approx(wanted / 3, rel=1e-5)


class Parrot(nn.Module):
    """Writes the words 4, 5, ... in as many steps as the video says."""

    def write_captions(self, *, video, video_len, max_words, beams):
        self.asked = (video, video_len, max_words, beams)
        rows = [[2, *range(4, 4 + int(count)), 3, 7] for count in video_len]
        most = max(map(len, rows))
        return torch.tensor([row + [1] * (most - len(row)) for row in rows])


def test_each_video_is_described_once_and_compared_with_all_its_sentences():
    task = fitted(beams=3, max_words=5)
    examples = [
        SentenceExample("1", "v1", "a dog jumps"),
        SentenceExample("2", "v2", "nothing"),
        SentenceExample("3", "v1", "dogs"),
    ]
    videos = {"v1": 2, "v2": 3}
    items = [
        (e, ({"video": torch.tensor([1.0]), "video_len": torch.tensor(videos[e.video_id])},))
        for e in examples
    ]
    parrot = Parrot()
    records = task.predict(parrot, [task.collate(items)])
    assert len(parrot.asked[0]) == 2
    assert parrot.asked[2:] == (5, 3)
    words = task.vocabulary.words
    assert records[0]["prediction"] == f"{words[4]} {words[5]}".capitalize()
    assert records[2]["prediction"] == records[0]["prediction"]
    figures = task.metrics(records)
    assert figures["bleu_1"] > 0
    alone = task.metrics([records[0], records[1]])
    assert figures["rouge_l"] >= alone["rouge_l"]
    perfect = [{**r, "prediction": r["answer"]} for r in records[:2]]
    assert task.metrics(perfect)["rouge_l"] == pytest.approx(100)
    assert task.metrics(perfect)["cider"] > alone["cider"]
    with pytest.raises(UsageError, match="Linear has none"):
        task.predict(nn.Linear(1, 1), [])


def test_the_baseline_and_the_file(tmp_path):
    task = fitted()
    records = task.baseline(TRAIN, TRAIN[:2])
    assert {record["prediction"] for record in records} == {"A dog jumps"}
    path = task.write_predictions(records, tmp_path, "test")
    assert json.loads(path.read_text(encoding="utf-8")) == [
        {"video_id": "v1", "caption": "A dog jumps"},
        {"video_id": "v2", "caption": "A dog jumps"},
    ]
    assert task.shown(records[0]).is_right
    assert not task.shown(records[1]).is_right


def test_right_words_before_give_the_next():
    task = fitted()
    batch = Batch((TRAIN[0],), {"caption": torch.tensor([[2, 4, 5, 3]])})
    logits = torch.eye(len(task.vocabulary))[[5, 6, 3]][None]
    (record,) = task.decode({"logits": logits}, batch)
    assert record["prediction"] == task.vocabulary.sentence([5, 6])


def test_lsmdc_is_tested_on_all_clips_of_the_public_test(tmp_path):
    times = "\t".join(["00.00.00.000"] * 4)
    for name, clips in (
        ("LSMDC16_annos_training.csv", ["a", "b"]),
        ("LSMDC16_annos_val.csv", ["c"]),
        ("LSMDC16_challenge_1000_publictect.csv", ["d"]),
        ("LSMDC16_annos_test.csv", ["d", "e"]),
    ):
        lines = [f"{clip}\t{times}\tSOMEONE walks." for clip in clips]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    dataset = open_dataset("lsmdc", tmp_path)
    found = DescriptionTask.read_examples(dataset, "test")
    assert [example.video_id for example in found] == ["d", "e"]
    assert [e.video_id for e in DescriptionTask.read_examples(dataset, "train")] == ["a", "b"]
    with pytest.raises(UsageError, match="no split 'blind'"):
        DescriptionTask.read_examples(dataset, "blind")
    (tmp_path / "LSMDC16_annos_test.csv").unlink()
    with pytest.raises(Exception, match=r"LSMDC16_annos_test\.csv is not in"):
        DescriptionTask.read_examples(dataset, "test")
