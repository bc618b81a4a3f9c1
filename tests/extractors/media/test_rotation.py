"""Rotated and mirrored videos come upright, as from the ffmpeg program."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from decoded_media import decode_all
from made_media import ffmpeg, reference_frames

from vlpipe.extractors.media import DecodePool, FrameRequest, Resize
from vlpipe.extractors.media.rotation import Orientation, orientation_of_matrix


@pytest.mark.parametrize("flip", [(), ("-display_hflip",), ("-display_vflip",)])
@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_pictures_equal_those_of_ffmpeg(
    angle: int, flip: tuple[str, ...], clip: Callable[[str], Path], tmp_path: Path, pool: DecodePool
) -> None:
    path = tmp_path / "turned.mp4"
    turn = ("-display_rotation", str(angle), *flip)
    ffmpeg(*turn, "-i", clip("plain.mp4"), "-c", "copy", path)
    got = decode_all(pool, path, FrameRequest(), FrameRequest(resize=Resize(32)))
    expected = reference_frames(path)
    assert np.array_equal(got.frames(0), expected)
    video = got.info.video
    assert video is not None
    assert (video.height, video.width) == expected.shape[1:3]
    # The smaller edge is that of the upright picture.
    assert min(got.frames(1).shape[1:3]) == 32
    assert (got.info.decoder == "decord") == (angle == 0 and not flip)


def test_a_phone_video_is_turned_clockwise(
    clip: Callable[[str], Path], tmp_path: Path, pool: DecodePool
) -> None:
    path = tmp_path / "phone.mp4"
    ffmpeg("-display_rotation", "-90", "-i", clip("plain.mp4"), "-c", "copy", path)
    turned, flat = (decode_all(pool, p, FrameRequest()) for p in (path, clip("plain.mp4")))
    assert turned.info.video is not None
    assert turned.info.video.rotation == 90
    assert np.array_equal(turned.frames(), np.rot90(flat.frames(), k=-1, axes=(1, 2)))


def test_a_matrix_without_meaning_turns_nothing() -> None:
    assert orientation_of_matrix(struct.pack("=9i", *[0] * 9)) == Orientation()
