"""Person boxes, tracks and their table: made-up clips, files of any content, torchvision parity."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from drawn_figures import (
    PILLAR_COLUMNS,
    FigureDetector,
    behind_pillar,
    crossing,
    make_clip,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_media import make_audio
from torch import nn
from torchvision.models.detection import keypointrcnn_resnet50_fpn

from vlpipe import extractors
from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.errors import MediaError, WeightsMissing, WeightsRejected
from vlpipe.extractors.people.detectors import (
    PERSON_DETECTORS,
    PersonDetectorEntry,
    peak_confidence,
    register_person_detector,
)
from vlpipe.extractors.people.tracking import TRACKERS
from vlpipe.extractors.person_boxes import PersonBoxes, clip_boxes, find_usable
from vlpipe.extractors.samples import Sample
from vlpipe.extractors.weights.checkpoint import Checkpoint
from vlpipe.stores.errors import UsageError

FIGURES = {"person_boxes": {"detector": "figures"}}


@pytest.fixture
def detect(monkeypatch):
    """Makes a detector of these figures known as `figures`."""

    def enter(figures, **options):
        entry = PersonDetectorEntry(
            build=lambda settings: FigureDetector(figures, **options),
            has_keypoints=options.get("has_keypoints", True),
        )
        monkeypatch.setitem(PERSON_DETECTORS, "figures", entry)

    return enter


@pytest.fixture(scope="module")
def crossing_clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clips") / "crossing.mkv", crossing(), frames=48)


def tracks_by_figure(made, figures):
    """The ids of each figure's boxes: a row belongs to the figure whose box holds its middle."""
    found = {}
    rows = zip(
        made["person_tracks"].rows,
        made["person_tracks_id"].rows,
        made["person_tracks_frame"].rows,
        strict=True,
    )
    for box, track, frame in rows:
        true = np.array([figure.box(int(frame)) for figure in figures], float)
        nearest = np.abs(true - box).sum(axis=1).argmin()
        found.setdefault(int(nearest), []).append(int(track))
    return found


def test_one_id_a_figure_through_a_crossing_in_a_file(crossing_clip, detect):
    detect(crossing())
    extractor = create_extractor("person_tracks", source_settings=FIGURES)
    made = extractor.extract(crossing_clip)
    rows = {name: features.rows for name, features in made.items()}
    assert {len(values) for values in rows.values()} == {len(rows["person_tracks"])}
    assert sorted(set(rows["person_tracks_id"].tolist())) == [0, 1]
    found = tracks_by_figure(made, crossing())
    # Where one hides the other, the box that is left may count for either.
    for figure, ids in found.items():
        assert ids.count(figure) >= 40
        assert ids.count(1 - figure) <= 1
    spans = made["person_tracks"].spans
    assert np.allclose(spans[:, 0], rows["person_tracks_frame"] / 24, atol=1e-6)
    order = np.stack([rows["person_tracks_frame"], rows["person_tracks_id"]], axis=1).tolist()
    assert order == sorted(order)
    first = rows["person_tracks"][rows["person_tracks_frame"] == 0]
    assert first.tolist() == [list(figure.box(0)) for figure in crossing()]


def test_one_id_behind_a_pillar_and_what_the_tracks_come_to(tmp_path, detect):
    figures = behind_pillar()
    clip = make_clip(tmp_path / "pillar.mkv", figures, frames=60, pillar=PILLAR_COLUMNS)
    detect(figures)
    table = create_extractor("person_track_table", source_settings=FIGURES).extract(clip)
    rows = {name.removeprefix("person_track_table"): f.rows for name, f in table.items()}
    assert rows["_id"].tolist() == [0, 1]
    assert rows["_length"][1] == 60
    assert 36 <= rows["_length"][0] < 60
    assert rows["_box"].tolist() == [[10, 23, 30, 73], [140, 26, 156, 70]]
    assert rows["_frame"].tolist() == [0, 0]
    assert np.allclose(table["person_track_table"].spans, [[0, 2.5], [0, 2.5]], atol=1e-6)
    area = 160 * 96
    wanted = [
        [20 / 160, 48 / 96, 20 * 50 / area, rows["_length"][0] / 300],
        [148 / 160, 48 / 96, 16 * 44 / area, 60 / 300],
    ]
    assert np.allclose(rows[""], wanted, atol=1e-6)
    by_clip = create_extractor("person_track_table", length="clip", source_settings=FIGURES)
    assert by_clip.extract(clip)["person_track_table"].rows[1, 3] == pytest.approx(1)


def test_frames_without_persons_have_no_rows(tmp_path, detect):
    detect(crossing())
    clip = make_clip(tmp_path / "empty.mkv", [], frames=10)
    for name in ("person_boxes", "person_tracks", "person_track_table"):
        if name == "person_boxes":
            extractor = create_extractor(name, detector="figures")
        else:
            extractor = create_extractor(name, source_settings=FIGURES)
        made = extractor.extract(clip)
        for output in extractor.spec.outputs:
            assert made[output.feature].rows.shape == (0, *output.row_shape)
        assert extractor.note(None, 0) == "no_persons"
        assert extractor.note(None, 3) is None


def test_a_detector_without_key_points(crossing_clip, detect):
    detect(crossing(), has_keypoints=False)
    boxes = create_extractor("person_boxes", detector="figures")
    assert "person_boxes_keypoints" not in {o.feature for o in boxes.spec.outputs}
    made = create_extractor("person_tracks", source_settings=FIGURES).extract(crossing_clip)
    assert not made["person_tracks_keypoints"].rows.any()
    assert len(made["person_tracks_keypoints"].rows) == len(made["person_tracks"].rows)


class Wild(nn.Module):
    """Boxes outside of the frame, without area, not finite, too weak, and three that are right."""

    boxes = (
        (-30, -30, 20, 20), (10, 10, 10, 40), (500, 0, 600, 50), (np.nan, 0, 5, 5), (5, 5, 50, 40),
        (0, 0, 9e9, 9e9), (1, 1, 30, 30), (60, 40, 20, 10),
    )  # fmt: skip
    scores = (0.5, 0.9, 0.9, 0.9, 0.7, 0.8, 0.1, 0.9)

    def forward(self, frame):
        return {"boxes": torch.tensor(self.boxes), "scores": torch.tensor(self.scores)}


def test_boxes_outside_of_the_frame_are_cut_or_left_out(monkeypatch):
    entry = PersonDetectorEntry(build=lambda settings: Wild(), has_keypoints=False)
    monkeypatch.setitem(PERSON_DETECTORS, "wild", entry)
    extractor = create_extractor("person_boxes", detector="wild")
    frame = Sample(np.zeros((48, 64, 3), np.uint8), (0.0, 0.1))
    made = extractor.infer([frame, frame])
    assert made.counts.tolist() == [3, 3]
    assert made.rows["person_boxes"][:3].tolist() == [
        [0, 0, 64, 48], [5, 5, 50, 40], [0, 0, 20, 20]
    ]  # fmt: skip
    assert np.allclose(made.rows["person_boxes_score"][:3], [0.8, 0.7, 0.5])
    assert made.spans.tolist() == [[0.0, 0.1]] * 6
    few = create_extractor("person_boxes", detector="wild", max_persons=1).infer([frame])
    assert few.rows["person_boxes"].tolist() == [[0, 0, 64, 48]]


edges = st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))


@given(
    arrays(np.float32, (4, 4), elements=edges),
    arrays(np.float32, 4, elements=st.floats(0, 1, width=32)),
)
def test_kept_boxes_lie_in_the_frame(boxes, scores):
    clipped = clip_boxes(boxes, 64, 48)
    kept = find_usable(clipped, scores, 0.25, 3)
    assert len(kept) <= 3
    assert (scores[kept] >= 0.25).all()
    assert (np.diff(scores[kept]) <= 0).all()
    x1, y1, x2, y2 = clipped[kept].T
    assert ((x1 >= 0) & (y1 >= 0) & (x2 <= 64) & (y2 <= 48)).all()
    assert ((x2 - x1 >= 1) & (y2 - y1 >= 1)).all()


SMALL = {"shorter_edge": 64, "longer_edge": 96, "max_persons": 4, "min_score": 0.0}
SMALL |= {"proposals": 50}


@pytest.fixture(scope="module")
def keypoint_rcnn(tmp_path_factory):
    """torchvision's network with drawn weights, and its checkpoint file."""
    torch.manual_seed(5)
    network = keypointrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=64, max_size=96, box_score_thresh=0.0,
        box_detections_per_img=4, rpn_post_nms_top_n_test=50,
    ).eval()  # fmt: skip
    path = tmp_path_factory.mktemp("weights") / "keypointrcnn.pth"
    torch.save(network.state_dict(), path)
    return network, path


def test_boxes_and_key_points_are_torchvisions(keypoint_rcnn):
    network, path = keypoint_rcnn
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.0  # as torchvision does with COCO_V1
    extractor = create_extractor("person_boxes", weights=path, **SMALL)
    random = np.random.default_rng(0)
    frames = [Sample(random.integers(0, 256, (72, 96, 3), np.uint8), (0.0, 1.0)) for _ in range(2)]
    made = extractor.infer(frames)
    assert made.counts.sum() > 0
    first = 0
    for frame, count in zip(frames, made.counts.tolist(), strict=True):
        x = torch.from_numpy(frame.data).permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            wanted = network([x])[0]
        rows = {name: values[first : first + count] for name, values in made.rows.items()}
        first += count
        wide = ((wanted["boxes"][:, 2:] - wanted["boxes"][:, :2]) >= 1).all(dim=1)
        assert np.allclose(rows["person_boxes"], wanted["boxes"][wide], atol=1e-3)
        assert np.allclose(rows["person_boxes_score"], wanted["scores"][wide], atol=1e-6)
        points = rows["person_boxes_keypoints"]
        assert np.allclose(points[..., :2], wanted["keypoints"][wide][..., :2], atol=1e-3)
        sure = peak_confidence(wanted["keypoints_scores"][wide])
        assert np.allclose(points[..., 2], sure, atol=1e-5)
    alone = extractor.infer(frames[1:2])
    share = slice(made.counts[0], made.counts[:2].sum())
    assert np.array_equal(alone.rows["person_boxes"], made.rows["person_boxes"][share])


def test_a_peak_of_2_is_just_visible():
    made = peak_confidence(torch.tensor([-1000.0, 2.0, 1000.0]))
    assert made.tolist() == pytest.approx([0, 0.3, 1])


def test_other_detectors_keep_persons_alone():
    extractor = create_extractor(
        "person_boxes", weights="untrained", detector="fasterrcnn_mobilenet_v3_large_fpn", **SMALL
    )
    # Without weights all classes are alike: make most boxes persons, and some bicycles.
    bias = extractor.network.detector.roi_heads.box_predictor.cls_score.bias
    bias[1:3] += torch.tensor([2.0, 1.9])
    frame = np.random.default_rng(0).integers(0, 256, (72, 96, 3), np.uint8)
    made = extractor.infer([Sample(frame, (0.0, 1.0))])
    with torch.inference_mode():
        found = extractor.network.detector([extractor.to_input(frame[None])[0]])[0]
    persons = found["scores"][found["labels"] == 1]
    assert set(found["labels"].tolist()) > {1, 2}
    assert len(persons) > 4
    assert np.array_equal(made.rows["person_boxes_score"], persons[:4])
    assert set(made.rows) == {"person_boxes", "person_boxes_score", "person_boxes_appearance"}


def test_frames_keep_their_size_and_the_provenance_says_so(detect):
    detect(crossing())
    spec = configure_extractor("person_track_table", source_settings=FIGURES, fps=12)
    boxes = spec.sources["tracks"].sources["boxes"]
    assert boxes.provenance()["media"]["request"]["resize"] is None
    assert boxes.config.fps == 12
    assert boxes.provenance() == spec.provenance()["sources"]["tracks"]["sources"]["boxes"]


def test_names_weights_and_files_that_are_wrong(detect, tmp_path):
    with pytest.raises(UsageError, match="keypointrcnn_resnet50_fpn"):
        create_extractor("person_boxes", weights="untrained", detector="eyes")
    with pytest.raises(UsageError, match="kalman_iou"):
        create_extractor("person_tracks", weights="untrained", tracker="string")
    with pytest.raises(WeightsMissing, match="keypointrcnn_resnet50_fpn_coco_v1"):
        create_extractor("person_tracks")
    entry = PERSON_DETECTORS["keypointrcnn_resnet50_fpn"]
    with pytest.raises(ValueError, match="registered twice"):
        register_person_detector("keypointrcnn_resnet50_fpn", entry)
    with pytest.raises(ValueError, match="loads them"):
        register_person_detector("new", dataclasses.replace(entry, load=None))
    detect(crossing())
    with pytest.raises(MediaError):
        create_extractor("person_tracks", source_settings=FIGURES).extract(
            make_audio(tmp_path / "tone.wav")
        )


def test_a_checkpoint_of_another_detector_is_refused(keypoint_rcnn):
    _, path = keypoint_rcnn
    with pytest.raises(WeightsRejected, match="fasterrcnn_mobilenet_v3_large_fpn"):
        create_extractor(
            "person_boxes", weights=path, detector="fasterrcnn_mobilenet_v3_large_fpn", **SMALL
        )
    PersonBoxes.check_checkpoint("keypointrcnn_resnet50_fpn", Checkpoint.read(path))


def test_another_file_of_the_folder_may_bring_a_tracker(tmp_path, monkeypatch):
    """Also where nothing else is asked for: an extractor with such parts imports all files."""
    (tmp_path / "tracker_of_a_test.py").write_text(
        "from vlpipe.extractors.people.tracking import TRACKERS, register_tracker\n"
        "register_tracker('of_a_test')(next(iter(TRACKERS.values())))\n"
    )
    monkeypatch.setattr(extractors, "__path__", [*extractors.__path__, str(tmp_path)])
    try:
        spec = configure_extractor("person_tracks", weights="untrained", tracker="of_a_test")
        assert spec.config.tracker == "of_a_test"
    finally:
        TRACKERS.pop("of_a_test", None)
        sys.modules.pop("vlpipe.extractors.tracker_of_a_test", None)
