"""Which frames make clips: windows against cutting whole lists, views against published rules."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlpipe.extractors.inputs.clip_windows import (
    ViewSampler,
    WindowRule,
    WindowSampler,
    spread_over_ends,
    spread_over_segments,
    spread_over_span,
)
from vlpipe.extractors.media import AudioBlock, FrameBlock


def as_is(frames):
    return frames


def run(sampler, starts, end_s, block_sizes=()):
    """All samples of a video whose frame k begins at starts[k] and has the level k."""
    starts = np.asarray(starts, np.float64)
    frames = np.zeros((len(starts), 2, 3, 3), np.uint8)
    frames += np.arange(len(starts), dtype=np.uint8).reshape(-1, 1, 1, 1)
    spans = np.stack([starts, np.append(starts[1:], end_s)[: len(starts)]], axis=1)
    samples, first, sizes = [], 0, iter(block_sizes)
    while first < len(starts):
        last = first + next(sizes, 100)
        samples += sampler.push(FrameBlock(0, frames[first:last], spans[first:last], first))
        first = last
    return [*samples, *sampler.finish()]


def numbers(sample):
    return sample.data[:, 0, 0, 0].tolist()


def windows_of_list(starts, end_s, window, stride, size, tail):
    """Clips and spans, cut from the list of all frames with exact fractions of a second."""
    made = []
    for k in range(math.ceil(end_s / stride)):
        begin, stop = k * stride, k * stride + window
        is_short = stop > end_s
        if is_short and tail == "drop" and made:
            continue
        inside = [index for index, start in enumerate(starts) if begin <= start < stop]
        if inside:
            chosen = [inside[place] for place in spread_over_ends(len(inside), size)]
            made.append((chosen, (float(begin), float(min(stop, end_s)))))
    return made


@settings(max_examples=150, deadline=None)
@given(
    num_frames=st.integers(1, 120),
    fps=st.sampled_from([Fraction(3, 2), Fraction(5), Fraction(10), Fraction(30000, 1001)]),
    lengths=st.tuples(st.integers(1, 40), st.integers(1, 40)).map(sorted),
    size=st.integers(1, 12),
    tail=st.sampled_from(["keep", "drop"]),
    block_sizes=st.lists(st.integers(1, 40), max_size=6),
)
def test_windows_equal_those_of_the_whole_list(num_frames, fps, lengths, size, tail, block_sizes):
    stride, window = (Fraction(length, 5) for length in lengths)
    starts = [k / fps for k in range(num_frames)]
    end_s = num_frames / fps
    sampler = WindowSampler(WindowRule(float(window), float(stride), size, tail=tail), as_is)
    samples = run(sampler, [float(s) for s in starts], float(end_s), block_sizes)
    wanted = windows_of_list(starts, end_s, window, stride, size, tail)
    assert [numbers(sample) for sample in samples] == [chosen for chosen, _ in wanted]
    assert np.allclose([sample.span for sample in samples], [span for _, span in wanted])


def test_windows_overlap_and_the_last_ones_end_with_the_video():
    starts = np.arange(100) / 10
    samples = run(WindowSampler(WindowRule(4, 3, 4), as_is), starts, 10.0)
    assert [sample.span for sample in samples] == [(0, 4), (3, 7), (6, 10), (9, 10)]
    assert numbers(samples[1]) == [30, 43, 56, 69]
    assert numbers(samples[3]) == [90, 93, 96, 99]
    samples = run(WindowSampler(WindowRule(4, 3, 4, tail="drop"), as_is), starts, 10.0)
    assert [sample.span for sample in samples] == [(0, 4), (3, 7), (6, 10)]


@pytest.mark.parametrize("tail", ["keep", "drop"])
def test_a_video_shorter_than_a_window_makes_one_clip(tail):
    (sample,) = run(WindowSampler(WindowRule(6, 6, 8, tail=tail), as_is), [0, 0.1, 0.2], 0.3)
    assert numbers(sample) == [0, 0, 0, 0, 1, 1, 1, 2]
    assert sample.span == pytest.approx((0, 0.3))
    (sample,) = run(WindowSampler(WindowRule(6, 6, 8, tail=tail), as_is), [0], 0.04)
    assert numbers(sample) == [0] * 8


def test_windows_without_frames_make_no_clips():
    starts = [0.0, 0.5, 9.2, 9.9, 1e9]
    samples = run(WindowSampler(WindowRule(2, 1, 2), as_is), starts, 1e9 + 1)
    spans = [(0, 2), (8, 10), (9, 11), (1e9 - 1, 1e9 + 1), (1e9, 1e9 + 1)]
    assert [sample.span for sample in samples] == spans
    assert [numbers(sample) for sample in samples] == [[0, 1], [2, 3], [2, 3], [4, 4], [4, 4]]
    assert run(WindowSampler(WindowRule(2, 1, 2), as_is), [], 0.0) == []


def test_windows_hold_one_window_of_frames():
    sampler = WindowSampler(WindowRule(1, 0.5, 4), as_is)
    most = 0
    for k in range(500):
        span = np.array([[k / 10, (k + 1) / 10]])
        sampler.push(FrameBlock(0, np.zeros((1, 2, 2, 3), np.uint8), span, k))
        most = max(most, len(sampler._frames))
    assert most == 10


def test_segments_take_a_frame_near_each_middle():
    # 17 frames in 8 segments of 2: floor(2 / 2) behind 0, 2, ..., 14.
    assert spread_over_segments(17, 8).tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    # Halves are rounded to even: 2.5 k is 0, 2.5, 5, 7.5, ...
    assert spread_over_segments(21, 8).tolist() == [1, 3, 6, 9, 11, 13, 16, 19]
    assert spread_over_segments(300, 4, view=0, num_views=4).tolist() == [14, 89, 164, 238]
    assert spread_over_segments(300, 4, view=3, num_views=4).tolist() == [59, 134, 209, 283]
    assert spread_over_segments(1, 8).tolist() == [0] * 8
    for num_frames in range(1, 60):
        for view in range(4):
            places = spread_over_segments(num_frames, 8, view, 4)
            assert (np.diff(places) >= 0).all()
            assert places.max() < num_frames


def test_spans_start_where_their_view_does():
    # 32 frames apart at 30 fps: 256 of 300 frames, from 0 and from 22.
    assert spread_over_span(0, 256, 300, 8).tolist() == [0, 36, 72, 109, 145, 182, 218, 255]
    assert spread_over_span(22, 256, 300, 8).tolist() == [22, 58, 94, 131, 167, 204, 240, 277]
    # A shorter video's last frame is repeated.
    assert spread_over_span(0, 256, 100, 8).tolist() == [0, 36, 72, 99, 99, 99, 99, 99]
    assert spread_over_span(0, 0, 1, 8).tolist() == [0] * 8


def test_views_hold_and_prepare_the_chosen_frames_alone():
    prepared = []

    def prepare(frames):
        prepared.append(int(frames[0, 0, 0, 0]))
        return frames

    views = [np.array([0, 3, 9]), np.array([3, 5, 99])]
    samples = run(ViewSampler(views, prepare), np.arange(100) / 10, 10.0, (7, 30))
    assert [numbers(sample) for sample in samples] == [[0, 3, 9], [3, 5, 99]]
    assert np.allclose([sample.span for sample in samples], [(0, 1), (0.3, 10)])
    assert prepared == [0, 3, 5, 9, 99]


def test_the_last_frame_stands_for_those_that_a_file_promises_and_lacks():
    samples = run(ViewSampler([np.array([0, 4, 8, 12])], as_is), np.arange(7) / 10, 0.7)
    assert [numbers(sample) for sample in samples] == [[0, 4, 6, 6]]
    assert samples[0].span == pytest.approx((0, 0.7))
    assert run(ViewSampler([np.array([0])], as_is), [], 0.0) == []


@pytest.mark.parametrize("stride", [0, 3])
def test_windows_may_not_leave_gaps(stride):
    with pytest.raises(ValueError, match="stride_s"):
        WindowRule(2, stride, 8)


@pytest.mark.parametrize(
    "sampler", [WindowSampler(WindowRule(1, 1, 2), as_is), ViewSampler([np.array([0])], as_is)]
)
def test_sound_is_refused(sampler):
    with pytest.raises(TypeError, match="AudioBlock"):
        sampler.push(AudioBlock(0, np.zeros(1, np.float32), 0.0, 0))
