"""decord is chosen by the file alone, gives PyAV's bits, and skips for sparse requests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from decoded_media import decode_all
from made_media import ffmpeg, make_numbered, make_video, number_of

from vlpipe.extractors.media import DecodePool, FrameRequest, MediaError, Resize

B_FRAMES = ["-preset", "medium", "-bf", "3", "-g", "12"]
EXACT = {
    "plain.mp4": {"audio": "aac"},
    "b_frames.mp4": {"options": B_FRAMES, "seconds": 3},
    "ntsc.mp4": {"fps": "30000/1001", "options": B_FRAMES},
    "bt709.mp4": {"options": ["-vf", "setparams=colorspace=bt709:range=tv"]},
    "wide.mp4": {"size": (322, 50)},
    "h264.mkv": {"options": B_FRAMES, "seconds": 2},
}
REQUESTS = [
    [FrameRequest()],
    [FrameRequest(fps=7, resize=Resize(30))],
    [FrameRequest(max_frames=3)],
    [FrameRequest(fps=10, max_frames=4), FrameRequest(max_frames=2)],
]


@pytest.fixture(scope="module")
def decord_pool() -> DecodePool:
    with DecodePool(decoder="decord") as pool:
        yield pool


@pytest.mark.parametrize("name", EXACT)
def test_decord_and_pyav_give_equal_bits(
    name: str, tmp_path: Path, decord_pool: DecodePool, pyav_pool: DecodePool
) -> None:
    path = make_video(tmp_path / name, **EXACT[name])
    for requests in REQUESTS:
        ours, theirs = (decode_all(p, path, *requests) for p in (decord_pool, pyav_pool))
        assert ours.summary.decoder == "decord"
        assert theirs.summary.decoder == theirs.info.decoder == "pyav"
        for index in range(len(requests)):
            assert np.array_equal(ours.frames(index), theirs.frames(index))
            assert np.array_equal(ours.spans(index), theirs.spans(index))


def test_sparse_requests_skip_and_dense_ones_do_not(
    clip: Callable[[str], Path], pool: DecodePool
) -> None:
    path = make_video(clip("plain.mp4").parent / "sparse.mp4", seconds=8, options=["-g", "10"])
    sparse = decode_all(pool, path, FrameRequest(max_frames=5))
    dense = decode_all(pool, path, FrameRequest(max_frames=5), FrameRequest())
    assert sparse.info == dense.info
    assert sparse.info.decoder == "decord"
    assert (sparse.summary.decoder, sparse.summary.frames_decoded) == ("decord", 5)
    assert (dense.summary.decoder, dense.summary.frames_decoded) == ("pyav", 200)
    assert sparse.summary.ratio == 1.0
    assert np.array_equal(sparse.frames(), dense.frames(0))


INEXACT = {
    "open_gop.mp4": lambda p: make_video(
        p, options=[*B_FRAMES, "-x264-params", "open-gop=1"], seconds=3
    ),
    "variable.mp4": lambda p: make_numbered(p, [0, 40, 90, 100, 300, 310]),
    "plain.gif": lambda p: ffmpeg("-f", "lavfi", "-i", "testsrc=duration=1", p),
    "hevc.mp4": lambda p: make_video(
        p, codec="libx265", options=["-x265-params", "log-level=none"]
    ),
    "ten_bits.mp4": lambda p: make_video(p, pixel_format="yuv420p10le"),
    "one_frame.mp4": lambda p: make_video(p, seconds=0.04),
    "mpeg4.avi": lambda p: make_video(p, codec="mpeg4"),
}


@pytest.mark.parametrize("name", INEXACT)
def test_other_files_are_left_to_pyav(
    name: str, tmp_path: Path, pool: DecodePool, decord_pool: DecodePool
) -> None:
    path = tmp_path / name
    INEXACT[name](path)
    assert pool.probe(path).decoder == "pyav"
    with pytest.raises(MediaError, match="decord does not read") as caught:
        decord_pool.probe(path)
    assert caught.value.kind == "format_refused"


def test_lenient_decoding_is_pyavs(clip: Callable[[str], Path], lenient_pool: DecodePool) -> None:
    assert lenient_pool.probe(clip("plain.mp4")).decoder == "pyav"
    with pytest.raises(ValueError, match="cannot count"):
        DecodePool(decoder="decord", tolerance="lenient")


@pytest.mark.parametrize("name", ["b_frames.mp4", "vp8.webm", "ffv1.mkv", "mpeg4.avi", "plain.gif"])
def test_threads_do_not_change_bits(
    name: str, clip: Callable[[str], Path], pyav_pool: DecodePool
) -> None:
    with DecodePool(decoder="pyav", threads=4) as many:
        assert np.array_equal(
            decode_all(many, clip(name), FrameRequest()).frames(),
            decode_all(pyav_pool, clip(name), FrameRequest()).frames(),
        )


def test_the_right_frames_are_found_by_seeking(tmp_path: Path, pool: DecodePool) -> None:
    path = make_numbered(
        tmp_path / "numbers.mp4", list(range(0, 12_000, 40)), options={"g": "20", "bf": "2"}
    )
    got = decode_all(pool, path, FrameRequest(max_frames=7))
    assert got.summary.is_sparse
    assert [number_of(f) for f in got.frames()] == [k * 300 // 7 for k in range(7)]
