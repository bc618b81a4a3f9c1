"""Frames at given times: the right ones, in the order asked for."""

import pytest
from made_media import make_numbered, make_video, number_of

from vlpipe.extractors.errors import MediaError
from vlpipe.pipelines.media_frames import frames_at


def test_the_frame_shown_at_each_time_comes_in_the_order_of_the_times(tmp_path):
    path = make_numbered(tmp_path / "clip.mp4", range(0, 5000, 125), fps=8)
    frames = frames_at(path, [3.19, 0.0, 1.0, 1.05, 99.0])
    assert [number_of(frame) for frame in frames] == [25, 0, 8, 8, 39]


def test_high_frames_are_scaled_down_and_low_ones_stay(tmp_path):
    path = make_video(tmp_path / "clip.mp4", size=(192, 96))
    assert frames_at(path, [0.5], height=48)[0].shape == (48, 96, 3)
    assert frames_at(path, [0.5], height=480)[0].shape == (96, 192, 3)


def test_without_times_nothing_is_found_and_a_broken_file_is_an_error(tmp_path):
    path = make_video(tmp_path / "clip.mp4")
    assert frames_at(path, []) == []
    path.write_bytes(b"<html>")
    with pytest.raises(MediaError):
        frames_at(path, [0.0])
