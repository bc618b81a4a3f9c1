"""Sim, CC, AUC, shuffled AUC: plain computations, known values, and what must hold always."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlpipe.models.gaze_maps import blurred, resized
from vlpipe.models.metrics.gaze import (
    auc_judd,
    auc_shuffled,
    correlation,
    drawn_frames,
    frame_prediction,
    frame_truth,
    other_frames,
    scaled,
    similarity,
)
from vlpipe.models.metrics.gaze_protocol import (
    Draws,
    DrawSettings,
    GazeFrame,
    draw,
    frame_figures,
    gaze_figures,
)

SEEDS = st.integers(0, 10_000)


def some_map(seed, height=9, width=12, *, ties=False):
    found = np.random.default_rng(seed).random((height, width))
    return np.round(found, 1) if ties else found


def some_pixels(seed, count, height=9, width=12):
    places = np.random.default_rng(seed).choice(height * width, count, replace=False)
    return np.stack([places % width, places // width], axis=1)


def plain_judd(values, pixels):
    """The formula as it stands, for maps without ties."""
    low, high = values.min(), values.max()
    values = (values - low) / (high - low)
    at = sorted((values[y, x] for x, y in pixels), reverse=True)
    curve = [(0.0, 0.0)]
    for k, threshold in enumerate(at, start=1):
        above = sum(v >= threshold for v in values.ravel())
        curve.append(((above - k) / (values.size - len(at)), k / len(at)))
    curve.append((1.0, 1.0))
    pairs = itertools.pairwise(curve)
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 20))
def test_auc_is_the_formula(seed, count):
    values, pixels = some_map(seed), some_pixels(seed + 1, count)
    assert auc_judd(values, pixels) == pytest.approx(plain_judd(values, pixels))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 20))
def test_pixels_of_equal_value_count_together(seed, count):
    values, pixels = some_map(seed, ties=True), some_pixels(seed + 1, count)
    is_fixated = np.zeros(values.shape, bool)
    is_fixated[pixels[:, 1], pixels[:, 0]] = True
    levels = sorted(set(values[is_fixated].tolist()), reverse=True)
    hits = [0, *((values[is_fixated] >= level).mean() for level in levels), 1]
    alarms = [0, *((values[~is_fixated] >= level).mean() for level in levels), 1]
    assert auc_judd(values, pixels) == pytest.approx(np.trapezoid(hits, alarms))
    # So their order cannot matter: the same map with as many ties, turned around.
    turned = np.stack([11 - pixels[:, 0], pixels[:, 1]], axis=1)
    assert auc_judd(values[:, ::-1], turned) == pytest.approx(auc_judd(values, pixels))


def test_known_values():
    pixels = np.array([[2, 1], [7, 5], [7, 5]])
    truth = frame_truth(pixels, 12, 9)
    assert similarity(truth, truth) == pytest.approx(1)
    assert correlation(truth, truth) == pytest.approx(1)
    assert correlation(-truth, truth) == pytest.approx(-1)
    perfect = np.zeros((9, 12))
    perfect[[1, 5], [2, 7]] = 1
    others = some_pixels(0, 30)
    others = others[~(others[:, None] == pixels).all(axis=2).any(axis=1)]
    rng = np.random.default_rng(0)
    assert auc_judd(perfect, pixels) == pytest.approx(1)
    # Thresholds are values at fixations: where those are the least, there is one, for everything.
    assert auc_judd(1 - perfect, pixels) == pytest.approx(0.5)
    assert auc_shuffled(1 - perfect, pixels, others, rng) == pytest.approx(0)
    assert auc_shuffled(perfect, pixels, others, rng) == pytest.approx(1)
    uniform = np.full((9, 12), 1 / 108)
    assert auc_judd(uniform, pixels) == pytest.approx(0.5)
    assert auc_shuffled(uniform, pixels, others, rng) == pytest.approx(0.5)
    assert correlation(uniform, truth) == 0
    assert similarity(uniform, uniform) == pytest.approx(1)
    half = np.zeros((2, 2))
    half[0] = 1
    assert similarity(half, half.T) == pytest.approx(0.5)
    # A pixel counts once, however many looked at it.
    assert auc_judd(truth, pixels) == auc_judd(truth, pixels[:2])


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(0.01, 50), st.floats(-5, 5))
def test_scale_and_offset_of_a_map_do_not_count(seed, scale, offset):
    values, pixels = some_map(seed), some_pixels(seed + 1, 4)
    others, truth = some_pixels(seed + 2, 25), some_map(seed + 3)
    for figure in (
        lambda m: similarity(m, truth),
        lambda m: correlation(m, truth),
        lambda m: auc_judd(m, pixels),
        lambda m: auc_shuffled(m, pixels, others, np.random.default_rng(seed)),
    ):
        found = figure(values)
        assert figure(scale * values + offset) == pytest.approx(found, abs=1e-6)
        assert -1 - 1e-9 <= found <= 1 + 1e-9
    assert correlation(values, truth) == pytest.approx(
        np.corrcoef(values.ravel(), truth.ravel())[0, 1]
    )
    assert similarity(values, truth) == pytest.approx(similarity(truth, values))


def plain_shuffled(values, pixels, drawn):
    """One split by the words of the protocol."""
    at = [values[y, x] for x, y in pixels]
    against = [values[y, x] for x, y in drawn]
    top = max(at + against)
    curve = [(1.0, 1.0)]
    for step in range(11):
        if step / 10 < top:
            hits = sum(v >= step / 10 for v in at) / len(at)
            curve.append((sum(v >= step / 10 for v in against) / len(against), hits))
    curve.append((0.0, 0.0))
    curve.reverse()
    pairs = itertools.pairwise(curve)
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 12))
def test_shuffled_auc_with_all_others_is_one_plain_split(seed, count):
    # As many others as fixations, or fewer: every draw takes all of them.
    values, pixels = scaled(some_map(seed)), some_pixels(seed + 1, count)
    others = some_pixels(seed + 2, max(1, count - seed % 3))
    found = auc_shuffled(values, pixels, others, np.random.default_rng(0))
    assert found == pytest.approx(plain_shuffled(values, pixels, others))


def test_shuffled_auc_is_the_mean_over_draws():
    values, pixels, others = some_map(0), some_pixels(1, 2), some_pixels(2, 4)
    pairs = [others[[a, b]] for a in range(4) for b in range(a)]
    wanted = np.mean([plain_shuffled(scaled(values), pixels, pair) for pair in pairs])
    found = auc_shuffled(values, pixels, others, np.random.default_rng(0), num_splits=5000)
    assert found == pytest.approx(wanted, abs=0.01)
    again = auc_shuffled(values, pixels, others, np.random.default_rng(0), num_splits=5000)
    assert again == found


def test_a_preference_for_the_centre_gains_nothing_when_shuffled():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:60, :80]
    centre = np.exp(-((x - 40) ** 2 + (y - 30) ** 2) / 200)
    central = np.rint(rng.normal([40, 30], 8, (400, 2))).astype(int).clip(0, [79, 59])
    judd = np.mean([auc_judd(centre, central[n : n + 8]) for n in range(0, 80, 8)])
    shuffled = np.mean(
        [auc_shuffled(centre, central[n : n + 8], central[80:], rng) for n in range(0, 80, 8)]
    )
    assert judd > 0.85
    assert shuffled == pytest.approx(0.5, abs=0.07)


def test_what_cannot_be_measured_is_refused():
    values, rng = some_map(0, 2, 2), np.random.default_rng(0)
    with pytest.raises(ValueError, match="no fixations"):
        auc_judd(values, [])
    with pytest.raises(ValueError, match="no fixations"):
        auc_shuffled(values, [[0, 0]], [], rng)
    with pytest.raises(ValueError, match="every pixel is fixated"):
        auc_judd(values, [[0, 0], [0, 1], [1, 0], [1, 1]])
    with pytest.raises(ValueError, match="beside the map of 2x2 pixels"):
        auc_judd(values, [[2, 0]])
    with pytest.raises(ValueError, match="no frames"):
        gaze_figures([], DrawSettings())


def test_maps_at_the_size_of_the_frame():
    pixels = np.array([[3, 2], [70, 50], [70, 50]])
    points = np.zeros((60, 80))
    np.add.at(points, (pixels[:, 1], pixels[:, 0]), 1)
    assert frame_truth(pixels, 80, 60) == pytest.approx(scaled(blurred(points, 19)))
    grid = some_map(0, 49, 49)
    wanted = scaled(resized(blurred(grid, 2), 60, 80))
    assert frame_prediction(grid, 80, 60) == pytest.approx(wanted)
    # Smoothing and enlarging leave rounding errors in an even map, which say nothing.
    even = frame_prediction(np.full((49, 49), 1 / 2401), 80, 60)
    assert (even == 1).all()
    assert auc_judd(even, pixels) == pytest.approx(0.5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), SEEDS)
def test_draws_are_of_other_frames_and_without_replacement(num_frames, seed):
    drawn = other_frames(num_frames, np.random.default_rng(seed))
    assert drawn.shape == (num_frames, min(10, num_frames - 1))
    for frame, others in enumerate(drawn):
        assert frame not in others
        assert len(set(others.tolist())) == len(others)
        assert all(0 <= other < num_frames for other in others)
    frames = drawn_frames(num_frames, 3, 7, np.random.default_rng(seed))
    assert frames.shape == ((3, 7) if num_frames > 7 else (1, num_frames))
    assert all(len(set(row.tolist())) == len(row) for row in frames)


def made_frames(count=12):
    sizes = ((40, 30), (80, 60))
    rng = np.random.default_rng(4)
    return [
        GazeFrame(
            some_map(n, 49, 49),
            np.stack([rng.integers(0, s, 3) for s in sizes[n % 2]], axis=1),
            *sizes[n % 2],
        )
        for n in range(count)
    ]


def test_figures_are_means_over_draws_and_follow_from_the_seed():
    frames = made_frames()
    chosen = DrawSettings(draws=4, frames_per_draw=5, seed=3)
    found = gaze_figures(frames, chosen)
    draws = draw(len(frames), chosen)
    assert draws.frames.shape == (4, 5)
    for name, value in found.items():
        wanted = [frame_figures(frames, int(n), draws, 3)[name] for n in draws.frames.ravel()]
        assert value == pytest.approx(np.mean(wanted)), name
    assert list(found) == ["Sim", "CC", "sAUC", "AUC"]
    assert gaze_figures(frames, chosen) == found
    assert gaze_figures(frames, DrawSettings(draws=4, frames_per_draw=5, seed=4)) != found
    assert list(gaze_figures(frames[:1], chosen)) == ["Sim", "CC", "AUC"]


def test_fixations_of_frames_of_another_size_are_scaled():
    corner = GazeFrame(some_map(0, 49, 49), np.array([[79, 59]]), 80, 60)
    small = GazeFrame(some_map(1, 49, 49), np.array([[0, 0]]), 40, 30)
    figures = frame_figures([small, corner], 0, Draws(np.array([[0]]), np.array([[1], [0]])), 0)
    values = frame_prediction(small.grid, 40, 30)
    assert figures["sAUC"] == pytest.approx(plain_shuffled(values, [[0, 0]], [[39, 29]]))
    assert math.isfinite(figures["CC"])
