"""Sound comes as mono float32, averaged before it is resampled by swr."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from decoded_media import decode_all
from made_media import ffmpeg, make_audio, reference_samples

from vlpipe.extractors.media import AudioBlock, AudioRequest, DecodePool, FrameRequest

FORMATS = ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.m4a", "a.aac"]


@pytest.mark.parametrize("name", FORMATS)
def test_samples_equal_those_of_ffmpeg(name: str, tmp_path: Path, pool: DecodePool) -> None:
    path = make_audio(tmp_path / name, seconds=1.3)
    got, expected = decode_all(pool, path, AudioRequest()).samples(), reference_samples(path)
    assert got.dtype == np.float32
    # Releases of ffmpeg differ in whether they cut the padding behind the last AAC packet.
    assert abs(len(got) - len(expected)) <= (1024 if name == "a.m4a" else 1)
    count = min(len(got), len(expected)) - (0 if len(got) == len(expected) else 50)
    np.testing.assert_allclose(got[:count], expected[:count], atol=2e-4)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"])
def test_sample_formats_share_one_scale(codec: str, tmp_path: Path, pool: DecodePool) -> None:
    path = make_audio(tmp_path / "a.wav", options=["-c:a", codec, "-ar", "16000"])
    got = decode_all(pool, path, AudioRequest()).samples()
    exact = make_audio(tmp_path / "f.wav", options=["-c:a", "pcm_f32le", "-ar", "16000"])
    expected = decode_all(pool, exact, AudioRequest()).samples()
    assert len(got) == len(expected) == 16_000
    np.testing.assert_allclose(got, expected, atol=0.011 if codec == "pcm_u8" else 1e-4)


def test_channels_are_averaged(tmp_path: Path, pool: DecodePool) -> None:
    def samples(name: str, pan: str) -> np.ndarray:
        path = make_audio(tmp_path / name, filters=f"pan={pan}", options=["-c:a", "pcm_s16le"])
        return decode_all(pool, path, AudioRequest()).samples()

    mono = samples("mono.wav", "mono|c0=c0")
    np.testing.assert_allclose(samples("half.wav", "stereo|c0=c0|c1=0*c0"), mono / 2, atol=1e-4)
    assert np.abs(samples("opposite.wav", "stereo|c0=c0|c1=-1*c0")).max() < 1e-4
    surround = "5.1|c0=c0|c1=c0|c2=c0|c3=0*c0|c4=0*c0|c5=0*c0"
    np.testing.assert_allclose(samples("surround.wav", surround), mono / 2, atol=1e-4)


def test_loud_sound_stays_within_bounds(tmp_path: Path, pool: DecodePool) -> None:
    path = make_audio(tmp_path / "a.wav", filters="volume=40dB", options=["-c:a", "pcm_f32le"])
    samples = decode_all(pool, path, AudioRequest()).samples()
    assert samples.min() == -1.0
    assert 0.99 < samples.max() < 1.0


def test_the_tail_of_the_resampler_is_there(tmp_path: Path, pool: DecodePool) -> None:
    path = make_audio(tmp_path / "a.wav", seconds=2.5)
    assert len(decode_all(pool, path, AudioRequest()).samples()) == 40_000
    assert len(decode_all(pool, path, AudioRequest(8000)).samples()) == 20_000


def test_a_file_without_sound_gives_no_block(clip: Callable[[str], Path], pool: DecodePool) -> None:
    got = decode_all(pool, clip("plain.gif"), AudioRequest(), FrameRequest())
    assert got.info.audio is None
    assert not [block for block in got.blocks if isinstance(block, AudioBlock)]


def test_sound_in_part_keeps_its_offset(
    clip: Callable[[str], Path], tmp_path: Path, pool: DecodePool
) -> None:
    path = tmp_path / "part.mkv"
    late = ["-itsoffset", "0.4", "-f", "lavfi", "-i", "sine=duration=0.3"]
    ffmpeg("-i", clip("ffv1.mkv"), *late, "-map", "0:v", "-map", "1:a", "-c:a", "flac", path)
    got = decode_all(pool, path, AudioRequest(), FrameRequest())
    block = got.blocks[[b.request for b in got.blocks].index(0)]
    assert block.start_s == pytest.approx(0.4, abs=2e-3)
    assert got.info.audio is not None
    assert got.info.audio.start_s == pytest.approx(0.4, abs=2e-3)
    assert len(got.samples(0)) == pytest.approx(4800, abs=2)
    assert got.info.duration_s == pytest.approx(1.0, abs=0.01)


def test_padding_of_the_aac_encoder_is_left_out(
    clip: Callable[[str], Path], pool: DecodePool
) -> None:
    got = decode_all(pool, clip("plain.mp4"), AudioRequest(44_100))
    expected = np.sin(2 * np.pi * 440 * np.arange(20_000) / 44_100) / 8
    aligned = np.corrcoef(got.samples()[4000:20_000], expected[4000:])[0, 1]
    assert aligned > 0.99


def test_blocks_carry_their_place(
    clip: Callable[[str], Path], small_block_pool: DecodePool
) -> None:
    got = decode_all(small_block_pool, clip("long.mp4"), AudioRequest())
    assert len(got.blocks) > 2
    count = 0
    for block in got.blocks:
        assert block.first_sample == count
        assert block.start_s == pytest.approx(count / 16_000)
        count += len(block.samples)
