"""Small tables of Charades, and features of windows in which the actions can be read."""

import random

import numpy as np

from vlpipe.pipelines.training.job import TrainingJob, parse_settings
from vlpipe.stores import FeatureDefinition, Features, FeatureStore

NAMES = ("Holding a box", "Opening a door", "Reading a book", "Laughing", "Running")
WIDTH = 8
WINDOW_S, STRIDE_S = 6.0, 3.0
NOBODY = "ID009"  # a test video without actions

TINY = (
    "features.clips=clips", "model.layers=[16, 16]", "model.dropout=0", "batch_size=8",
    "learning_rate=0.01", "device=cpu",
)  # fmt: skip


def make_tables(root, *, num_train=40, num_test=16):
    """Tables about ID000, ID001, ...; id -> (seconds, [(class, start, end)])."""
    root.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    lines = [f"c{place:03d} {name}\n" for place, name in enumerate(NAMES)]
    (root / "Charades_v1_classes.txt").write_text("".join(lines))
    truth = {}
    for split, count in (("test", num_test), ("train", num_train)):
        rows = ["id,script,descriptions,actions,length\n"]
        for _ in range(count):
            video_id, seconds = f"ID{len(truth):03d}", rng.randint(4, 30)
            actions = []
            for place in rng.sample(range(len(NAMES)), rng.randint(1, 3)):
                start = rng.randint(0, seconds - 2)
                actions.append((place, start, rng.randint(start + 1, seconds + 3)))
            if video_id == NOBODY:
                actions = []
            truth[video_id] = (seconds, actions)
            told = ";".join(f"c{place:03d} {start:.2f} {end:.2f}" for place, start, end in actions)
            rows.append(f'{video_id},"Someone, at home.",,{told},{seconds}\n')
        (root / f"Charades_v1_{split}.csv").write_text("".join(rows))
    return truth


def make_features(url, truth):
    """A store of `clips` [T, 8] and `clips_tokens` [T, 3, 8], windows of 6 s every 3 s."""
    store = FeatureStore.create(url, durability="process")
    clips = FeatureDefinition("clips", "float16", (WIDTH,), ("channel",))
    tokens = FeatureDefinition("clips_tokens", "float16", (3, WIDTH), ("token", "channel"))
    rng = np.random.default_rng(0)
    with store.writer([clips, tokens]) as writer:
        for video_id, (seconds, actions) in truth.items():
            starts = np.arange(0, seconds, STRIDE_S)
            spans = np.stack([starts, np.minimum(starts + WINDOW_S, seconds)], axis=1)
            rows = 0.05 * rng.standard_normal((len(spans), WIDTH))
            for place, start, end in actions:
                rows[(spans[:, 0] < end) & (spans[:, 1] > start), place] += 1
            many = np.repeat(rows[:, None], 3, axis=1)
            writer.add(
                video_id,
                {
                    "clips": Features(rows.astype(np.float16), spans),
                    "clips_tokens": Features(many.astype(np.float16), spans),
                },
            )
    return store


def make_place(folder):
    """Tables and features below a folder."""
    make_features(folder / "store", make_tables(folder / "tables"))
    return folder


def make_job(folder, *changes, out="run", model="svt_classifier"):
    """A job over what `make_place` made."""
    return TrainingJob(
        model=model,
        task="classification",
        dataset="charades",
        root=folder / "tables",
        store=str(folder / "store"),
        out=folder / out,
        settings=parse_settings(changes=(*TINY, *changes)),
    )
