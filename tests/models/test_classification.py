"""The task of actions: which clips teach and count, loss, scores, records, what it refuses."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_actions import NAMES, make_tables

from vlpipe.models.tasks import find_task
from vlpipe.models.tasks.classification import (
    ActionExample,
    ClassificationSettings,
    ClassificationTask,
)
from vlpipe.stores.datasets import Action, ActionClass, open_dataset
from vlpipe.stores.errors import UsageError

CLASSES = tuple(ActionClass(f"c{place:03d}", name) for place, name in enumerate(NAMES))
LONG = ActionExample("LONG0", (Action(1, 0, 4), Action(3, 13, 16)))
SHORT = ActionExample("SHORT", ())


def make_task(**settings):
    return ClassificationTask(ClassificationSettings(**settings), CLASSES)


def clips_of(duration_s):
    """Windows of 6 s every 3 s; the clip is its own start."""
    starts = np.arange(0, duration_s, 3.0)
    spans = np.stack([starts, np.minimum(starts + 6, duration_s)], axis=1)
    return {"clips": torch.from_numpy(starts[:, None]).float(), "spans": torch.from_numpy(spans)}


def make_batch(task):
    return task.collate([(LONG, [clips_of(17)]), (SHORT, [clips_of(4)])])


def test_a_batch_has_the_clips_of_all_videos_behind_each_other():
    batch = make_batch(make_task(stride_s=6))
    assert batch.inputs["clips"][:, 0].tolist() == [0, 3, 6, 9, 12, 15, 0, 3]
    assert set(batch.inputs) == {"clips"}
    assert batch.targets["video"].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    # 12 to 17 is cut short by the video's end, so that nothing is learnt from it.
    assert batch.targets["is_trained"].tolist() == [
        True, False, True, False, False, False, True, False,
    ]  # fmt: skip
    assert batch.targets["is_scored"].tolist() == [
        True, False, True, False, True, False, True, False,
    ]  # fmt: skip
    assert batch.targets["label"][:, 1].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert batch.targets["label"][:, 3].tolist() == [0, 0, 0, 1, 1, 1, 0, 0]


def test_the_loss_is_cross_entropy_of_training_clips_with_weighted_positives():
    task = make_task(pos_weight=3.0)
    batch = make_batch(task)
    logits = torch.linspace(-2, 2, 8 * len(NAMES)).view(8, len(NAMES))
    terms = []
    for row in (0, 2, 6):
        for place in range(len(NAMES)):
            share = 1 / (1 + math.exp(-float(logits[row, place])))
            is_there = batch.targets["label"][row, place] == 1
            terms.append(-3 * math.log(share) if is_there else -math.log(1 - share))
    found = task.loss({"logits": logits}, batch)
    assert float(found) == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    logits[[1, 3, 4, 5, 7]] = 1e4  # other clips
    assert float(task.loss({"logits": logits}, batch)) == pytest.approx(float(found))


def test_a_video_scores_what_its_best_scored_clip_does():
    task = make_task(stride_s=6, top=2)
    batch = make_batch(task)
    logits = torch.full((8, len(NAMES)), -3.0)
    logits[4, 3], logits[2, 0], logits[1, 2], logits[6, 4] = 2, 1, 9, 0
    long, short = task.decode({"logits": logits}, batch)
    share = torch.tensor([1, -3, -3, 2, -3.0]).sigmoid()
    assert long["scores"] == pytest.approx(share.tolist())
    assert list(long["best"]) == ["Laughing", "Holding a box"]
    assert long["prediction"] == "Laughing"
    assert long["answer"] == ["Opening a door", "Laughing"]
    assert short["prediction"] == "Running"
    assert short["labels"] == []
    shown = task.shown(long)
    assert shown.given == (
        "Laughing 0.88 (annotated); Holding a box 0.73; also annotated: Opening a door"
    )
    assert shown.right == "Opening a door; Laughing"
    assert shown.is_right
    assert task.shown(short).right == "no action"
    assert not task.shown(short).is_right
    json.dumps([long, short])


@given(st.permutations(range(4)), st.integers(1, 4))
def test_scores_depend_neither_on_the_batch_nor_on_its_order(order, size):
    task = make_task()
    videos = [(ActionExample(f"v{n}", (Action(n, 0, 3),)), [clips_of(4 + 5 * n)]) for n in range(4)]
    table = torch.randn(64, len(NAMES), generator=torch.Generator().manual_seed(0))

    def scores(items):
        batch = task.collate(items)
        own = batch.inputs["clips"][:, 0].long()
        return {r["id"]: r["scores"] for r in task.decode({"logits": table[own]}, batch)}

    alone = {key: value for item in videos for key, value in scores([item]).items()}
    chosen = [videos[n] for n in order[:size]]
    assert scores(chosen) == {item[0].id: alone[item[0].id] for item in chosen}


def test_the_baseline_is_how_often_a_class_occurs():
    task = make_task(top=1)
    train = [LONG, SHORT, ActionExample("a", (Action(1, 0, 1), Action(1, 5, 6)))]
    (record,) = task.baseline(train, [SHORT])
    assert record["scores"] == pytest.approx([0, 2 / 3, 0, 1 / 3, 0])
    assert record["best"] == pytest.approx({"Opening a door": 2 / 3})


def test_videos_without_labels_stand_last_in_the_benchmarks_figure():
    task = make_task()
    right, silent = task.baseline([LONG], [LONG, SHORT])
    silent["scores"] = [1.0] * len(NAMES)
    assert task.metrics([right, silent]) == {"mAP": 100, "mAP/unlabelled_ranked": 50}
    with pytest.raises(UsageError, match="none of the 1 videos has an annotated action"):
        task.metrics([silent])


def test_what_is_read_and_kept(tmp_path):
    make_tables(tmp_path)
    dataset = open_dataset("charades", tmp_path)
    task_class = find_task("classification")
    assert task_class.splits(dataset) == ("train", "test")
    examples = task_class.read_examples(dataset, "test")
    assert [e.id for e in examples] == [v.id for v in dataset.videos("test")]
    task = task_class.fit(ClassificationSettings(pos_weight=1.5), examples, dataset)
    again = task_class.from_json(json.loads(json.dumps(task.to_json())))
    assert again.to_json() == task.to_json()
    assert again.classes == CLASSES
    assert again.model_settings() == {"num_classes": len(NAMES)}
    with pytest.raises(UsageError, match="no split 'val'; they have: train, test"):
        task_class.read_examples(dataset, "val")
    with pytest.raises(UsageError, match="'folder' has no actions to classify"):
        task_class.splits(open_dataset("folder", tmp_path))
