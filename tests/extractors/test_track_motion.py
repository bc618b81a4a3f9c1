"""Motion of tracks: which cells and steps a tube covers, against plain loops, and whole clips."""

import numpy as np
import pytest
from drawn_figures import Figure, FigureDetector, crossing, make_clip
from hypothesis import given
from hypothesis import strategies as st

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.media import FrameRequest, Resize
from vlpipe.extractors.people.detectors import PERSON_DETECTORS, PersonDetectorEntry
from vlpipe.extractors.samples import SourceRows
from vlpipe.extractors.track_motion import (
    _TubeSampler,
    covered_cells,
    seen_window,
    step_of,
)

SETTINGS = {
    "person_boxes": {"detector": "figures"},
    "i3d_rgb": {"crop": 64, "stack_size": 16, "step_size": 16},
}
WHOLE = np.array([0.0, 0, 160, 96])


@pytest.fixture
def detect(monkeypatch):
    def enter(figures):
        entry = PersonDetectorEntry(
            build=lambda settings: FigureDetector(figures), has_keypoints=True
        )
        monkeypatch.setitem(PERSON_DETECTORS, "figures", entry)

    return enter


def cells_by_loop(box, window, rows, columns):
    """Every cell that shares more than an edge with the box."""
    x1, y1, x2, y2 = window
    found = set()
    for row in range(rows):
        for column in range(columns):
            left = x1 + (x2 - x1) * column / columns
            right = x1 + (x2 - x1) * (column + 1) / columns
            top = y1 + (y2 - y1) * row / rows
            bottom = y1 + (y2 - y1) * (row + 1) / rows
            if min(right, box[2]) > max(left, box[0]) and min(bottom, box[3]) > max(top, box[1]):
                found.add((row, column))
    return found


@given(
    st.tuples(st.integers(-40, 200), st.integers(-40, 140)),
    st.tuples(st.integers(1, 120), st.integers(1, 120)),
    st.sampled_from([(0, 0, 224, 112), (28, 0, 140, 112)]),
)
def test_covered_cells_are_those_of_a_plain_loop(corner, edges, window):
    box = np.array([*corner, corner[0] + edges[0], corner[1] + edges[1]], float)
    rows, columns = covered_cells(box, np.array(window, float), (7, 7))
    mask = np.zeros((7, 7), bool)
    mask[rows, columns] = True
    assert {(int(r), int(c)) for r, c in np.argwhere(mask)} == cells_by_loop(box, window, 7, 7)


def test_the_window_is_the_whole_frame_or_its_crop():
    squashed = FrameRequest(fps=24, resize=Resize(size=(224, 224)))
    assert seen_window(squashed, 640, 360).tolist() == [0, 0, 640, 360]
    cropped = FrameRequest(fps=24, resize=Resize(shorter_edge=256), center_crop=224)
    # 640 x 360 becomes 455 x 256; the crop begins at 115 (of 115.5) and 16.
    wanted = np.array([115 * 640 / 455, 16 * 360 / 256, 339 * 640 / 455, 240 * 360 / 256])
    assert np.allclose(seen_window(cropped, 640, 360), wanted)
    small = FrameRequest(fps=24, center_crop=100)
    assert seen_window(small, 50, 100).tolist() == [-25, 0, 75, 100]


def test_steps_are_8_frames_and_end_with_the_map():
    times = [(k + 0.5) / 24 for k in range(-1, 70)]
    steps = [step_of(time, (0.0, 64 / 24), 24, 8) for time in times]
    assert steps == [None, *np.repeat(range(8), 8).tolist(), *[None] * 6]
    # A tail of 20 frames, repeated to fill the map: only its own steps count.
    steps = [step_of(time, (0.0, 20 / 24), 24, 8) for time in times]
    assert steps == [None] + [0] * 8 + [1] * 8 + [2] * 4 + [None] * 50


def tracks_of(frame, boxes, fps=24):
    """A frame's rows of person_tracks, of boxes by track."""
    span = (frame / fps, (frame + 1) / fps)
    ids = sorted(boxes)
    return SourceRows(
        "tracks",
        {
            "track": np.array(ids, np.int32),
            "boxes": np.array([boxes[i] for i in ids], np.float32).reshape(-1, 4),
            "frame": np.full(len(ids), frame, np.int32),
            "keypoints": np.zeros((len(ids), 17, 3), np.float32),
        },
        np.tile(span, (len(ids), 1)),
        span,
    )


def maps_of(first, values, num_frames, fps=24):
    span = (first / fps, (first + num_frames) / fps)
    return SourceRows("maps", {"mixed_5c": values[None]}, np.array([span]), span)


def pooled_by_loop(maps, boxes_of_frames, step_frames=8):
    """Mean and count of cells by track: of (first frame, map, frames) and boxes by frame."""
    sums, counts = {}, {}
    for first, values, num_frames in maps:
        for step in range(values.shape[1]):
            for track in {t for boxes in boxes_of_frames for t in boxes}:
                cells = set()
                for k in range(step * step_frames, (step + 1) * step_frames):
                    if k < num_frames and first + k < len(boxes_of_frames):
                        box = boxes_of_frames[first + k].get(track)
                        if box is not None:
                            cells |= cells_by_loop(box, WHOLE, 7, 7)
                for row, column in cells:
                    vector = values[:, step, row, column].astype(float)
                    sums[track] = sums.get(track, 0) + vector
                    counts[track] = counts.get(track, 0) + 1
    return {t: sums[t] / counts[t] for t in counts}, counts


@pytest.mark.parametrize(("step_size", "order"), [(64, "maps late"), (40, "tracks late")])
def test_tubes_are_pooled_as_in_a_plain_loop(step_size, order):
    random = np.random.default_rng(3)
    num_frames = step_size + 64 + 19
    maps = []
    for first in range(0, num_frames - 18, step_size):
        length = min(64, num_frames - first)
        maps.append((first, random.random((1024, 8, 7, 7), np.float32), length))
    boxes_of_frames = []
    for k in range(num_frames):
        boxes = {0: (k, 10, k + 21, 60)}
        if 30 <= k < 90:
            boxes[1] = (150 - k, 30, 170 - k, 90)
        if k == 70:
            boxes[2] = (-60, 0, -20, 40)
        boxes_of_frames.append(boxes)
    sampler = _TubeSampler(WHOLE, 24)
    blocks = [tracks_of(k, boxes) for k, boxes in enumerate(boxes_of_frames)]
    clips = [maps_of(*clip) for clip in maps]
    for block in blocks + clips if order == "maps late" else clips + blocks:
        assert sampler.push(block) == []
    (sample,) = sampler.finish()
    made = sample.context
    wanted, counts = pooled_by_loop(maps, boxes_of_frames)
    assert made.rows["track"].tolist() == [0, 1, 2]
    assert made.rows["cells"].tolist() == [counts[0], counts[1], 0]
    assert np.allclose(made.rows["motion"][:2], [wanted[0], wanted[1]], rtol=1e-6)
    assert not made.rows["motion"][2].any()
    assert np.allclose(made.spans[1], [30 / 24, 90 / 24])


def test_no_tracks_no_rows():
    sampler = _TubeSampler(WHOLE, 24)
    sampler.push(maps_of(0, np.ones((1024, 8, 7, 7), np.float32), 64))
    sampler.push(tracks_of(0, {}))
    assert sampler.finish() == []


def test_motion_of_a_clip_is_the_map_under_the_boxes(tmp_path, detect):
    figures = [Figure(*crossing()[0].colours[:2], lambda k: (40, 48), (40, 60))]
    detect(figures)
    clip = make_clip(tmp_path / "clip.mkv", figures, frames=22)
    extractor = create_extractor("track_motion", weights="untrained", source_settings=SETTINGS)
    made = extractor.extract(clip)
    maps = create_extractor(
        "i3d_rgb", weights="untrained", fps=24, whole_frame=True, outputs="mixed_5c",
        **SETTINGS["i3d_rgb"],
    ).extract(clip)["i3d_rgb_mixed_5c"]  # fmt: skip
    # 22 frames: a map of 16, two steps, and the last 6, one step of its own.
    assert maps.rows.shape == (2, 1024, 2, 2, 2)
    covered = np.concatenate([maps.rows[0], maps.rows[1, :, :1]], axis=1)  # (1024, 3, 2, 2)
    # The box 20..60 x 18..78 of 160 x 96 covers the left column of a grid of 2 x 2.
    left = covered[..., 0]
    assert made["track_motion_cells"].rows.tolist() == [6]
    assert np.allclose(made["track_motion"].rows[0], left.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_the_map_is_of_the_whole_frame_and_flow_is_chosen_by_name():
    spec = configure_extractor("track_motion", weights="untrained")
    assert spec.sources["maps"].config.whole_frame
    assert spec.sources["maps"].config.fps == 24
    flow = configure_extractor("track_motion", weights="untrained", network="i3d_flow")
    assert flow.sources["maps"].name == "i3d_flow"
    assert flow.definitions()[0].generation != spec.definitions()[0].generation
