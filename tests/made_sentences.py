"""Sentences about videos, choices and blanks in MSR-VTT's files, and features that answer them."""

import csv
import json
import random

import numpy as np

from vlpipe.pipelines.training.job import TrainingJob, parse_settings
from vlpipe.stores import FeatureDefinition, Features, FeatureStore

COLORS = ("red", "green", "blue", "white", "black")
VERBS = ("jumps", "spins", "waits", "sings")
TOLD = [(color, verb) for color in COLORS for verb in VERBS]
WIDTH = len(COLORS) + len(VERBS)

# Networks of the same parts, small enough for a test.
TINY = {
    "jsfusion": (
        "features.frames=frames", "features.sound=none", "model.max_frames=7", "model.hidden=8",
        "model.word_width=8", "model.widths=[16, 16, 8, 8, 8, 16]", "model.dropout=0",
        "model.norm_momentum=0.1",
    ),
    "ct-san": (
        "features.frames=frames", "model.max_frames=5", "model.hidden=16", "model.word_width=8",
        "model.dropout=0", "model.layers=1", "model.layer_norm=false", "model.concepts=4",
        "model.pooled_width=256", "model.maxout_width=16",
    ),
}  # fmt: skip
SHORT = ("task.max_words=8", "batch_size=8", "learning_rate=0.01", "device=cpu")


def sentence_of(told):
    return f"a {told[0]} dog {told[1]} twice"


def make_tables(root, *, num_train=60):
    """Tables of `msrvtt-retrieval` about video0, video1, ...: all twenty things are in the test."""
    root.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    train = {f"video{n}": TOLD[n % len(TOLD)] for n in range(num_train)}
    test = {f"video{7010 + n}": told for n, told in enumerate(TOLD)}
    sentences = [
        {"caption": sentence_of(told), "video_id": video, "sen_id": n}
        for n, (video, told) in enumerate(train.items())
    ]
    (root / "train_val_videodatainfo.json").write_text(json.dumps({"sentences": sentences}))
    pairs, choices = [], []
    for n, (video, told) in enumerate(test.items()):
        key = video.replace("video", "msr")
        pairs.append((f"ret{n}", key, video, sentence_of(told)))
        offered = rng.sample([sentence_of(other) for other in TOLD if other != told], 4)
        offered.insert(n % 5, sentence_of(told))
        choices.append((f"MC{n}", key, *offered, n % 5))
    _write(root / "MSRVTT_JSFUSION_test.csv", ",", "key vid_key video_id sentence", pairs)
    _write(root / "MSR_MC_test.csv", "\t", "key vid_key a1 a2 a3 a4 a5 answer", choices)
    for split, told_of in (("train", train), ("test", test)):
        blanks = [
            (
                f"FIB{n}",
                video.replace("video", "msr"),
                sentence_of(told),
                _blank(told, n),
                told[n % 2],
            )
            for n, (video, told) in enumerate(told_of.items())
        ]
        columns = "key vid_key sentence blank_sentence answer"
        _write(root / f"MSR_FIB_{split}.csv", "\t", columns, blanks)
    return train | test


def _blank(told, n):
    return sentence_of(told).replace(told[n % 2], "_____")


def _write(path, delimiter, columns, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([columns.split(), *rows])


def make_features(url, truth):
    """A store of `frames` [T, 9] at two a second, from which each sentence follows."""
    store = FeatureStore.create(url, durability="process")
    frames = FeatureDefinition("frames", "float16", (WIDTH,), ("channel",))
    rng = np.random.default_rng(0)
    with store.writer([frames]) as writer:
        for video, (color, verb) in truth.items():
            told = np.zeros(WIDTH)
            told[COLORS.index(color)] = told[len(COLORS) + VERBS.index(verb)] = 2
            rows = told + 0.05 * rng.standard_normal((int(rng.integers(2, 10)), WIDTH))
            edges = np.arange(len(rows) + 1) / 2.0
            spans = np.stack([edges[:-1], edges[1:]], axis=1)
            writer.add(video, {"frames": Features(rows.astype(np.float16), spans)})
    return store


def make_job(folder, task, *changes, out=None, model="jsfusion"):
    """A job over the tables and the store below `folder`, which are made when missing."""
    if not (folder / "tables").exists():
        make_features(folder / "store", make_tables(folder / "tables"))
    return TrainingJob(
        model=model,
        task=task,
        dataset="msrvtt-retrieval",
        root=folder / "tables",
        store=str(folder / "store"),
        out=folder / (out or task),
        settings=parse_settings(changes=(*TINY[model], *SHORT, *changes)),
    )
