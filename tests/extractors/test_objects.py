"""Regions of frames: which rows they make, with what detector, and what odd frames give."""

import dataclasses
import json

import golden_cases
import made_media
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.extractors.media import FrameBlock
from vlpipe.extractors.objects import DETECTORS, DetectorName, NumberedFrameSampler, Objects
from vlpipe.extractors.precision import run_at
from vlpipe.extractors.regions.detector import RegionDetector, Regions
from vlpipe.extractors.regions.faster_rcnn_vg import image_scale, resize_linear
from vlpipe.extractors.regions.labels import LABEL_SPACES, region_names
from vlpipe.extractors.samples import Sample
from vlpipe.extractors.weights.checkpoint import Checkpoint
from vlpipe.stores.errors import UsageError

TINY = {"shorter_edge": 48, "longer_edge": 80, "proposals": 2, "min_boxes": 1, "max_boxes": 4}
SMALLEST = "fasterrcnn_mobilenet_v3_large_320_fpn"


def draw_frame(height=36, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sample_of(frame, number=0):
    return Sample(frame, (number / 6, (number + 1) / 6), number)


class ListedDetector(RegionDetector):
    """Finds as many regions as the first value of the frame says, and numbers them."""

    def prepare(self, frame):
        return frame

    def load(self, checkpoint):
        raise NotImplementedError

    def find(self, frame):
        numbers = torch.arange(int(frame[0, 0, 0]))
        scores = numbers / 10
        boxes = torch.stack([scores, scores + 1, scores + 12, scores + 7], dim=1)
        features = numbers[:, None].expand(-1, 2048).float()
        return Regions(boxes, features, numbers, scores, numbers + 100, scores + 0.5)


@pytest.fixture(scope="module")
def tiny():
    return create_extractor("objects", weights="untrained", **TINY)


@pytest.fixture
def listed(tiny):
    """`objects` whose frames hold as many regions as the test wants."""
    extractor = object.__new__(Objects)
    extractor.__dict__.update(tiny.__dict__)
    extractor.network = ListedDetector()
    return extractor


def frames_with(*counts):
    return [
        sample_of(np.full((20, 40, 3), count, np.uint8), number)
        for number, count in enumerate(counts)
    ]


def test_every_object_is_a_row(listed):
    made = listed.infer(frames_with(2, 0, 3))
    assert made.counts.tolist() == [2, 0, 3]
    assert np.allclose(made.spans[:, 0], np.array([0, 0, 2, 2, 2]) / 6)
    rows = made.rows
    assert rows["objects"].shape == (5, 2048)
    assert rows["objects_labels"].tolist() == [0, 1, 0, 1, 2]
    assert rows["objects_attributes"].tolist() == [100, 101, 100, 101, 102]
    assert rows["objects_index"].tolist() == [[0, 0], [0, 1], [2, 0], [2, 1], [2, 2]]
    assert np.allclose(rows["objects_boxes"][1], [0.1, 1.1, 12.1, 7.1])
    assert np.allclose(rows["objects_spatial"][0], [0, 1 / 20, 12 / 40, 7 / 20, 12 / 40, 6 / 20])
    for output in listed.spec.outputs:
        assert rows[output.feature].shape[1:] == output.row_shape
        assert rows[output.feature].dtype == np.dtype(output.dtype or "float32")


def test_equal_limits_give_every_frame_a_row(listed):
    spec = configure_extractor(
        "objects", weights="untrained", **(TINY | {"min_boxes": 4, "max_boxes": 4})
    )
    listed.spec = spec
    made = listed.infer(frames_with(4, 0, 1))
    assert made.counts.tolist() == [1, 1, 1]
    rows = made.rows
    assert rows["objects"].shape == (3, 4, 2048)
    assert rows["objects_spatial"].shape == (3, 4, 6)
    assert rows["objects_labels"].tolist() == [[0, 1, 2, 3], [-1] * 4, [0, -1, -1, -1]]
    assert rows["objects_index"][:, :, 0].tolist() == [[0] * 4, [1] * 4, [2] * 4]
    assert rows["objects_index"][:, :, 1].tolist() == [[0, 1, 2, 3], [-1] * 4, [0, -1, -1, -1]]
    assert not rows["objects"][1].any()
    assert not rows["objects_boxes"][1].any()
    assert not rows["objects_label_scores"][2, 1:].any()
    for output, definition in zip(spec.outputs, spec.definitions(), strict=True):
        assert rows[output.feature].shape[1:] == definition.row_shape
    assert spec.definitions()[0].dimensions == ("object", "channel")
    assert listed.note(None, 0) == "too_short"


def test_no_objects_are_named(listed):
    assert listed.infer(frames_with(0)).counts.tolist() == [0]
    assert listed.note(None, 0) == "no_objects"
    assert listed.note(None, 3) is None


def test_dtypes_at_rest(tiny):
    found = {d.name.removeprefix("objects").lstrip("_"): d.dtype for d in tiny.spec.definitions()}
    assert found == {
        "": "float16",
        "boxes": "float32",
        "labels": "int32",
        "label_scores": "float32",
        "attributes": "int32",
        "attribute_scores": "float32",
        "spatial": "float32",
        "index": "int32",
    }


def test_settings_follow_the_detector():
    chosen = configure_extractor("objects", weights="untrained").config
    assert (chosen.min_boxes, chosen.max_boxes, chosen.confidence) == (10, 100, 0.2)
    assert (chosen.shorter_edge, chosen.longer_edge, chosen.nms) == (600, 1000, 0.3)
    other = configure_extractor("objects", weights="untrained", detector=SMALLEST, confidence=0.7)
    assert other.config.label_space == "coco_80"
    assert (other.config.min_boxes, other.config.proposals) == (0, 150)
    assert (other.config.confidence, other.config.nms) == (0.7, 0.5)
    assert [o.key for o in other.outputs if "attribute" in o.key] == []
    assert other.outputs[0].row_shape == (1024,)
    assert other.provenance()["config"]["label_space"] == "coco_80"
    assert set(DETECTORS) == set(DetectorName.__args__)
    assert {facts.label_space for facts in DETECTORS.values()} == set(LABEL_SPACES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"detector": "yolo"}, "detector"),
        ({"min_boxes": 20, "max_boxes": 10}, "min_boxes exceeds max_boxes"),
        ({"label_space": "coco_80"}, "visual_genome_1600"),
        ({"detector": SMALLEST, "outputs": "features,attributes"}, "knows no attributes"),
        ({"proposals": 100_000}, "proposals"),
        ({"shorter_edge": 2000}, "exceeds longer_edge"),
        ({"outputs": ""}, "outputs"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(UsageError, match=message):
        configure_extractor("objects", weights="untrained", **settings)


def test_every_stepth_frame_is_numbered():
    sampler = NumberedFrameSampler(3)
    frames = np.zeros((5, 4, 4, 3), np.uint8)
    spans = np.array([[k, k + 1.0] for k in range(5)])
    samples = [*sampler.push(FrameBlock(0, frames, spans, 0))]
    samples += sampler.push(FrameBlock(0, frames, spans + 5, 5))
    assert [(s.context, s.span) for s in samples] == [
        (0, (0, 1)),
        (1, (3, 4)),
        (2, (6, 7)),
        (3, (9, 10)),
    ]
    assert sampler.finish() == []


@pytest.mark.parametrize(("height", "width"), [(27, 48), (50, 31), (1, 7)])
@pytest.mark.parametrize("scale", [600 / 270, 0.37, 1.0])
def test_frames_are_scaled_as_opencv_does(height, width, scale):
    image = torch.from_numpy(draw_frame(height, width)).permute(2, 0, 1).float()
    made = resize_linear(image, scale)
    assert made.shape[1:] == (max(1, round(height * scale)), max(1, round(width * scale)))
    y, x = (
        (torch.arange(n, dtype=torch.float64) + 0.5) / scale * 2 / full - 1
        for n, full in zip(made.shape[1:], (height, width), strict=True)
    )
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
    wanted = F.grid_sample(
        image[None].double(), grid[None], padding_mode="border", align_corners=False
    )[0]
    assert (made - wanted).abs().max() < 1e-4  # of 255


def test_scale_keeps_the_longer_edge_within_its_limit():
    assert image_scale(480, 640, 600, 1000) == 600 / 480
    assert image_scale(270, 480, 600, 1000) == 1000 / 480
    assert image_scale(1080, 1920, 600, 1000) == 1000 / 1920


def test_a_frame_has_the_same_bits_whatever_comes_with_it(tiny):
    frames = [sample_of(draw_frame(seed=k), k) for k in range(2)]
    together = tiny.infer(frames)
    first = 0
    for frame, count in zip(frames, together.counts, strict=True):
        for feature, rows in tiny.infer([frame]).rows.items():
            assert np.array_equal(rows, together.rows[feature][first : first + count])
        first += count
    assert first == len(together.spans) > 0


@torch.inference_mode()
def test_more_regions_than_go_together(tiny):
    network = tiny.network.network
    res4 = network.res4(tiny.network.prepare(torch.from_numpy(draw_frame())))
    boxes = torch.tensor([[0.0, 0, 40, 30], [5, 5, 60, 40], [20, 10, 60, 44]])
    assert network.regions_at_once == 2
    together = network.describe(res4, boxes)
    for key, values in together.items():
        assert len(values) == 3
        assert torch.equal(values[2:], network.describe(res4, boxes[2:])[key])


# One-pixel edges, a single grey, hardly any pixels, and the shape of a banner.
ODD_FRAMES = [(1, 64), (64, 1), (2, 2), (3, 5000)]


@pytest.mark.parametrize("detector", ["faster_rcnn_vg", SMALLEST])
def test_odd_frames_have_rows_or_none(tiny, detector):
    extractor = tiny
    if detector != "faster_rcnn_vg":
        edges = {"shorter_edge": 48, "longer_edge": 80}
        extractor = create_extractor("objects", weights="untrained", detector=detector, **edges)
    frames = [np.full((48, 64, 3), 128, np.uint8)]
    frames += [draw_frame(height, width) for height, width in ODD_FRAMES]
    made = extractor.infer([sample_of(frame, k) for k, frame in enumerate(frames)])
    assert len(made.counts) == len(frames)
    for rows in made.rows.values():
        assert len(rows) == made.counts.sum()
        assert np.isfinite(rows).all()
    if detector == "faster_rcnn_vg":
        # Proposals are larger than 16 pixels of the frame, so that thin frames have none.
        assert made.counts.tolist() == [made.counts[0], 0, 0, 0, 0]
        assert made.counts[0] >= 1
        spatial = made.rows["objects_spatial"]
        assert spatial.min() >= 0
        assert spatial.max() <= 1


def test_low_precision_runs_and_stays_near(tiny):
    rough = object.__new__(Objects)
    rough.__dict__.update(tiny.__dict__)
    rough.spec = dataclasses.replace(tiny.spec, precision="bf16")
    made = rough.infer([sample_of(draw_frame())])
    assert np.isfinite(made.rows["objects"]).all()
    image = tiny.network.prepare(torch.from_numpy(draw_frame()))
    boxes = torch.tensor([[0.0, 0, 40, 30], [5, 5, 60, 40]])
    features = []
    for precision in ("fp32", "bf16"):
        with torch.inference_mode(), run_at(precision, tiny.device):
            network = tiny.network.network
            features.append(network.describe(network.res4(image), boxes)["features"].numpy())
    assert 0 < golden_cases.relative_error(features[1], features[0]) < 0.05
    edges = {"shorter_edge": 48, "longer_edge": 80}
    other = create_extractor(
        "objects", weights="untrained", precision="bf16", detector=SMALLEST, **edges
    )
    assert len(other.infer([sample_of(draw_frame())]).counts) == 1


def test_a_file_goes_through(tiny, tmp_path):
    path = made_media.make_video(tmp_path / "made.mp4", seconds=0.5, fps=12)
    made = tiny.extract(path)
    assert len({len(features.rows) for features in made.values()}) == 1
    index = made["objects_index"].rows
    assert index[:, 0].max() == 2
    assert np.allclose(made["objects"].spans[:, 0], index[:, 0] / 6)
    boxes = made["objects_boxes"].rows
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes[:, 2:] <= [64, 48]).all()
    assert made["objects_attributes"].rows.min() >= 0


def test_published_checkpoints_are_recognised():
    facts = json.loads((golden_cases.FOLDER / "faster_rcnn_vg.json").read_text())
    state = {key: torch.zeros(shape) for key, shape in facts["state"].items()}
    Objects.check_checkpoint("faster_rcnn_vg", Checkpoint("file.pth", state))
    other = Checkpoint(
        "file.pth", get_model(SMALLEST, weights=None, weights_backbone=None).state_dict()
    )
    Objects.check_checkpoint(SMALLEST, other)
    with pytest.raises(WeightsRejected, match=SMALLEST):
        Objects.check_checkpoint(SMALLEST, Checkpoint("file.pth", state))


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """A drawn torchvision detector that sees things everywhere, and its file."""
    torch.manual_seed(4)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, box_score_thresh=0.01, min_size=96, max_size=160
    ).eval()
    head = model.roi_heads.box_predictor
    torch.nn.init.normal_(head.cls_score.weight, std=0.3)
    torch.nn.init.constant_(head.cls_score.bias, 0)
    path = tmp_path_factory.mktemp("weights") / "coco.pth"
    torch.save(model.state_dict(), path)
    return model, path


@torch.inference_mode()
def test_torchvision_detectors_find_what_torchvision_finds(coco):
    model, path = coco
    extractor = create_extractor(
        "objects",
        weights={SMALLEST: path},
        detector=SMALLEST,
        shorter_edge=96,
        longer_edge=160,
        confidence=0.01,
    )
    frame = draw_frame(60, 90)
    (wanted,) = model([torch.from_numpy(frame).permute(2, 0, 1).float() / 255])
    made = extractor.infer([sample_of(frame)]).rows
    names = get_model_weights(SMALLEST).DEFAULT.meta["categories"]
    is_used = np.array([names[k] != "N/A" for k in wanted["labels"].tolist()])
    assert 0 < is_used.sum() <= len(is_used) <= 100
    assert np.allclose(made["objects_boxes"], wanted["boxes"][is_used].numpy(), atol=1e-3)
    assert np.allclose(made["objects_label_scores"], wanted["scores"][is_used].numpy(), atol=1e-6)
    ours = [region_names("coco_80")[label] for label in made["objects_labels"]]
    assert ours == [names[k] for k in wanted["labels"][is_used].tolist()]
    assert made["objects"].shape == (is_used.sum(), 1024)
    assert "objects_attributes" not in made

    capped = extractor.network.settings.model_copy(update={"confidence": 1.0, "min_boxes": 3})
    extractor.network.settings = capped
    few = extractor.infer([sample_of(frame)]).rows
    assert len(few["objects"]) == min(3, is_used.sum())
    assert np.array_equal(few["objects"], made["objects"][: len(few["objects"])])


def test_names_of_labels(tmp_path):
    coco = region_names("coco_80")
    assert (len(coco), coco[0], coco[11], coco[79]) == (80, "person", "stop sign", "toothbrush")
    with pytest.raises(WeightsMissing, match=r"objects_vocab\.txt") as caught:
        region_names("visual_genome_1600", tmp_path)
    assert "copy objects_vocab.txt" in str(caught.value.hint)
    words = tmp_path / "objects_vocab.txt"
    words.write_text("\n".join(["yolk", "bib,apron", *map(str, range(1598))]) + "\n")
    names = region_names("visual_genome_1600", tmp_path)
    assert (len(names), names[0], names[1], names[-1]) == (1600, "yolk", "bib", "1597")
    words.write_text("one\ntwo\n")
    with pytest.raises(WeightsRejected, match="2 lines, expected 1600"):
        region_names("visual_genome_1600", tmp_path)
    words.write_bytes(b"\xff\xfe")
    with pytest.raises(WeightsRejected, match="not a text file"):
        region_names("visual_genome_1600", tmp_path)
    with pytest.raises(UsageError, match="imagenet"):
        region_names("imagenet")
