"""Body parts: the picture of a person, cells of key points, and rows of whole clips."""

import numpy as np
import pytest
import torch
from drawn_figures import FigureDetector, behind_pillar, crossing, make_clip
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as transforms

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.body_parts import (
    BodyParts,
    cells_of,
    find_visible,
    vectors_at,
)
from vlpipe.extractors.extractor_spec import parse_config
from vlpipe.extractors.people.detectors import PERSON_DETECTORS, PersonDetectorEntry
from vlpipe.extractors.people.person_pictures import cut_person
from vlpipe.extractors.registry import find_extractor

SETTINGS = {"person_boxes": {"detector": "figures"}}


@pytest.fixture
def detect(monkeypatch):
    def enter(figures):
        entry = PersonDetectorEntry(
            build=lambda settings: FigureDetector(figures), has_keypoints=True
        )
        monkeypatch.setitem(PERSON_DETECTORS, "figures", entry)

    return enter


@pytest.mark.parametrize(
    ("place", "cell"),
    [(0, 0), (0.143, 0), (0.1431, 1), (0.5, 3), (0.85, 5), (0.99, 6), (1, 6), (-1, 0), (2, 6)],
)
def test_cells_of_a_map_of_7(place, cell):
    assert cells_of(np.array([place]), 7).tolist() == [cell]


@given(st.floats(0, 1), st.integers(1, 20))
def test_cells_grow_with_the_place_and_stay_in_the_map(place, num_cells):
    cell = int(cells_of(np.array([place]), num_cells)[0])
    assert 0 <= cell < num_cells
    assert cell <= place * num_cells < cell + 1.02


def test_x_is_the_column_and_y_the_row():
    res5c = np.arange(2 * 7 * 7, dtype=np.float32).reshape(2, 7, 7)
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[3] = (0.95, 0.2, 1)
    made = vectors_at(res5c, keypoints)
    assert made.shape == (17, 2)
    assert made[3].tolist() == res5c[:, 1, 6].tolist()
    assert made[0].tolist() == res5c[:, 0, 0].tolist()


def test_visible_is_sure_and_within_the_box():
    keypoints = np.array(
        [(0.5, 0.5, 0.31), (0.5, 0.5, 0.3), (1.01, 0.5, 0.9), (0.5, -0.01, 0.9), (0, 1, 0.9)]
    )
    assert find_visible(keypoints, 0.3).tolist() == [True, False, False, False, True]


def test_a_person_is_cut_as_in_the_published_code():
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    x1, y1, x2, y2 = box = np.array([10.6, 5.9, 60.2, 80.3], np.float32)
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[0] = (10, 5, 0.5)
    keypoints[1] = (59, 79, 0.9)
    picture, places = cut_person(frame, box, keypoints, 64)
    image = transforms.crop(Image.fromarray(frame), int(y1), int(x1), int(y2 - y1), int(x2 - x1))
    assert np.array_equal(picture, np.asarray(transforms.resize(image, [64, 64])))
    assert places[:2].tolist() == [[0, 0, 0.5], [1, 1, pytest.approx(0.9)]]
    assert keypoints[0].tolist() == [10, 5, 0.5]


@pytest.mark.parametrize(
    "box", [(0, 0, 120, 90), (119.5, 89.5, 120, 90), (-5, -5, 3, 3), (0, 0, 0.5, 90)]
)
def test_boxes_at_the_edge_are_cut(box):
    frame = np.zeros((90, 120, 3), np.uint8)
    picture, places = cut_person(frame, np.array(box, np.float32), np.zeros((17, 3)), 32)
    assert picture.shape == (32, 32, 3)
    assert np.isfinite(places).all()


def test_rows_are_of_the_largest_boxes(tmp_path, detect):
    figures = behind_pillar()
    detect(figures)
    clip = make_clip(tmp_path / "clip.mkv", figures, frames=8)
    extractor = create_extractor(
        "body_parts",
        weights="untrained",
        crop=64,
        outputs="parts,image",
        source_settings=SETTINGS,
    )
    made = extractor.extract(clip)
    rows = {name.removeprefix("body_parts"): f.rows for name, f in made.items()}
    assert rows["_id"].tolist() == [0, 1]
    assert rows["_visible"].tolist() == [[1] * 16 + [0]] * 2
    share = (np.arange(17) + 0.5) / 17
    assert np.allclose(rows["_keypoints"][0, :, :2], share[:, None], atol=1e-6)
    assert np.allclose(made["body_parts"].spans, [[0, 8 / 24]] * 2, atol=1e-6)
    # The upper half of the first figure's picture is its colour.
    assert rows["_image"].dtype == np.uint8
    assert (rows["_image"][0, :30] == figures[0].upper).all()
    with torch.inference_mode():
        maps = extractor.network(extractor.to_input(rows["_image"]))["res5c"].numpy()
    for person in range(2):
        for point in range(16):
            x, y = rows["_keypoints"][person, point, :2]
            wanted = maps[person][:, int(1.99 * y), int(1.99 * x)]
            assert np.allclose(rows[""][person, point], wanted, rtol=1e-4, atol=1e-5)
    assert not rows[""][:, 16].any()


def test_the_network_is_chosen_by_name_and_reads_the_same_files():
    spec = configure_extractor("body_parts", weights="untrained", network="resnet101")
    assert BodyParts.required_roles(spec.config) == ("resnet101",)
    own = find_extractor("resnet50").published_checkpoints()["resnet50"]
    assert BodyParts.published_checkpoints()["resnet50"] == own
    # What comes with a checkpoint of whole frames does not disturb.
    assert parse_config(BodyParts, {}, own[1].settings).crop == 224


def test_clips_without_persons_have_no_rows(tmp_path, detect):
    detect(crossing())
    clip = make_clip(tmp_path / "empty.mkv", [], frames=5)
    extractor = create_extractor(
        "body_parts", weights="untrained", crop=32, source_settings=SETTINGS
    )
    made = extractor.extract(clip)
    assert made["body_parts"].rows.shape == (0, 17, 2048)
    assert extractor.note(None, 0) == "no_persons"
