"""Motion of objects: where boxes lie on the map, what is pooled, and whose clip a frame takes."""

import made_media
import numpy as np
import pytest
import torch

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.media import FrameRequest, Resize
from vlpipe.extractors.media.frame_transform import FrameScaler
from vlpipe.extractors.objects_motion import FrameBoxes, NearestMapSampler, ObjectsMotion
from vlpipe.extractors.regions.mapping import map_boxes, share_inside
from vlpipe.extractors.samples import Sample, SourceRows

SIZE = (100, 160)
WHOLE = FrameRequest(resize=Resize(size=(224, 224)))
CROP = FrameRequest(resize=Resize(shorter_edge=256), center_crop=224)


def pool_slowly(values, box):
    """The mean over 7x7 bins of a map (C, h, w) in a box given in cells, by the formula."""
    channels, height, width = values.shape
    x1, y1, x2, y2 = box
    bin_w, bin_h = max(x2 - x1, 1) / 7, max(y2 - y1, 1) / 7
    across, down = int(np.ceil(max(x2 - x1, 1) / 7)), int(np.ceil(max(y2 - y1, 1) / 7))
    total = np.zeros(channels)
    for i in range(7 * down):
        for j in range(7 * across):
            y, x = y1 + bin_h * (i + 0.5) / down, x1 + bin_w * (j + 0.5) / across
            if not (-1 <= y <= height and -1 <= x <= width):
                continue
            y, x = max(y, 0), max(x, 0)
            top, left = min(int(y), height - 1), min(int(x), width - 1)
            y, x = (min(y, height - 1), min(x, width - 1))
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            v, u = y - top, x - left
            total += (1 - v) * ((1 - u) * values[:, top, left] + u * values[:, top, right])
            total += v * ((1 - u) * values[:, below, left] + u * values[:, below, right])
    return total / (49 * down * across)


@pytest.fixture(scope="module")
def motion():
    """`objects_motion` without its sources, which are built when they are needed."""
    return create_extractor("objects_motion", weights="untrained", outputs="pooled,support")


def draw_map(channels=2048, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(channels, 7, 7)).astype(np.float32)


def sample_of(values, boxes, support=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    support = np.ones(len(boxes)) if support is None else support
    return Sample(values, (0.0, 1.0), FrameBoxes(boxes, np.array(support, np.float32)))


def test_boxes_are_pooled_by_the_formula(motion):
    values = draw_map()
    boxes = [
        (0, 0, 224, 224),
        (13.7, 40.2, 101.9, 223.0),
        (100, 100, 110, 104),  # less than a cell: enlarged to one
        (50, 60, 50, 60),  # no area
        (200, 210, 224, 224),  # the last cell, samples beyond it
    ]
    made = motion.infer([sample_of(values, boxes)])
    wanted = [pool_slowly(values, np.array(box) / 32) for box in boxes]
    error = np.linalg.norm(made.rows["objects_motion"] - wanted) / np.linalg.norm(wanted)
    assert error < 1e-5
    assert made.counts.tolist() == [5]
    assert made.rows["objects_motion"].shape == (5, 2048)


def test_without_support_there_is_no_motion(motion):
    values = draw_map()
    boxes = [(0, 0, 50, 50), (0, 0, 50, 50)]
    made = motion.infer([sample_of(values, boxes, [0, 0.25])])
    assert not made.rows["objects_motion"][0].any()
    assert made.rows["objects_motion"][1].any()
    assert made.rows["objects_motion_support"].tolist() == [0, 0.25]


def test_a_box_has_the_same_bits_whatever_comes_with_it(motion):
    random = np.random.default_rng(1)
    corners = random.uniform(0, 150, (150, 2))
    boxes = np.concatenate([corners, corners + random.uniform(0, 70, (150, 2))], axis=1)
    values = draw_map()
    many = motion.infer([sample_of(values, boxes), sample_of(draw_map(seed=1), boxes[:2])])
    assert many.counts.tolist() == [150, 2]
    for k in (0, 63, 64, 149):
        alone = motion.infer([sample_of(values, boxes[k])])
        assert np.array_equal(alone.rows["objects_motion"][0], many.rows["objects_motion"][k])
    assert motion.infer([]).rows["objects_motion"].shape == (0, 2048)
    none = motion.infer([sample_of(values, [])])
    assert none.counts.tolist() == [0]
    assert motion.note(None, 0) == "no_objects"


@pytest.mark.parametrize(
    "request_",
    [
        WHOLE,
        CROP,
        FrameRequest(resize=Resize(shorter_edge=65), center_crop=40, crop_rounding="round"),
        FrameRequest(resize=Resize(shorter_edge=67), center_crop=40, crop_rounding="round"),
        FrameRequest(resize=Resize(shorter_edge=65), center_crop=40, crop_rounding="ceil"),
        FrameRequest(resize=Resize(shorter_edge=65), center_crop=40, crop_rounding="floor"),
        FrameRequest(center_crop=131),  # taller than the frame, which is filled up
        FrameRequest(),
    ],
)
def test_boxes_go_where_the_pixels_go(request_):
    """A white box in a black frame is found again where its mapped corners are."""
    height, width = SIZE
    x1, y1, x2, y2 = 70, 40, 100, 65
    frame = np.zeros((height, width, 3), np.uint8)
    frame[y1:y2, x1:x2] = 255
    scaler = FrameScaler()
    scaler.start(frame)
    seen = scaler.get(request_)[..., 0] > 127
    box = np.array([[x1 / width, y1 / height, x2 / width, y2 / height]])
    mapped = map_boxes(box, SIZE, request_)[0]
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert np.abs(mapped - found).max() <= 0.51
    assert seen.shape == request_.output_size(*SIZE)


def test_share_inside():
    boxes = np.array(
        [
            (10, 10, 20, 30),
            (-10, 0, 10, 10),
            (-10, -10, 10, 10),
            (-9, 0, -1, 10),
            (5, 5, 5, 5),  # no area, inside
            (-5, 5, -5, 5),  # no area, outside
            (5, -5, 5, 15),  # a line, three quarters of it inside
            (-100, -100, 300, 300),
        ]
    )
    shares = share_inside(boxes, (50, 40))
    assert np.allclose(shares, [1, 0.5, 0.25, 0, 1, 0, 0.75, 50 * 40 / 400**2])
    assert len(share_inside(np.zeros((0, 4)), (5, 5))) == 0


def objects_rows(span, boxes, numbers=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    spatial = np.concatenate([boxes, boxes[:, 2:] - boxes[:, :2]], axis=1)
    numbers = np.arange(len(boxes)) if numbers is None else np.array(numbers)
    index = np.stack([np.zeros_like(numbers), numbers], axis=1)
    spans = np.array([span] * len(boxes), np.float64).reshape(-1, 2)
    return SourceRows("objects", {"spatial": spatial, "index": index}, spans, span)


def motion_rows(*spans, value=0.0):
    maps = np.stack([np.full((2, 3, 4, 4), value + k) for k in range(len(spans))])
    return SourceRows("motion", {"map": maps}, np.array(spans, np.float64), spans[0])


def sampler_of(request=WHOLE):
    return NearestMapSampler("map", 2, request, SIZE)


def values_of(samples):
    return [(sample.span, float(sample.data[0, 0, 0])) for sample in samples]


def test_a_frame_waits_for_its_own_clip():
    sampler = sampler_of()
    first, second, third = (0.0, 0.5), (0.5, 1.0), (1.0, 1.5)
    assert sampler.push(objects_rows(first, [])) == []
    assert sampler.push(objects_rows(second, [(0, 0, 1, 1)])) == []
    made = sampler.push(motion_rows(first))
    made += sampler.push(motion_rows(second, value=1))
    assert values_of(made) == [(first, 0), (second, 1)]
    assert len(made[0].context.boxes) == 0
    assert made[1].context.boxes.tolist() == [[0, 0, 224, 224]]
    assert made[1].data.shape == (2, 4, 4)
    # Clips before boxes.
    assert sampler.push(motion_rows(third, value=2)) == []
    assert values_of(sampler.push(objects_rows(third, []))) == [(third, 2)]
    assert sampler.finish() == []


def test_a_frame_between_clips_takes_the_nearest():
    sampler = sampler_of()
    samples = list(sampler.push(motion_rows((0, 2), (2, 4))))  # middles at 1 and 3
    for start in (0.0, 1.0, 1.5, 2.5, 3.5):
        samples += sampler.push(objects_rows((start, start + 0.5), []))
    assert values_of(samples) == [((0, 0.5), 0), ((1, 1.5), 0), ((1.5, 2), 0), ((2.5, 3), 1)]
    # Behind the last clip the frame waits for another one, and takes the last at the end.
    assert values_of(sampler.finish()) == [((3.5, 4), 1)]


def test_without_any_clip_nothing_moves(motion):
    sampler = NearestMapSampler("map", 2048, WHOLE, SIZE)
    sampler.push(objects_rows((0.0, 1.0), [(0, 0, 0.5, 0.5)]))
    made = motion.infer(sampler.finish())
    assert made.rows["objects_motion"].shape == (1, 2048)
    assert not made.rows["objects_motion"].any()
    assert not made.rows["objects_motion_support"].any()


def test_boxes_outside_the_crop_and_empty_places_have_no_support():
    sampler = sampler_of(CROP)
    sampler.push(motion_rows((0.0, 1.0)))
    # 160x100 becomes 409x256, of which the columns 92 to 316 are seen.
    boxes = [(0, 0.2, 0.2, 0.4), (0.1, 0.2, 0.35, 0.5), (0.4, 0.4, 0.6, 0.6), (0, 0, 0, 0)]
    (sample,) = sampler.push(objects_rows((0.0, 1.0), boxes, [0, 1, 2, -1]))
    support = sample.context.support
    assert support[0] == 0
    assert support[1] == pytest.approx((0.35 * 409 - 92) / (0.25 * 409), abs=0.01)
    assert support[2:].tolist() == [1, 0]
    assert sample.context.boxes.min() >= 0
    assert sample.context.boxes.max() <= 224
    assert sample.context.boxes[2] == pytest.approx(
        [0.4 * 409 - 92, 0.4 * 256 - 16, 0.6 * 409 - 92, 0.6 * 256 - 16], abs=1e-3
    )


def test_frames_are_no_rows_of_a_source():
    with pytest.raises(TypeError, match="rows of a source"):
        sampler_of().push(np.zeros(3))


@pytest.mark.parametrize(
    ("settings", "width", "clip"),
    [
        ({}, 2048, {"fps": 6.0, "anchor_step": 1, "whole_frame": True}),
        ({"fps": 3, "frame_step": 2}, 2048, {"fps": 3.0, "anchor_step": 2}),
        ({"motion": "i3d_rgb", "whole_frame": False}, 1024, {"fps": 25.0, "whole_frame": False}),
    ],
)
def test_sources_are_asked_for_the_same_frames(settings, width, clip):
    spec = configure_extractor("objects_motion", weights="untrained", **settings)
    objects, clips = spec.sources["objects"].config, spec.sources["motion"].config
    assert spec.outputs[0].row_shape == (width,)
    assert {key: getattr(clips, key) for key in clip} == clip
    assert objects.fps == settings.get("fps", 6)
    assert objects.frame_step == settings.get("frame_step", 1)
    recorded = spec.provenance()["sources"]["motion"]["media"]["request"]
    assert (recorded["center_crop"] is None) == clips.whole_frame
    assert spec.definitions()[0].is_untrained
    assert not ObjectsMotion.published_checkpoints()


def test_all_four_features_of_masn_have_the_same_rows(tmp_path):
    """Appearance and motion, of frames and of objects, over a GIF of uneven rate."""
    path = made_media.make_gif(tmp_path / "made.gif", [100, 250, 40, 300, 120, 90, 500])
    tiny = {"detector": "fasterrcnn_mobilenet_v3_large_320_fpn", "min_boxes": 2, "max_boxes": 2}
    tiny |= {"shorter_edge": 32, "longer_edge": 48, "proposals": 2}
    small = {"crop": 32}
    made = create_extractor(
        "objects_motion",
        weights="untrained",
        boxes_per_frame=2,
        source_settings={"objects": tiny, "i3d_resnet50": small},
    ).extract(path)
    for name, settings in (
        ("objects", tiny | {"outputs": "features"}),
        ("i3d_resnet50", small | {"whole_frame": True}),
        ("resnet18", small | {"fps": 6}),
    ):
        made |= create_extractor(name, weights="untrained", **settings).extract(path)
    shapes = {name: features.rows.shape for name, features in made.items()}
    num_rows = shapes["resnet18"][0]
    assert num_rows > 6
    assert shapes == {
        "resnet18": (num_rows, 512),
        "i3d_resnet50": (num_rows, 2048),
        "objects": (num_rows, 2, 1024),
        "objects_motion": (num_rows, 2, 2048),
    }
    for features in made.values():
        assert np.array_equal(features.spans, made["resnet18"].spans)


@torch.inference_mode()
def test_the_whole_map_in_one_box_is_near_its_mean(motion):
    values = np.ones((2048, 7, 7), np.float32) * np.arange(2048, dtype=np.float32)[:, None, None]
    found = motion.network(torch.from_numpy(values)[None], torch.tensor([[0.0, 0, 224, 224]]))
    assert torch.allclose(found["pooled"][0], torch.arange(2048.0), rtol=1e-5)
