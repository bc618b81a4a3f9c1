"""What the tests of exchange share: a store with the features of published layouts, small."""

import io

import numpy as np

from vlpipe.stores import FeatureDefinition, Features, FeatureStore

IDS = ("tumblr_a", "tumblr_b", "tumblr_c")
KEYS = {"tumblr_a": "7", "tumblr_b": "19523", "tumblr_c": "4"}

DEFINITIONS = {
    "resnet152": ((2048,), "float16"),
    "i3d_resnet50": ((2048,), "float32"),
    "objects": ((10, 2048), "float16"),
    "objects_spatial": ((10, 6), "float32"),
    "objects_motion": ((10, 2048), "float64"),
    "i3d_rgb": ((1024,), "float16"),
    "i3d_flow": ((1024,), "float16"),
    "vggish": ((128,), "float32"),
}


def definition(name, dtype=None, row_shape=None):
    shape, usual = DEFINITIONS[name]
    shape = shape if row_shape is None else row_shape
    axes = tuple(f"a{n}" for n in range(len(shape)))
    return FeatureDefinition(name, dtype or usual, shape, axes, {"extractor": name})


def rows_of(name, video_id, num_rows, dtype=None):
    shape, usual = DEFINITIONS[name]
    seed = [*name.encode(), *video_id.encode()]
    return np.random.default_rng(seed).random((num_rows, *shape), np.float32).astype(dtype or usual)


def spans_of(num_rows, step=0.5):
    starts = np.arange(num_rows) * step
    return np.stack([starts, starts + step], axis=1)


def fill(store, names, ids=IDS, num_rows=lambda name, n: n + 2):
    with store.writer([definition(name) for name in names]) as writer:
        for n, video_id in enumerate(ids):
            writer.add(
                video_id,
                {
                    name: Features(rows_of(name, video_id, t), spans_of(t))
                    for name in names
                    if (t := num_rows(name, n)) is not None
                },
                source="ab" * 32,
                seconds=1.5,
                source_size=10,
                source_mtime_ns=20 + n,
                note="made" if n == 0 else None,
            )
    return store


def make_store(path, names, **how):
    return fill(FeatureStore.create(path, durability="process"), names, **how)


def key_table(path, header=("gif_name", "question", "key")):
    """A question table as TGIF-QA has them: tabs, quotes, CRLF."""
    lines = ["\t".join(header)]
    lines += [f'{video_id}\t"does it ""jump""?"\t{key}' for video_id, key in KEYS.items()]
    lines += [f"{IDS[0]}\tagain\t{KEYS[IDS[0]]}"]  # a GIF has several questions
    path.write_bytes("\r\n".join(lines).encode() + b"\r\n")
    return path


def npy_bytes(array, **how):
    """The .npy file of an array."""
    stream = io.BytesIO()
    np.save(stream, array, **how)
    return stream.getvalue()


def imported(store, feature):
    """What the provenance of a feature says of its import."""
    return store[feature].info.provenance["imported"]
