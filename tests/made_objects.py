"""Small pictures of coloured rectangles with COCO annotations, for tests of VC R-CNN's training."""

import json
import random

import numpy as np
from PIL import Image

from vlpipe.extractors.networks import caffe_resnet, vc_rcnn
from vlpipe.pipelines.commonsense_training.job import CommonsenseJob, parse_commonsense_settings

COLORS = {
    "red": (200, 30, 30),
    "green": (30, 180, 40),
    "blue": (30, 60, 210),
    "gold": (220, 190, 40),
}
CATEGORY_IDS = {"red": 3, "green": 90, "blue": 7, "gold": 44}
LABELS = ("red", "blue", "gold", "green")
"""The categories in the order of their ids."""

SIZE = (96, 64)


def make_objects(folder, *, num_images=6, seed=0):
    """Pictures below `folder/images` and `folder/instances.json`; its content comes back.

    Red stands beside blue, and green beside gold.
    """
    rng = random.Random(seed)
    (folder / "images" / "part").mkdir(parents=True)
    images, annotations = [], []
    for n in range(num_images):
        picture = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
        name = f"part/{n}.png" if n % 2 else f"{n}.png"
        pair = ("red", "blue") if n % 2 else ("green", "gold")
        for place, color in enumerate(pair):
            x, y = 4 + 46 * place + rng.randint(0, 8), rng.randint(2, 20)
            width, height = rng.randint(24, 36), rng.randint(24, 40)
            picture[y : y + height, x : x + width] = COLORS[color]
            annotations.append(
                {"image_id": 10 + n, "category_id": CATEGORY_IDS[color],
                 "bbox": [x, y, width, height], "iscrowd": 0}
            )  # fmt: skip
        Image.fromarray(picture).save(folder / "images" / name)
        images.append({"id": 10 + n, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
    categories = [{"id": key, "name": name} for name, key in CATEGORY_IDS.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_instances(folder, content)
    return content


def write_instances(folder, content):
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")


def make_job(folder, out, *changes, **values):
    """A job on what `make_objects` made, for a small network on small pictures."""
    settings = parse_commonsense_settings(
        None,
        ["depth=50", "causal_width=8", "shorter_edge=64", "longer_edge=96", "iterations=5",
         "batch_size=2", "warmup_iterations=2", "learning_rate=0.001", "device=cpu", *changes],
    )  # fmt: skip
    given = {"weights": "untrained"} | values
    return CommonsenseJob(
        instances=folder / "instances.json", images=folder / "images", out=out, settings=settings,
        **given,
    )  # fmt: skip


def make_networks_small(monkeypatch):
    """ResNet-50 gets one block a stage, and a thin pyramid: the parts are the same."""
    monkeypatch.setitem(caffe_resnet.DEPTHS, 50, (1, 1, 1, 1))
    monkeypatch.setattr(vc_rcnn, "PYRAMID_CHANNELS", 16)
