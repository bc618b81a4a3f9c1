"""Features as clips: which rows, beside which others, and what stands in for objects."""

import numpy as np
import pytest
import torch

from vlpipe.models.clips import aligned_clips, cell_boxes, clip_spans
from vlpipe.stores import Features


def rows_every(step_s, values, start_s=0.0):
    """Rows that hold the given numbers, one every step_s."""
    values = np.asarray(values, np.float16)
    edges = start_s + step_s * np.arange(len(values) + 1)
    return Features(values, np.stack([edges[:-1], edges[1:]], axis=1))


def video(num_rows, *, local=None):
    numbers = np.arange(num_rows, dtype=np.float16)
    frames = rows_every(1.0, numbers[:, None])
    objects = rows_every(1.0, np.broadcast_to(numbers[:, None, None], (num_rows, 2, 1)).copy())
    return {
        "appearance_global": frames,
        "appearance_local": local or objects,
        "motion_global": frames,
        "motion_local": objects,
    }


def clips_of(features, **settings):
    return aligned_clips(features, **({"max_clips": 4, "choice": "first", "grid": 2} | settings))


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [("first", [0, 1, 2, 3]), ("spread", [0, 3, 6, 9]), ("mean", [0.5, 3, 6, 8.5])],
)
def test_a_long_video_is_cut_spread_or_averaged(choice, wanted):
    found = clips_of(video(10), choice=choice)
    assert found["appearance_global"][:, 0].tolist() == wanted
    assert found["motion_local"][:, 1, 0].tolist() == wanted
    assert int(found["video_length"]) == 4


@pytest.mark.parametrize("choice", ["first", "spread", "mean"])
def test_a_short_one_is_padded_with_zeros(choice):
    found = clips_of(video(2), choice=choice)
    assert found["appearance_global"][:, 0].tolist() == [0, 1, 0, 0]
    assert int(found["video_length"]) == 2
    assert not found["boxes"][2:].any()
    assert found["boxes"][0, 0].tolist() == [0, 0, 1, 1, 1, 1]


def test_rows_at_another_rate_are_matched_by_time():
    features = video(4) | {"motion_global": rows_every(0.5, np.arange(8.0)[:, None], start_s=0.25)}
    found = clips_of(features)["motion_global"][:, 0].tolist()
    assert found == [0, 2, 4, 6]  # middles at 0.5, 1.5, ... of rows at 0.5, 1.0, 1.5, ...


def test_a_map_becomes_cells_with_boxes():
    maps = np.zeros((3, 1, 4, 4), np.float16)
    maps[:, 0, :2, 2:] = 5  # the upper right quarter
    found = clips_of(video(3, local=rows_every(1.0, maps)))
    assert found["appearance_local"][0, :, 0].tolist() == [0, 5, 0, 0]
    assert found["boxes"][0, 1].tolist() == [0.5, 0, 1, 0.5, 0.5, 0.5]
    assert torch.equal(found["boxes"][0], cell_boxes(2))


def test_a_map_of_the_whole_frame_becomes_the_mean_of_its_cells():
    maps = np.zeros((3, 1, 4, 4), np.float16)
    maps[1, 0, :2, 2:] = 8  # a quarter of the second frame
    features = video(3) | {"appearance_global": rows_every(1.0, maps)}
    assert clips_of(features)["appearance_global"].tolist() == [[0], [2], [0], [0]]
    features["motion_global"] = features["appearance_global"]
    changed = clips_of(features, changes=("motion_global",))["motion_global"]
    assert changed.tolist() == [[0], [2], [2], [0]]


def test_changes_are_those_between_neighbouring_rows_before_clips_are_taken():
    found = clips_of(video(10), choice="spread", changes=("motion_global",))
    assert found["motion_global"][:, 0].tolist() == [0, 1, 1, 1]
    assert found["appearance_global"][:, 0].tolist() == [0, 3, 6, 9]


def test_changes_of_appearance_are_those_from_the_median_row_with_their_sign():
    rows = np.array([5, 5, 5, 9, 5, 1, 1], np.float16)[:, None]
    features = video(7) | {"appearance_global": rows_every(1.0, rows)}
    found = clips_of(features, max_clips=7, changes=("appearance_global",))
    assert found["appearance_global"][:, 0].tolist() == [0, 0, 0, 4, 0, -4, -4]


def test_a_window_keeps_what_overlaps_it_and_one_row_at_least():
    spans = clip_spans(video(10), max_clips=4, choice="first", window_s=(2.5, 4.5))
    assert spans.tolist() == [[2, 3], [3, 4], [4, 5]]
    spans = clip_spans(video(10), max_clips=4, choice="first", window_s=(50, 60))
    assert spans.tolist() == [[9, 10]]
