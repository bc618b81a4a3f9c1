"""Which rows are clips, and which actions each shows, against a plain count of frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlpipe.models.clip_labels import clip_labels, clips_at_stride, consecutive_clips
from vlpipe.stores.datasets import Action
from vlpipe.stores.errors import UsageError

NUM_CLASSES = 3


def windows(duration_s, length_s, stride_s):
    starts = np.arange(0, duration_s, stride_s)
    return np.stack([starts, np.minimum(starts + length_s, duration_s)], axis=1)


def plain_labels(actions, spans):
    """Frame by frame, in whole numbers: ends of spans in hundredths of a second."""
    table = np.zeros((len(spans), NUM_CLASSES))
    for row, (start, end) in enumerate(spans):
        for frame in range(0, 24 * 60, 16):
            if start * 24 <= frame * 100 < end * 24:
                for action in actions:
                    marked = range(int(24 * action.start_s), int(24 * action.end_s) + 1)
                    table[row, action.place] = max(table[row, action.place], frame in marked)
    return table


hundredths = st.integers(0, 4000)
times = hundredths.map(lambda n: n / 100)


@given(
    st.lists(st.builds(Action, st.integers(0, NUM_CLASSES - 1), times, times), max_size=4),
    st.lists(st.tuples(hundredths, st.integers(1, 1200)), min_size=1, max_size=4),
)
def test_a_label_is_that_of_any_kept_frame(actions, spans):
    ends = np.array([(start, start + length) for start, length in spans])
    found = clip_labels(actions, ends / 100, NUM_CLASSES)
    assert found.tolist() == plain_labels(actions, ends).tolist()


def test_an_action_marks_its_last_frame_and_none_between_kept_ones():
    spans = windows(12, 6, 6)
    # Frames 144 = 6 s and 160 are kept; the second clip begins with 144.
    assert clip_labels([Action(0, 0, 6)], spans, 1).tolist() == [[1], [1]]
    assert clip_labels([Action(0, 0, 5.99)], spans, 1).tolist() == [[1], [0]]
    assert clip_labels([Action(0, 6.05, 6.6)], spans, 1).tolist() == [[0], [0]]
    assert clip_labels([Action(0, 6.05, 99)], spans, 1).tolist() == [[0], [1]]
    assert clip_labels([Action(0, 9, 2)], spans, 1).tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("duration_s", "length_s", "stride_s", "starts"),
    [
        (20, 6, 6, [0, 6, 12]),
        (20, 6, 3, [0, 6, 12]),
        (25, 11, 3, [0, 12]),
        (18, 6, 3, [0, 6, 12]),
        (5, 6, 3, [0]),
        (1, 6, 6, [0]),
    ],
)
def test_training_takes_whole_clips_that_do_not_overlap(duration_s, length_s, stride_s, starts):
    spans = windows(duration_s, length_s, stride_s)
    assert spans[consecutive_clips(spans), 0].tolist() == starts


@given(st.floats(0.5, 60), st.floats(0.5, 12), st.floats(0.1, 1))
def test_training_clips_never_overlap_and_there_is_one(duration_s, length_s, share):
    spans = windows(duration_s, length_s, length_s * share)
    chosen = spans[consecutive_clips(spans)]
    assert len(chosen) >= 1
    assert (chosen[1:, 0] >= chosen[:-1, 1] - 1e-6).all()


def test_evaluation_takes_the_windows_at_a_stride():
    spans = windows(20, 6, 3)
    assert clips_at_stride(spans, None, video_id="a").all()
    assert spans[clips_at_stride(spans, 3, video_id="a"), 0].tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert spans[clips_at_stride(spans, 6, video_id="a"), 0].tolist() == [0, 6, 12, 18]
    with pytest.raises(UsageError, match="every 4 s are asked for, and the rows of video 'a'"):
        clips_at_stride(spans, 4, video_id="a")
    late = np.array([[3.0, 9.0]])
    assert clips_at_stride(late, 6, video_id="a").tolist() == [True]
    odd = windows(60, 256 / 30, 256 / 30)
    assert clips_at_stride(odd, 256 / 30, video_id="a").all()
