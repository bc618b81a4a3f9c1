"""Every container and codec gives the pictures of the ffmpeg program, without complaint."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from decoded_media import decode_all
from made_media import ffmpeg, make_video, reference_frames

from vlpipe.extractors.media import AudioRequest, DecodePool, FrameRequest

B_FRAMES = ["-preset", "medium", "-bf", "3", "-g", "12"]
CASES = {
    "plain.mp4": {"audio": "aac"},
    "b_frames.mp4": {"options": B_FRAMES, "seconds": 2},
    "open_gop.mp4": {"options": [*B_FRAMES, "-x264-params", "open-gop=1"], "seconds": 2},
    "no_edit_list.mp4": {"options": [*B_FRAMES, "-use_editlist", "0"]},
    "fragments.mp4": {"options": ["-movflags", "frag_keyframe+empty_moov"], "audio": "aac"},
    "hevc.mp4": {"codec": "libx265", "options": ["-x265-params", "log-level=none"]},
    "av1.mp4": {"codec": "libsvtav1"},
    "odd_444.mp4": {"size": (63, 47), "pixel_format": "yuv444p"},
    "ten_bits.mp4": {"pixel_format": "yuv420p10le"},
    "full_range.mp4": {"pixel_format": "yuvj420p"},
    "interlaced.mp4": {"options": ["-flags", "+ildct+ilme", "-x264opts", "tff=1"]},
    "ntsc.mp4": {"fps": "30000/1001"},
    "bt709.mp4": {"options": ["-vf", "setparams=colorspace=bt709:color_primaries=bt709"]},
    "one_frame.mp4": {"seconds": 0.04},
    "mpeg4.avi": {"codec": "mpeg4", "audio": "libmp3lame"},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": ["-bf", "2"]},
    "xvid_packed.avi": {"codec": "libxvid", "options": ["-bf", "2"]},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "odd.mkv": {"codec": "ffv1", "size": (63, 47), "audio": "flac"},
    "h264.mkv": {"options": B_FRAMES, "audio": "libmp3lame"},
    "vp8.webm": {"codec": "libvpx", "audio": "libvorbis"},
    "vp9_alt_ref.webm": {
        "codec": "libvpx-vp9",
        "options": ["-auto-alt-ref", "1", "-lag-in-frames", "12", "-cpu-used", "8"],
        "audio": "libopus",
    },
    "mpeg2.mpg": {"codec": "mpeg2video", "audio": "mp2", "options": ["-bf", "2"]},
    "h264.ts": {"audio": "aac", "options": B_FRAMES},
    "wmv.wmv": {"codec": "wmv2", "audio": "wmav2"},
    "flv.flv": {"codec": "flv", "audio": "libmp3lame"},
}


@pytest.mark.parametrize("name", CASES)
def test_pictures_equal_those_of_ffmpeg(name: str, tmp_path: Path, pool: DecodePool) -> None:
    path = make_video(tmp_path / name, **CASES[name])
    got = decode_all(pool, path, FrameRequest(), AudioRequest())
    expected = reference_frames(path)
    assert np.array_equal(got.frames(), expected)
    assert got.info.video is not None
    assert got.info.video.num_frames == got.summary.frames_decoded == len(expected)
    assert (got.info.video.height, got.info.video.width) == expected.shape[1:3]
    assert got.summary.warnings == ()
    assert got.summary.ratio == 1.0
    assert (len(got.samples(1)) > 0) == ("audio" in CASES[name]) == (got.info.audio is not None)


def test_hidden_alternate_reference_frames_of_vp8_are_not_expected(
    tmp_path: Path, pool: DecodePool
) -> None:
    path, log = tmp_path / "two_pass.webm", str(tmp_path / "log")
    options = ["-auto-alt-ref", "1", "-lag-in-frames", "16", "-passlogfile", log]
    for number in ("1", "2"):
        make_video(path, seconds=2, codec="libvpx", options=[*options, "-pass", number])
    got = decode_all(pool, path, FrameRequest())
    assert got.summary.frames_decoded == got.summary.frames_expected == 50


@pytest.mark.parametrize("copy", ["-c", "-c:v"])
def test_a_clip_cut_without_encoding_is_not_damaged(
    copy: str, clip: Callable[[str], Path], tmp_path: Path, pool: DecodePool
) -> None:
    path = tmp_path / "cut.mp4"
    ffmpeg("-ss", "0.7", "-i", clip("open_gop.mp4"), copy, "copy", path)
    got = decode_all(pool, path, FrameRequest())
    assert np.array_equal(got.frames(), reference_frames(path))
    assert got.info.decoder == "pyav"


def test_info_tells_what_a_file_holds(clip: Callable[[str], Path], pool: DecodePool) -> None:
    info = pool.probe(clip("plain.mp4"))
    video, audio = info.video, info.audio
    assert video is not None
    assert audio is not None
    assert (video.width, video.height, video.rotation, video.codec) == (64, 48, 0, "h264")
    assert (video.average_fps, video.num_frames, video.is_variable_rate) == (25.0, 25, False)
    assert (audio.sample_rate, audio.channels, audio.codec) == (44100, 1, "aac")
    assert info.duration_s == pytest.approx(1.0, abs=0.03)
    assert info.num_bytes == clip("plain.mp4").stat().st_size
    assert type(info).from_json(info.to_json()) == info


def test_sha256_is_that_of_the_file(clip: Callable[[str], Path], pool: DecodePool) -> None:
    import hashlib

    path = clip("plain.gif")
    assert pool.probe(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_cover_image_is_not_a_video(tmp_path: Path, pool: DecodePool) -> None:
    from vlpipe.extractors.media import MediaError

    path = tmp_path / "song.mp3"
    cover = ["-f", "lavfi", "-i", "color=red:size=32x32:duration=0.04", "-map", "0", "-map", "1"]
    ffmpeg(
        *("-f", "lavfi", "-i", "sine=duration=1", *cover, "-c:v", "png"),
        *("-disposition:v", "attached_pic", path),
    )
    assert pool.probe(path).video is None
    assert len(decode_all(pool, path, AudioRequest()).samples()) > 15_000
    with pytest.raises(MediaError, match="no pictures") as caught:
        decode_all(pool, path, FrameRequest())
    assert caught.value.kind == "no_video"


def test_pictures_of_another_size_in_mid_stream_are_scaled_to_the_first(
    tmp_path: Path, pool: DecodePool
) -> None:
    small = make_video(tmp_path / "a.ts", size=(64, 48))
    large = make_video(tmp_path / "b.ts", size=(128, 96))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    got = decode_all(pool, joined, FrameRequest())
    assert got.frames().shape == (50, 48, 64, 3)
