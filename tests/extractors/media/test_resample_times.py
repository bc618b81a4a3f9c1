"""Constant-rate sequences choose the source frames that ffmpeg's `fps` filter chooses."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from decoded_media import decode_all
from hypothesis import given
from hypothesis import strategies as st
from made_media import ffmpeg, make_numbered, make_video, number_of, reference_frames

from vlpipe.extractors.media import DecodePool, FrameRequest
from vlpipe.extractors.media.resample_times import (
    RateResampler,
    equidistant,
    number_of_slots,
    source_of_each_slot,
)

RATES = [25, 6, 30, 12.5, Fraction(24000, 1001), 1]


def _variable(seed: int, count: int = 40) -> list[int]:
    steps = np.random.default_rng(seed).integers(1, 120, count)
    return np.concatenate(([0], np.cumsum(steps)[:-1])).tolist()


CLIPS = {
    "constant_25.mkv": (list(range(0, 2000, 40)), "ffv1"),
    "constant_24.mkv": ([round(k * 1000 / 24) for k in range(48)], "ffv1"),
    "variable_1.mkv": (_variable(1), "ffv1"),
    "variable_2.mp4": (_variable(2), "libx264"),
    "variable_3.mp4": (_variable(3), "mpeg4"),
    "slides.mkv": ([0, 1000, 1010, 5000, 5003, 5006, 9000], "ffv1"),
    "late.mkv": ([t + 530 for t in range(0, 1000, 40)], "ffv1"),
}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("numbered")
    return {
        name: make_numbered(folder / name, times, codec=codec)
        for name, (times, codec) in CLIPS.items()
    }


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("name", CLIPS)
def test_chosen_frames_equal_those_of_the_fps_filter(
    name: str, rate: float | Fraction, numbered: dict[str, Path], pool: DecodePool
) -> None:
    path = numbered[name]
    got = decode_all(pool, path, FrameRequest(fps=rate))
    expected = [number_of(f) for f in reference_frames(path, f"fps={rate}:round=near")]
    assert [number_of(f) for f in got.frames()] == expected
    first = got.spans()[0, 0] * rate
    assert first == pytest.approx(round(first))
    edges = (round(first) + np.arange(len(expected) + 1)) / float(rate)
    np.testing.assert_allclose(got.spans(), np.stack([edges[:-1], edges[1:]], 1), atol=1e-9)


def test_every_source_frame_lasts_until_the_next(
    numbered: dict[str, Path], pool: DecodePool
) -> None:
    times = CLIPS["variable_1.mkv"][0]
    got = decode_all(pool, numbered["variable_1.mkv"], FrameRequest())
    assert [number_of(f) for f in got.frames()] == list(range(40))
    assert got.info.video is not None
    assert got.info.video.is_variable_rate
    np.testing.assert_allclose(got.spans()[:, 0], np.array(times) / 1000, atol=1e-9)
    assert np.array_equal(got.spans()[:-1, 1], got.spans()[1:, 0])
    assert got.spans()[-1, 1] > got.spans()[-1, 0]


def test_pictures_that_start_after_the_sound_keep_their_times(
    tmp_path: Path, pool: DecodePool
) -> None:
    source = make_video(tmp_path / "a.mkv", codec="ffv1")
    path = tmp_path / "late.mkv"
    tone = ["-f", "lavfi", "-i", "sine=duration=2"]
    ffmpeg(*tone, "-itsoffset", "0.5", "-i", source, "-c:v", "copy", "-c:a", "flac", path)
    got = decode_all(pool, path, FrameRequest(), FrameRequest(fps=10))
    assert got.info.video is not None
    assert got.info.video.start_s == pytest.approx(0.5)
    assert got.spans(0)[0, 0] == pytest.approx(0.5)
    np.testing.assert_allclose(got.spans(1)[[0, -1]], [[0.5, 0.6], [1.4, 1.5]], atol=1e-9)


def test_max_frames_takes_equidistant_frames_of_the_sequence(
    numbered: dict[str, Path], pool: DecodePool
) -> None:
    path = numbered["variable_1.mkv"]
    whole = decode_all(pool, path, FrameRequest(fps=10))
    few = decode_all(pool, path, FrameRequest(fps=10, max_frames=7))
    chosen = np.linspace(0, len(whole.frames()), 7, endpoint=False).astype(int)
    assert np.array_equal(few.frames(), whole.frames()[chosen])
    assert np.array_equal(few.spans(), whole.spans()[chosen])
    more = decode_all(pool, path, FrameRequest(fps=10, max_frames=1000))
    assert np.array_equal(more.frames(), whole.frames())


@given(
    steps=st.lists(st.integers(0, 50), min_size=1, max_size=40),
    start=st.integers(-20, 100),
    rate=st.fractions(Fraction(1, 10), 120, max_denominator=1001),
)
def test_table_and_stream_agree(steps: list[int], start: int, rate: Fraction) -> None:
    time_base = Fraction(1, 90)
    times = np.cumsum([start, *steps])
    starts, end = times[:-1], int(times[-1])
    resampler = RateResampler(time_base, rate)
    streamed = [
        index
        for index, (a, b) in enumerate(pairwise(times))
        for _ in resampler.slots(int(a), int(b))
    ]
    assert source_of_each_slot(starts, end, time_base, rate).tolist() == streamed
    assert number_of_slots(int(starts[0]), end, time_base, rate) == len(streamed)


@given(st.integers(0, 100_000), st.integers(1, 200))
def test_equidistant_frames_are_distinct_and_inside(num_frames: int, most: int) -> None:
    kept = equidistant(num_frames, most)
    if num_frames <= most:
        assert kept is None
    else:
        assert kept is not None
        assert len(kept) == most
        assert kept[0] == 0
        assert kept[-1] < num_frames
        assert np.all(np.diff(kept) > 0)


def test_equidistant_frames_are_the_papers() -> None:
    kept = equidistant(300, 40)
    assert kept is not None
    assert kept.tolist() == np.linspace(0, 300, 40, endpoint=False).astype(int).tolist()
