"""Which frames make the rows of a video, against the published rules over whole sequences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlpipe.extractors.inputs.stacks import StackRule, StackSampler
from vlpipe.extractors.media import AudioBlock, FrameBlock


def rows_of_bmt(frames, window, step):
    """The rule of the code that made BMT's features: cuts a list of all frames."""
    if not frames:
        return []
    rest = len(frames) % window
    if len(frames) < window:
        return [list(np.resize(frames, window))]
    num_full = (len(frames) - window) // step + 1
    rows = [frames[k * step : k * step + window] for k in range(num_full)]
    if rest >= 0.2 * window:
        rows.append(list(np.resize(frames[num_full * step :], window)))
    return rows


def rows_of_head(frames, window, step):
    """The rule of video_features today: a growing list that is emptied when it is full."""
    rows, waiting = [], []
    for frame in frames:
        waiting.append(frame)
        if len(waiting) == window:
            rows.append(list(waiting))
            waiting = waiting[step:]
    return rows


PUBLISHED = {"cycle": rows_of_bmt, "drop": rows_of_head}


def draw_frames(num_frames, shape=(2, 3)):
    """uint8 [N, H, W, 3] whose first two channels hold the number of the frame."""
    frames = np.zeros((num_frames, *shape, 3), np.uint8)
    index = np.arange(num_frames)[:, None, None]
    frames[..., 0], frames[..., 1] = index // 256, index % 256
    return frames


def numbers(frames):
    return (frames[:, 0, 0, 0].astype(int) * 256 + frames[:, 0, 0, 1]).tolist()


def run(sampler, num_frames, block_sizes=(100,), fps=25, start_s=0.0):
    """All samples of a video of so many frames, in blocks of the given sizes, then of one."""
    frames = draw_frames(num_frames)
    starts = start_s + np.arange(num_frames) / fps
    spans = np.stack([starts, starts + 1 / fps], axis=1)
    samples, first, sizes = [], 0, iter(block_sizes)
    while first < num_frames:
        last = first + next(sizes, 100)
        samples += sampler.push(FrameBlock(0, frames[first:last], spans[first:last], first))
        first = last
    return [*samples, *sampler.finish()]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 300),
    st.integers(1, 40),
    st.data(),
    st.sampled_from(["cycle", "drop"]),
    st.lists(st.integers(1, 90), max_size=8),
)
def test_rows_equal_the_published_rules(num_frames, stack_size, data, tail, block_sizes):
    step_size = data.draw(st.integers(1, stack_size))
    rule = StackRule(stack_size, step_size, tail)
    wanted = PUBLISHED[tail](list(range(num_frames)), rule.window, step_size)
    assert [row.tolist() for row in rule.rows(num_frames)] == wanted
    whole = run(StackSampler(rule, keep_look_ahead=True), num_frames, block_sizes)
    assert [numbers(sample.data) for sample in whole] == wanted
    stacks = run(StackSampler(rule), num_frames, block_sizes)
    assert [numbers(sample.data) for sample in stacks] == [row[:stack_size] for row in wanted]
    assert [sample.span for sample in stacks] == [sample.span for sample in whole]


@pytest.mark.parametrize(
    ("num_frames", "cycled", "dropped"),
    [
        (0, 0, 0),
        (1, 1, 0),
        (64, 1, 0),
        (65, 1, 1),
        (77, 1, 1),  # 77 mod 65 is 12: the 13 frames that are left are dropped
        (78, 2, 1),
        (128, 2, 1),
        (129, 3, 2),  # one frame is left and makes a row of its own
        (130, 2, 2),
        (877, 14, 13),  # the sample video of BMT, of which 14 rows are published
    ],
)
def test_number_of_rows_of_64_frames(num_frames, cycled, dropped):
    for tail, wanted in (("cycle", cycled), ("drop", dropped)):
        rule = StackRule(64, 64, tail)
        assert len(rule.rows(num_frames)) == wanted
        assert len(run(StackSampler(rule), num_frames)) == wanted


def test_a_single_frame_is_repeated_over_the_whole_stack():
    (sample,) = run(StackSampler(StackRule(64, 64, "cycle")), 1)
    assert sample.data.shape == (64, 2, 3, 3)
    assert numbers(sample.data) == [0] * 64
    assert sample.span == pytest.approx((0.0, 0.04))
    *_, last = run(StackSampler(StackRule(64, 64, "cycle")), 129)
    assert numbers(last.data) == [128] * 64


def test_spans_are_those_of_the_real_frames():
    rule = StackRule(64, 64, "cycle")
    whole = run(StackSampler(rule, keep_look_ahead=True), 877, start_s=0.5)
    assert len(whole[0].data) == 65
    for k, sample in enumerate(whole[:-1]):
        assert sample.span == pytest.approx((0.5 + 2.56 * k, 0.5 + 2.56 * k + 2.56))
    # 877 frames last 35.08 s: the last row ends there and not after 2.56 s.
    assert whole[-1].span == pytest.approx((0.5 + 33.28, 0.5 + 35.08))
    assert numbers(whole[-1].data)[:46] == [*range(832, 877), 832]


def test_without_look_ahead_a_stack_is_full_by_itself():
    rule = StackRule(16, 16, "cycle", look_ahead=0)
    assert [len(rule.rows(n)) for n in (0, 1, 16, 19, 20, 32)] == [0, 1, 1, 1, 2, 2]
    assert len(StackRule(16, 16, "drop", look_ahead=0).rows(31)) == 1


def test_samples_do_not_change_when_more_frames_come():
    sampler = StackSampler(StackRule(8, 4, "drop"))
    samples = run(sampler, 60, block_sizes=(5, 9, 1, 30))
    assert [numbers(s.data) for s in samples] == [list(range(k, k + 8)) for k in range(0, 50, 4)]


def test_frames_are_prepared_before_they_are_kept():
    sampler = StackSampler(StackRule(4, 4, "drop"), prepare=lambda frames: frames[:, :1, :1] + 1)
    assert run(sampler, 5)[0].data[..., 1].tolist() == [[[1]], [[2]], [[3]], [[4]]]


@pytest.mark.parametrize("step_size", [0, 9])
def test_steps_may_not_leave_gaps(step_size):
    with pytest.raises(ValueError, match="step_size"):
        StackRule(8, step_size, "drop")


def test_sound_is_refused():
    with pytest.raises(TypeError, match="AudioBlock"):
        StackSampler(StackRule(8, 8, "drop")).push(AudioBlock(0, np.zeros(1, np.float32), 0.0, 0))
