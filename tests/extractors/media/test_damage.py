"""Damaged files: refused with found and expected when strict, counted when lenient."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from decoded_media import decode_all
from made_media import cut, ffmpeg, mutate

from vlpipe.extractors.errors import MEDIA_ERROR_KINDS
from vlpipe.extractors.media import AudioRequest, DecodePool, FrameRequest, MediaError, MediaRequest

TRUNCATED = ["fast_start.mp4", "vp8.webm", "ffv1.mkv", "mpeg4.avi", "plain.gif"]


@pytest.fixture(scope="module")
def source(clip: Callable[[str], Path]) -> Callable[[str], Path]:
    def get(name: str) -> Path:
        if name != "fast_start.mp4":
            return clip(name)
        path = clip("plain.mp4").parent / name
        if not path.exists():
            ffmpeg("-i", clip("long.mp4"), "-c", "copy", "-movflags", "faststart", path)
        return path

    return get


@pytest.mark.parametrize("share", [0.4, 0.8, 0.97])
@pytest.mark.parametrize("name", TRUNCATED)
def test_truncation_is_noticed(
    name: str,
    share: float,
    source: Callable[[str], Path],
    tmp_path: Path,
    pool: DecodePool,
    lenient_pool: DecodePool,
) -> None:
    path = cut(source(name), tmp_path / name, share)
    with pytest.raises(MediaError, match=r"\d+ of \d+ pictures") as caught:
        decode_all(pool, path, FrameRequest())
    assert caught.value.kind == "damaged"
    assert str(path) in caught.value.message
    assert "lenient" in str(caught.value.hint)

    got = decode_all(lenient_pool, path, FrameRequest())
    whole = decode_all(pool, source(name), FrameRequest())
    assert 0 < len(got.frames()) <= len(whole.frames())
    assert got.summary.warnings
    if name in ("fast_start.mp4", "mpeg4.avi"):
        # These containers state the number of pictures in front; AVI counts an empty one too.
        assert abs(got.summary.frames_expected - len(whole.frames())) <= (name == "mpeg4.avi")
        assert got.summary.ratio == len(got.frames()) / got.summary.frames_expected


def test_an_mp4_without_its_index_is_damaged(
    clip: Callable[[str], Path], tmp_path: Path, pool: DecodePool
) -> None:
    path = cut(clip("plain.mp4"), tmp_path / "cut.mp4", 0.5)
    with pytest.raises(MediaError, match="headers are damaged or missing") as caught:
        pool.probe(path)
    assert caught.value.kind == "damaged"


@pytest.mark.parametrize("name", ["b_frames.mp4", "ffv1.mkv"])
def test_zeros_in_the_middle_are_noticed(
    name: str,
    clip: Callable[[str], Path],
    tmp_path: Path,
    pool: DecodePool,
    lenient_pool: DecodePool,
) -> None:
    data = bytearray(clip(name).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        decode_all(pool, path, FrameRequest())
    assert caught.value.kind == "damaged"
    assert decode_all(lenient_pool, path, FrameRequest()).summary.warnings


def test_damaged_sound_is_noticed(
    clip: Callable[[str], Path], tmp_path: Path, pool: DecodePool, lenient_pool: DecodePool
) -> None:
    path = tmp_path / "a.flac"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=4", path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(MediaError, match="sound") as caught:
        decode_all(pool, path, AudioRequest())
    assert caught.value.kind == "damaged"
    got = decode_all(lenient_pool, path, AudioRequest())
    assert 30_000 < len(got.samples()) <= 64_000
    assert got.summary.warnings


def _error_of(pool: DecodePool, path: Path, requests: Sequence[MediaRequest]) -> MediaError | None:
    try:
        decode_all(pool, path, *requests)
    except MediaError as error:
        return error
    return None


@pytest.mark.parametrize(
    "name", ["plain.mp4", "b_frames.mp4", "vp8.webm", "mpeg4.avi", "ffv1.mkv", "plain.gif"]
)
def test_every_mutant_ends_as_result_or_media_error(
    name: str, clip: Callable[[str], Path], tmp_path: Path, pool: DecodePool
) -> None:
    data, path = clip(name).read_bytes(), tmp_path / name
    requests = FrameRequest(), FrameRequest(max_frames=3), AudioRequest()
    kinds = []
    for seed in range(60):
        path.write_bytes(mutate(data, seed))
        error = _error_of(pool, path, requests if seed % 2 else requests[1:2])
        if error is not None:
            assert error.kind in MEDIA_ERROR_KINDS
            assert error.kind != "crashed", error
            assert str(path) in error.message
            assert error.hint
        kinds.append("ok" if error is None else error.kind)
    assert kinds.count("damaged") >= 20
    assert len(decode_all(pool, clip(name), FrameRequest()).frames()) > 0
