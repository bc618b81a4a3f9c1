"""Small question tables and features that answer them, for tests of training.

The features are made here and carry the answers in the clear, so that a tiny network learns them
in seconds; nothing of this is read by the demonstration.
"""

import csv
import random

import numpy as np

from vlpipe.pipelines.training.job import TrainingJob, parse_settings
from vlpipe.stores import FeatureDefinition, Features, FeatureStore

ACTIONS = ("jump", "spin", "nod", "wave", "roll", "clap")
COLORS = ("red", "green", "blue", "white")
WIDTH = 12

# A network of the same parts, small enough for a test.
TINY = (
    "features.appearance_global=clips", "features.appearance_local=objects",
    "features.motion_global=clips", "features.motion_local=objects", "features.boxes=none",
    "model.hidden=16", "model.word_width=8", "model.glimpses=2", "model.graph_layers=1",
    "model.max_clips=4", "model.train_words=true", "model.train_projections=true",
    "model.dropout=0.1", "batch_size=8", "learning_rate=0.01", "device=cpu", "schedule=constant",
)  # fmt: skip


def _table(path, columns, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)


def make_dataset(root, *, num_train=48, num_test=16):
    """TGIF-QA tables of the tasks count, action and frameqa about gif0, gif1, ...; the truth."""
    root.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    truth = [
        {
            "name": f"gif{n}",
            "count": rng.randint(1, 6),
            "action": rng.choice(ACTIONS),
            "color": rng.choice(COLORS),
        }
        for n in range(num_train + num_test)
    ]
    for prefix, part in (("Train", truth[:num_train]), ("Test", truth[num_train:])):
        rows = {"count": [], "action": [], "frameqa": []}
        for facts in part:
            key = int(facts["name"].removeprefix("gif"))
            common = {"gif_name": facts["name"], "key": key}
            rows["count"].append(
                common
                | {
                    "question": "how many times does it happen ?",
                    "answer": facts["count"],
                    "vid_id": f"COUNT{key}",
                }
            )
            others = rng.sample([a for a in ACTIONS if a != facts["action"]], 4)
            choices = [facts["action"], *others]
            rng.shuffle(choices)
            rows["action"].append(
                common
                | {"question": "what is done 2 times ?", "vid_id": f"ACTION{key}"}
                | {f"a{i}": choice for i, choice in enumerate(choices, 1)}
                | {"answer": choices.index(facts["action"])}
            )
            rows["frameqa"].append(
                common
                | {"question": "what color is it ?", "answer": facts["color"], "type": 2}
                | {"vid_id": f"FRAMEQA{key}", "description": f"something {facts['color']}"}
            )
        columns = {
            "count": ("gif_name", "question", "answer", "vid_id", "key"),
            "action": (
                "gif_name", "question", "a1", "a2", "a3", "a4", "a5", "answer", "vid_id", "key",
            ),
            "frameqa": (
                "gif_name", "question", "answer", "type", "vid_id", "key", "description",
            ),
        }  # fmt: skip
        for task, of_task in rows.items():
            _table(root / f"{prefix}_{task}_question.csv", columns[task], of_task)
    return truth


def make_store(url, truth, *, without=()):
    """A store of `clips` [T, 12] and `objects` [T, 2, 12] in which each answer is one number."""
    store = FeatureStore.create(url, durability="process")
    clips = FeatureDefinition("clips", "float16", (WIDTH,), ("channel",))
    objects = FeatureDefinition("objects", "float16", (2, WIDTH), ("object", "channel"))
    rng = np.random.default_rng(0)
    with store.writer([clips, objects]) as writer:
        for facts in truth:
            if facts["name"] in without:
                continue
            length = int(rng.integers(2, 6))
            told = np.zeros(WIDTH)
            told[0] = facts["count"] / 3
            told[1 + ACTIONS.index(facts["action"])] = 2
            told[7 + COLORS.index(facts["color"])] = 2
            rows = told + 0.05 * rng.standard_normal((length, WIDTH))
            local = told + 0.05 * rng.standard_normal((length, 2, WIDTH))
            edges = np.arange(length + 1) / 2.0
            spans = np.stack([edges[:-1], edges[1:]], axis=1)
            writer.add(
                facts["name"],
                {
                    "clips": Features(rows.astype(np.float16), spans),
                    "objects": Features(local.astype(np.float16), spans),
                },
            )
    return store


def make_job(folder, task="count", *changes, out="run", **fields):
    """A job over the dataset and the store below `folder`, which are made when missing."""
    if not (folder / "tables").exists():
        make_store(folder / "store", make_dataset(folder / "tables"))
    return TrainingJob(
        model="masn",
        task=task,
        dataset="tgif",
        root=folder / "tables",
        store=str(folder / "store"),
        out=folder / out,
        settings=parse_settings(changes=(*TINY, *changes)),
        **fields,
    )
