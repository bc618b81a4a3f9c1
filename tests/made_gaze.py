"""Recordings of people who look at a spot, and C3D-like maps on which the spot is lit."""

import csv

import numpy as np

from vlpipe.pipelines.training.job import TrainingJob, parse_settings
from vlpipe.stores import FeatureDefinition, Features, FeatureStore

WIDTH, HEIGHT, CHANNELS, EDGE = 320, 240, 2, 7

# A network of the same parts, small enough for a test.
TINY = (
    "model.projected=4", "model.hidden=8", "model.channels=[8, 4, 2]", "task.sequence_length=3",
    "batch_size=4", "learning_rate=0.03", "gradient_clip=10", "device=cpu",
)  # fmt: skip


def make_spots(num_clips):
    """Clip -> (T, 2), row and column of the lit cell at each row of its features."""
    rng = np.random.default_rng(0)
    return {
        f"clip{n:02}": rng.integers(0, EDGE, (int(rng.integers(2, 7)), 2)) for n in range(num_clips)
    }


def spans_of(num_rows):
    """One frame in five at 25 a second, from the sixteenth on."""
    starts = (15 + 5 * np.arange(num_rows)) / 25
    return np.stack([starts, starts + 0.04], axis=1)


def make_tables(root, spots, *, num_test=6):
    """gaze.tsv and clips.tsv: three subjects near the spot; the last row of every clip unseen."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    clips, gaze = [], []
    for n, (clip, cells) in enumerate(spots.items()):
        dataset = ("hollywood2", "other")[n % 2]
        split = "test" if n >= len(spots) - num_test else "train"
        clips.append((dataset, clip, WIDTH, HEIGHT, split))
        for subject in ("ada", "ben", "cleo"):
            for t, cell in enumerate(cells):
                middle = (cell[::-1] + 0.5) / EDGE * [WIDTH, HEIGHT]
                x, y = (middle + rng.normal(0, 5, 2)).clip(0, [WIDTH - 1, HEIGHT - 1])
                is_valid = t < len(cells) - 1
                time_s = f"{spans_of(len(cells))[t, 0]:.3f}"
                gaze.append((dataset, clip, subject, time_s, x, y, int(is_valid)))
    write_table(root / "clips.tsv", "dataset clip width height split", clips)
    write_table(root / "gaze.tsv", "dataset clip subject time_s x y valid", gaze)


def write_table(path, columns, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([columns.split(), *rows])


def make_features(url, spots):
    """A store of `c3d_conv5b` [T, 2, 7, 7] in which one channel is 2 at the spot."""
    store = FeatureStore.create(url, durability="process")
    shape = (CHANNELS, EDGE, EDGE)
    maps = FeatureDefinition("c3d_conv5b", "float16", shape, ("channel", "y", "x"))
    rng = np.random.default_rng(2)
    with store.writer([maps]) as writer:
        for clip, cells in spots.items():
            rows = 0.05 * rng.standard_normal((len(cells), *shape))
            rows[np.arange(len(cells)), 1, cells[:, 0], cells[:, 1]] += 2
            features = Features(rows.astype(np.float16), spans_of(len(cells)))
            writer.add(clip, {"c3d_conv5b": features})
    return store


def make_job(folder, *changes, out="run", num_clips=28):
    """A job over the tables and the store below `folder`, which are made when missing."""
    if not (folder / "tables").exists():
        spots = make_spots(num_clips)
        make_tables(folder / "tables", spots)
        make_features(folder / "store", spots)
    return TrainingJob(
        model="gean",
        task="gaze",
        dataset="gaze-table",
        root=folder / "tables",
        store=str(folder / "store"),
        out=folder / out,
        settings=parse_settings(changes=(*TINY, *changes)),
    )
