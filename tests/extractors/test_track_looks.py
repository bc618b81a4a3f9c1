"""What tracks look like and how they move: crops, paths, and boxes given in place of a detector."""

import json

import numpy as np
import pytest
from drawn_figures import crossing, make_clip

from vlpipe.extractors import create_extractor
from vlpipe.extractors.extractor_spec import parse_config
from vlpipe.extractors.registry import find_extractor
from vlpipe.extractors.track_crops import EvenlySpread, inner_box
from vlpipe.extractors.track_paths import WIDTH, describe_path
from vlpipe.stores.errors import UsageError

FRAMES = 24
EVERY = {"fps": None}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A clip of two figures that cross, and a folder with their boxes."""
    folder = tmp_path_factory.mktemp("given")
    path = make_clip(folder / "crossing.mkv", crossing(), frames=FRAMES)
    rows = [(frame, figure.box(frame)) for frame in range(FRAMES) for figure in crossing()]
    (folder / "boxes").mkdir()
    boxes = {
        "boxes": [[float(edge) for edge in box] for _, box in rows],
        "labels": [0] * len(rows),
        "frames": [frame for frame, _ in rows],
    }
    (folder / "boxes" / "crossing.json").write_text(json.dumps(boxes))
    settings = {
        "given_boxes": {"folder": folder / "boxes", **EVERY},
        "person_boxes": {"detector": "given_boxes", **EVERY},
        "person_tracks": EVERY,
    }
    return path, settings


def made_by(name, given, **settings):
    path, sources = given
    own = {k: v for k, v in sources.items() if k != name}
    extractor = create_extractor(
        name, weights="untrained", source_settings=own, **EVERY, **settings
    )
    return {feature: found.rows for feature, found in extractor.extract(path).items()}


@pytest.mark.parametrize("name", ["track_crops", "body_parts"])
def test_a_scale_of_whole_frames_is_the_checkpoints_business(name):
    extractor = find_extractor(name)
    (checkpoint,) = [c for c in extractor.published_checkpoints()["resnet50"] if "v2" in c.name]
    assert checkpoint.settings["resize"] == 232
    assert parse_config(extractor, {}, checkpoint.settings) == extractor.Config()
    with pytest.raises(UsageError, match="resize"):
        parse_config(extractor, {"resize": 232}, {})


def test_given_boxes_become_tracks(given):
    path, sources = given
    extractor = create_extractor(
        "person_boxes", weights="untrained", detector="given_boxes", **EVERY,
        source_settings={"given_boxes": sources["given_boxes"]},
    )  # fmt: skip
    found = extractor.extract(path)
    assert len(found["person_boxes"].rows) == 2 * FRAMES
    assert set(found["person_boxes_score"].rows.tolist()) == {1.0}
    assert "person_boxes_keypoints" not in found
    tracks = made_by("person_tracks", given)
    assert sorted(set(tracks["person_tracks_id"].tolist())) == [0, 1]
    with pytest.raises(UsageError, match="given_boxes"):
        create_extractor("person_boxes", weights="untrained", detector="nobody")


def test_looks_are_of_length_1_and_of_their_own_track(given):
    crops = made_by("track_crops", given, network="resnet18", crop=32, max_crops=4)
    assert crops["track_crops"].shape == (2, 512)
    np.testing.assert_allclose(np.linalg.norm(crops["track_crops"], axis=1), 1, rtol=1e-3)
    assert crops["track_crops_count"].tolist() == [3, 3]  # every eighth of 24
    few = made_by("track_crops", given, network="resnet18", crop=32, max_crops=1, normalise=False)
    assert few["track_crops_count"].tolist() == [1, 1]
    assert not np.allclose(few["track_crops"][0], few["track_crops"][1], rtol=1e-3)


def test_paths_of_the_clip(given):
    paths = made_by("track_paths", given)
    assert paths["track_paths"].shape == (2, WIDTH)
    assert np.isfinite(paths["track_paths"]).all()


def test_crops_are_spread_and_bounded():
    for count in (1, 4, 5, 9, 100):
        kept = EvenlySpread(4)
        for number in range(count):
            kept.add(np.full((1, 1, 3), number, np.uint8) if kept.wants_next() else None)
        numbers = [int(item[0, 0, 0]) for item in kept.items]
        steps = set(np.diff(numbers).tolist())
        assert numbers[0] == 0
        assert len(numbers) <= 4
        assert len(steps) <= 1
        assert count <= 4 or len(numbers) > 2
    assert inner_box(np.array([0, 10, 10, 30], np.float32), 0.1).tolist() == [1, 12, 9, 28]


def test_a_path_tells_a_jump_from_a_slide_and_a_gap():
    frames, seconds = np.arange(9), np.arange(9) / 10
    still = np.tile([10.0, 10, 20, 30], (9, 1))
    swing = np.sin(np.pi * frames / 8)[:, None]
    jump, slide = still - swing * [0, 10, 0, 10], still + swing * [10, 0, 10, 0]
    low, up, across = (describe_path(boxes, frames, seconds) for boxes in (still, jump, slide))
    assert not low.any()
    assert up[7 + 2] < -0.1  # the top's lowest number: upwards
    assert up[:7].tolist() == [0] * 7
    assert across[3] > 0.1
    assert describe_path(still[::2], frames[::2], seconds[::2])[-1] == pytest.approx(4 / 9)
    one = describe_path(still[:1], frames[:1], seconds[:1])
    assert one.shape == (WIDTH,)
    assert not one.any()
    larger = describe_path(3 * jump, frames, seconds)
    np.testing.assert_allclose(larger[:35], up[:35], atol=1e-6)
