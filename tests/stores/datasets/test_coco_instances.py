"""COCO's instances: labels, boxes, what is left out, and files that are not of that form."""

import copy

import made_objects
import numpy as np
import pytest

from vlpipe.stores.datasets.coco_instances import read_instances
from vlpipe.stores.errors import AnnotationError


@pytest.fixture
def content(tmp_path):
    return made_objects.make_objects(tmp_path, num_images=2)


def read(folder, content, **options):
    made_objects.write_instances(folder, content)
    return read_instances(folder / "instances.json", **options)


def test_labels_are_places_in_the_order_of_ids(tmp_path, content):
    found = read(tmp_path, content)
    assert found.categories == made_objects.LABELS
    assert [image.file for image in found.images] == ["0.png", "part/1.png"]
    green_and_gold, red_and_blue = found.images
    assert green_and_gold.labels.tolist() == [3, 2]
    assert red_and_blue.labels.tolist() == [0, 1]
    assert found.label_counts().tolist() == [1, 1, 1, 1]


def test_boxes_end_at_their_last_pixel_inside_the_image(tmp_path, content):
    first, second = content["annotations"][:2]
    first["bbox"], second["bbox"] = [10.5, 20, 5, 4], [-5, 60, 300, 100]
    (image, _) = read(tmp_path, content).images
    assert image.boxes.dtype == np.float32
    assert image.boxes.tolist() == [[10.5, 20, 14.5, 23], [0, 60, 95, 63]]


def test_crowds_and_empty_boxes_are_left_out_and_counted(tmp_path, content):
    extra = content["annotations"]
    for bbox, iscrowd in (([1, 1, 5, 5], 1), ([1, 1, 0, 9], 0), ([200, 1, 9, 9], 0)):
        extra.append({"image_id": 10, "category_id": 3, "bbox": bbox, "iscrowd": iscrowd})
    found = read(tmp_path, content)
    assert found.left_out == {"crowds": 1, "empty_boxes": 2, "images": 0}
    assert [len(image.labels) for image in found.images] == [2, 2]


def test_images_with_too_few_objects_are_left_out(tmp_path, content):
    del content["annotations"][0]
    found = read(tmp_path, content)
    assert [image.file for image in found.images] == ["part/1.png"]
    assert found.left_out["images"] == 1
    assert len(read(tmp_path, content, min_objects=1).images) == 2


def _without(part, number, key):
    def change(content):
        del content[part][number][key]

    return change


def _with(part, number, **values):
    def change(content):
        content[part][number].update(values)

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.pop("annotations"), "no list 'annotations'"),
        (_without("images", 1, "width"), "entry 1 of images: there is no 'width'"),
        (_with("images", 0, file_name="../../secret.png"), "entry 0 of images: file_name"),
        (_with("images", 0, file_name="/etc/passwd"), "entry 0 of images: file_name"),
        (_with("images", 0, file_name="a\\b.png"), "backslash"),
        (_with("images", 0, height=0), "96 x 0 pixels"),
        (_with("images", 0, id=11), "2 images have 1 different ids"),
        (_with("categories", 0, id=7), "4 categories have 3 different ids"),
        (_with("annotations", 2, category_id=5), "entry 2 of annotations: there is no 5"),
        (_with("annotations", 2, image_id=5), "entry 2 of annotations: there is no 5"),
        (_with("annotations", 2, bbox=[1, 2, 3]), "entry 2 of annotations"),
        (_with("annotations", 2, bbox=[1, 2, 3, float("nan")]), "not finite"),
        (lambda c: c["annotations"].append("x"), "entry 4 of annotations"),
    ],
)
def test_other_files_are_named_with_the_entry(tmp_path, content, change, named):
    content = copy.deepcopy(content)
    change(content)
    with pytest.raises(AnnotationError, match=named) as caught:
        read(tmp_path, content)
    assert "instances.json" in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{", "\x00"])
def test_what_is_no_object_of_json_is_named(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=r"x\.json"):
        read_instances(path)
