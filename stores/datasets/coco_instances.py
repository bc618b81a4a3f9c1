"""Objects in still images, from annotations in the form of COCO's `instances_*.json`.

Not a dataset of videos: what VC R-CNN is trained on. Any file of this form will do:

    {"images": [{"id": 9, "file_name": "a.jpg", "width": 640, "height": 480}],
     "annotations": [{"image_id": 9, "category_id": 18, "bbox": [x, y, width, height]}],
     "categories": [{"id": 18, "name": "dog"}]}

The label of a category is its place in the order of ids: COCO's 80 categories, whose ids go up to
90, have the labels 0 to 79. Boxes are counted in whole pixels, as maskrcnn-benchmark does: the last
pixel of a box is x + width - 1, and no box leaves its image.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.datasets._ids import id_problem
from vlpipe.stores.errors import AnnotationError

_FORM = "expected the form of COCO's instances_*.json: images, annotations, categories"


@dataclass(frozen=True, slots=True, eq=False)
class ObjectImage:
    """An image and its objects.

    file: its name below the folder of images, perhaps with folders. width, height: pixels, as the
    annotations say. boxes: float32 (n, 4), x1, y1, x2, y2 in pixels. labels: int64 (n,).
    """

    file: str
    width: int
    height: int
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CocoInstances:
    """What an annotation file holds.

    categories: names, by label. images: those with enough objects, in the order of their ids.
    left_out: how many objects are crowds or have no area inside their image, and how many images
    have too few objects after that: `crowds`, `empty_boxes`, `images`.
    """

    path: Path
    categories: tuple[str, ...]
    images: tuple[ObjectImage, ...]
    left_out: Mapping[str, int]

    def label_counts(self) -> npt.NDArray[np.int64]:
        """int64 (number of categories,): how many objects have each label."""
        labels = [image.labels for image in self.images]
        return np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(self))

    def __len__(self) -> int:
        return len(self.categories)


def read_instances(path: Path, *, min_objects: int = 2) -> CocoInstances:
    """The images that have at least so many objects.

    Raises AnnotationError, with the entry named, for a file that is not of this form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AnnotationError(f"{path} cannot be read: {error}", hint=_FORM) from error
    if not isinstance(content, dict):
        raise AnnotationError(f"{path} holds a {type(content).__name__}", hint=_FORM)
    for part in ("images", "annotations", "categories"):
        if not isinstance(content.get(part), list):
            raise AnnotationError(f"{path} has no list {part!r}", hint=_FORM)
    names = {}
    for number, entry in enumerate(content["categories"]):
        try:
            names[int(entry["id"])] = str(entry["name"])
        except (KeyError, TypeError, ValueError) as error:
            raise _bad(path, "categories", number, error) from error
    _require_different(path, "categories", len(names), len(content["categories"]))
    labels = {category: label for label, category in enumerate(sorted(names))}
    images = _read_images(path, content["images"])
    found: dict[Any, list[tuple[int, list[float]]]] = {image: [] for image in images}
    left_out = {"crowds": 0, "empty_boxes": 0, "images": 0}
    for number, entry in enumerate(content["annotations"]):
        try:
            image, label = entry["image_id"], labels[entry["category_id"]]
            box = _box_inside(entry["bbox"], *images[image][1:])
            if entry.get("iscrowd"):
                left_out["crowds"] += 1
            elif box is None:
                left_out["empty_boxes"] += 1
            else:
                found[image].append((label, box))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _bad(path, "annotations", number, error) from error
    kept = []
    for image in sorted(found):
        objects = found[image]
        if len(objects) < min_objects:
            left_out["images"] += 1
            continue
        boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
        kept.append(ObjectImage(*images[image], boxes, np.array([label for label, _ in objects])))
    return CocoInstances(path, tuple(names[i] for i in sorted(names)), tuple(kept), left_out)


def _read_images(path: Path, entries: list[Any]) -> dict[Any, tuple[str, int, int]]:
    """Id -> name of the file, width, height."""
    images: dict[Any, tuple[str, int, int]] = {}
    for number, entry in enumerate(entries):
        try:
            file, width, height = str(entry["file_name"]), int(entry["width"]), int(entry["height"])
            _require_usable(file, width, height)
            images[int(entry["id"])] = (file, width, height)
        except (KeyError, TypeError, ValueError) as error:
            raise _bad(path, "images", number, error) from error
    _require_different(path, "images", len(images), len(entries))
    return images


def _require_usable(file: str, width: int, height: int) -> None:
    problem = id_problem(file, may_have_folders=True)
    if problem or "\\" in file:
        raise ValueError(f"file_name: {problem or f'{file!r} has a backslash'}")
    if min(width, height) < 1:
        raise ValueError(f"{file} has {width} x {height} pixels")


def _box_inside(given: Any, width: int, height: int) -> list[float] | None:  # noqa: ANN401 - JSON
    """x1, y1, x2, y2 cut to the image; None if nothing of it is left."""
    x, y, box_width, box_height = (float(value) for value in given)
    if not all(map(math.isfinite, (x, y, box_width, box_height))):
        raise ValueError(f"bbox {given} is not finite")
    right, bottom = x + max(box_width - 1, 0.0), y + max(box_height - 1, 0.0)
    x1, x2 = (min(max(edge, 0.0), width - 1.0) for edge in (x, right))
    y1, y2 = (min(max(edge, 0.0), height - 1.0) for edge in (y, bottom))
    return [x1, y1, x2, y2] if x2 > x1 and y2 > y1 else None


def _require_different(path: Path, part: str, num_ids: int, num_entries: int) -> None:
    if num_ids != num_entries:
        raise AnnotationError(f"{path}: {num_entries} {part} have {num_ids} different ids")


def _bad(path: Path, part: str, number: int, error: Exception) -> AnnotationError:
    what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
    return AnnotationError(f"{path}: entry {number} of {part}: {what}", hint=_FORM)
