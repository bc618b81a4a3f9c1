"""The tracker: pairs of least cost, the motion of boxes, and one id for each figure."""

import itertools

import numpy as np
import pytest
import torch
from drawn_figures import PILLAR_COLUMNS, FigureDetector, behind_pillar, crossing, draw
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.ops import box_iou as torchvision_iou

from vlpipe.extractors.people.appearance import WIDTH, describe_appearance
from vlpipe.extractors.people.tracking import (
    TRACKERS,
    KalmanIouTracker,
    TrackingSettings,
    register_tracker,
)
from vlpipe.extractors.people.tracking_assignment import assign, box_area, box_iou
from vlpipe.extractors.people.tracking_motion import (
    centre_distances,
    correct_motion,
    predict_motion,
    start_motion,
)


def cheapest(cost):
    """(pairs, total) of the best assignment, by trying all of them."""
    if len(cost) > cost.shape[1]:
        return cheapest(cost.T)
    best = (0, 0.0)
    for columns in itertools.permutations(range(cost.shape[1]), len(cost)):
        taken = [cost[row, column] for row, column in enumerate(columns)]
        finite = [c for c in taken if np.isfinite(c)]
        if (-len(finite), sum(finite)) < (-best[0], best[1]) or best == (0, 0.0):
            best = (len(finite), float(sum(finite)))
    return best


costs = st.tuples(st.integers(0, 5), st.integers(0, 5)).flatmap(
    lambda shape: arrays(
        np.float64, shape, elements=st.integers(-20, 20).map(float) | st.just(np.inf)
    )
)


@given(costs)
def test_pairs_are_the_cheapest_of_all(cost):
    pairs = assign(cost)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert pairs == sorted(pairs)
    assert all(np.isfinite(cost[row, column]) for row, column in pairs)
    if cost.size:
        number, total = cheapest(cost)
        assert len(pairs) == number
        assert sum(cost[row, column] for row, column in pairs) == pytest.approx(total)


def test_a_large_assignment_beats_any_exchange_of_two():
    cost = np.random.default_rng(1).random((60, 40))
    pairs = dict(assign(cost))
    assert len(pairs) == 40
    for a, b in itertools.combinations(pairs, 2):
        kept = cost[a, pairs[a]] + cost[b, pairs[b]]
        assert kept <= cost[a, pairs[b]] + cost[b, pairs[a]] + 1e-12


boxes_of = st.lists(st.tuples(*[st.floats(-50, 50)] * 2, *[st.floats(0, 60)] * 2), max_size=5).map(
    lambda rows: np.array([(x, y, x + w, y + h) for x, y, w, h in rows]).reshape(-1, 4)
)


@given(boxes_of, boxes_of)
def test_overlap_is_torchvisions(a, b):
    made = box_iou(a, b)
    with np.errstate(invalid="ignore"):
        wanted = torchvision_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert np.allclose(made, np.nan_to_num(wanted), atol=1e-9)
    assert np.array_equal(box_area(a), (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1]))


def test_steady_motion_is_learnt_and_carried_on():
    state = start_motion(np.array([0, 0, 20, 50]))
    for k in range(1, 25):
        state = predict_motion(state, is_lost=False)
        state = correct_motion(state, np.array([3 * k, k, 20 + 3 * k, 50 + k]))
    spread = [state.covariance[0, 0]]
    for _ in range(10):
        state = predict_motion(state, is_lost=True)
        spread.append(state.covariance[0, 0])
    assert np.allclose(state.box, [102, 34, 122, 84], atol=3)
    assert spread == sorted(spread)
    near, far = centre_distances(state, np.array([[102, 34, 122, 84], [202, 34, 222, 84]]))
    assert near < 1 < 9.21 < far


def test_the_size_of_a_lost_box_stays():
    state = start_motion(np.array([0, 0, 30, 60]))
    for k in range(1, 10):  # hidden more and more from the right
        state = predict_motion(state, is_lost=False)
        state = correct_motion(state, np.array([0, 0, 30 - 3 * k, 60]))
    width = state.box[2] - state.box[0]
    for _ in range(20):
        state = predict_motion(state, is_lost=True)
    assert state.box[2] - state.box[0] == pytest.approx(width)


def follow(frames, settings=None, tracker="kalman_iou"):
    """The ids of each frame's detections (-1: none), of (boxes, scores, appearance) a frame."""
    follower = TRACKERS[tracker](settings or TrackingSettings())
    settled, lags = [], []
    for number, (boxes, scores, appearance) in enumerate(frames):
        settled += follower.update(boxes, scores, appearance)
        lags.append(number + 1 - len(settled))
    settled += follower.finish()
    assert [tracked.frame for tracked in settled] == list(range(len(frames)))
    ids = []
    for tracked, (boxes, _, _) in zip(settled, frames, strict=True):
        assert tracked.ids.tolist() == sorted(set(tracked.ids.tolist()))
        of_frame = np.full(len(boxes), -1)
        of_frame[tracked.detections] = tracked.ids
        ids.append(of_frame.tolist())
    return ids, max(lags, default=0)


def seen(*boxes, score=0.9):
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    return rows, np.full(len(rows), score, np.float32), np.zeros((len(rows), 0), np.float32)


def detections_of(figures, frames, pillar=None):
    """What a detector sees of drawn figures, and which figure each detection is."""
    detector = FigureDetector(figures)
    alone = [FigureDetector([figure]) for figure in figures]
    rows, owners = [], []
    for k in range(frames):
        pixels = draw(figures, k, (160, 96), pillar)
        frame = torch.from_numpy(pixels).permute(2, 0, 1) / 255
        found = {key: value.numpy() for key, value in detector(frame).items()}
        owners.append([i for i, one in enumerate(alone) if len(one(frame)["boxes"])])
        appearance = describe_appearance(pixels, found["boxes"])
        rows.append((found["boxes"], found["scores"], appearance))
    return rows, owners


def ids_by_figure(ids, owners):
    """The tracks of each figure; a half-hidden figure may be in none for a few frames."""
    found, left_out = {}, 0
    for of_frame, figures in zip(ids, owners, strict=True):
        for track, figure in zip(of_frame, figures, strict=True):
            if track >= 0:
                found.setdefault(figure, set()).add(track)
            left_out += track < 0
    assert left_out <= 8
    return found


@pytest.mark.parametrize("turned", [False, True])
def test_figures_keep_their_ids_through_a_crossing(turned):
    figures = crossing()[::-1] if turned else crossing()
    rows, owners = detections_of(figures, 48)
    assert min(map(len, owners)) == 1, "one figure hides the other"
    ids, _ = follow(rows)
    assert ids_by_figure(ids, owners) in ({0: {0}, 1: {1}}, {0: {1}, 1: {0}})


def test_a_figure_keeps_its_id_behind_a_pillar():
    rows, owners = detections_of(behind_pillar(), 60, PILLAR_COLUMNS)
    hidden = sum(0 not in figures for figures in owners)
    assert hidden >= 8
    ids, _ = follow(rows)
    assert ids_by_figure(ids, owners) == {0: {0}, 1: {1}}
    # Without patience the figure that comes out is a new one.
    ids, _ = follow(rows, TrackingSettings(max_missed=hidden // 2))
    assert len(ids_by_figure(ids, owners)[0]) == 2


def test_crossing_without_appearance_goes_by_motion():
    frames = [
        seen((10 + 6 * k, 0, 30 + 6 * k, 50), (250 - 6 * k, 0, 270 - 6 * k, 50)) for k in range(41)
    ]
    ids, _ = follow(frames)
    assert {tuple(of_frame) for of_frame in ids} == {(0, 1)}


def test_flashes_are_no_tracks_and_ids_follow_the_order_of_appearance():
    frames = [seen((0, 0, 20, 50)) for _ in range(12)]
    frames[3] = seen((0, 0, 20, 50), (100, 0, 120, 50))
    for k in range(6, 12):
        frames[k] = seen((200, 0, 220, 50), (0, 0, 20, 50))
    ids, lag = follow(frames)
    assert ids == [[0]] * 3 + [[0, -1]] + [[0]] * 2 + [[1, 0]] * 6
    assert lag == TrackingSettings().confirm_after - 1


def test_weak_detections_carry_a_track_on_and_begin_none():
    box = (0, 0, 20, 50)
    frames = [seen(box)] * 4 + [seen(box, score=0.35)] * 4 + [seen(box)] * 2
    assert follow(frames)[0] == [[0]] * 10
    assert follow([seen(box, score=0.35)] * 8)[0] == [[-1]] * 8


def test_another_person_in_the_same_place_is_another_track():
    one, other = np.zeros((2, 1, WIDTH), np.float32)
    one[0, 0] = other[0, 5] = 1
    frames = [(*seen((0, 0, 20, 50))[:2], one)] * 6 + [(*seen((2, 0, 22, 50))[:2], other)] * 6
    assert follow(frames)[0] == [[0]] * 6 + [[1]] * 6


@pytest.mark.parametrize("frames", [0, 1, 2, 3])
def test_short_videos_have_tracks(frames):
    assert follow([seen((0, 0, 20, 50))] * frames)[0] == [[0]] * frames


def test_what_begins_in_the_last_frames_is_left_out():
    frames = [seen()] * 6 + [seen((0, 0, 20, 50))] * 2
    assert follow(frames)[0] == [[]] * 6 + [[-1]] * 2


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.integers(0, 60), st.integers(0, 60), st.integers(1, 40), st.integers(1, 40),
                st.sampled_from([0.3, 0.9]),
            ),
            max_size=4,
        ),
        max_size=12,
    )
)  # fmt: skip
def test_any_boxes_are_settled_in_time(drawn):
    frames = []
    for rows in drawn:
        boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in rows], np.float32)
        scores = np.array([row[-1] for row in rows], np.float32)
        frames.append((boxes.reshape(-1, 4), scores, np.zeros((len(rows), 0), np.float32)))
    ids, lag = follow(frames)
    assert lag < TrackingSettings().confirm_after
    used = sorted({i for of_frame in ids for i in of_frame if i >= 0})
    assert used == list(range(len(used)))


def test_appearance_is_of_the_clothes():
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[:20, :20] = (255, 0, 0)
    frame[20:, :20] = (0, 0, 255)
    frame[:, 30:] = (0, 0, 255)
    boxes = np.array([[0, 0, 20, 40], [1, 0, 19, 40], [30, 0, 60, 40], [59.5, 39.5, 60, 40]])
    made = describe_appearance(frame, boxes.astype(np.float32))
    assert made.shape == (4, WIDTH)
    assert np.allclose(np.linalg.norm(made, axis=1), 1)
    assert made[0] @ made[1] == pytest.approx(1)
    assert made[0] @ made[2] == pytest.approx(0.5)
    assert describe_appearance(frame, np.zeros((0, 4), np.float32)).shape == (0, WIDTH)


def test_a_tracker_has_one_name():
    with pytest.raises(ValueError, match="kalman_iou"):
        register_tracker("kalman_iou")(KalmanIouTracker)
