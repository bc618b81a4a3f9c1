"""GIFs: delays, transparency, one picture, and files that are cut off."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from decoded_media import decode_all
from made_media import cut, make_gif
from PIL import Image

from vlpipe.extractors.media import DecodePool, FrameRequest, MediaError
from vlpipe.extractors.media.gif_structure import read_gif_structure


def test_delays_of_each_picture_become_spans(tmp_path: Path, pool: DecodePool) -> None:
    delays = [40, 120, 300, 60, 500]
    got = decode_all(pool, make_gif(tmp_path / "a.gif", delays), FrameRequest())
    edges = np.concatenate(([0], np.cumsum(delays))) / 1000
    np.testing.assert_allclose(got.spans(), np.stack([edges[:-1], edges[1:]], 1), atol=1e-9)
    assert got.info.duration_s == pytest.approx(1.02)
    assert got.info.video is not None
    assert got.info.video.is_variable_rate


@pytest.mark.parametrize("delay", [0, 10])
def test_delays_below_20_ms_become_100_ms(delay: int, tmp_path: Path, pool: DecodePool) -> None:
    path = make_gif(tmp_path / "a.gif", [delay, 50, delay, 20, delay])
    got = decode_all(pool, path, FrameRequest(), FrameRequest(fps=50))
    edges = np.array([0.0, 0.1, 0.15, 0.25, 0.27, 0.37])
    np.testing.assert_allclose(got.spans()[:, 0], edges[:-1], atol=1e-9)
    np.testing.assert_allclose(got.spans()[:, 1], edges[1:], atol=1e-9)
    assert got.info.duration_s == pytest.approx(0.37)
    assert len(got.frames(1)) == 19


def test_a_gif_of_one_picture_has_one_frame(tmp_path: Path, pool: DecodePool) -> None:
    path = make_gif(tmp_path / "a.gif", [0])
    got = decode_all(pool, path, FrameRequest(), FrameRequest(fps=25))
    assert got.spans(0).tolist() == [[0.0, 0.1]]
    assert len(got.frames(1)) == 3


def test_pictures_equal_pillows_composition(tmp_path: Path, pool: DecodePool) -> None:
    path = make_gif(tmp_path / "a.gif", [40] * 6)
    got = decode_all(pool, path, FrameRequest()).frames()
    with Image.open(path) as image:
        for index, frame in enumerate(got):
            image.seek(index)
            assert np.array_equal(frame, np.asarray(image.convert("RGB")))


def test_transparent_pixels_are_white(tmp_path: Path, pool: DecodePool) -> None:
    path = tmp_path / "a.gif"
    picture = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 10, 10))
    picture.save(path)
    frame = decode_all(pool, path, FrameRequest()).frames()[0]
    assert frame[:, :10].reshape(-1, 3).tolist() == [[255, 0, 0]] * 100
    assert frame[:, 10:].reshape(-1, 3).tolist() == [[255, 255, 255]] * 100


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
def test_a_cut_gif_is_damaged(
    share: float, clip: Callable[[str], Path], tmp_path: Path, pool: DecodePool
) -> None:
    path = cut(clip("plain.gif"), tmp_path / "cut.gif", share)
    with pytest.raises(MediaError, match=r"cut off after \d+ whole pictures") as caught:
        decode_all(pool, path, FrameRequest())
    assert caught.value.kind == "damaged"


def test_a_missing_end_mark_is_no_damage(
    clip: Callable[[str], Path], tmp_path: Path, pool: DecodePool
) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(clip("plain.gif").read_bytes()[:-1])
    assert read_gif_structure(path).num_images == 20
    assert not read_gif_structure(path).has_trailer
    assert len(decode_all(pool, path, FrameRequest()).frames()) == 20
