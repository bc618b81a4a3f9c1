"""Pools and small files that the tests of this folder share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_media import make_gif, make_video

from vlpipe.extractors.media import DecodeLimits, DecodePool

MAKERS: dict[str, Callable[[Path], Path]] = {
    "plain.mp4": lambda p: make_video(p, audio="aac"),
    "long.mp4": lambda p: make_video(p, seconds=8, size=(160, 120), audio="aac"),
    "b_frames.mp4": lambda p: make_video(
        p, seconds=3, options=["-preset", "medium", "-bf", "3", "-g", "12"]
    ),
    "open_gop.mp4": lambda p: make_video(
        p, seconds=3, options=["-preset", "medium", "-g", "12", "-x264-params", "open-gop=1"]
    ),
    "plain.gif": lambda p: make_gif(p, [40] * 20),
    "vp8.webm": lambda p: make_video(p, seconds=4, codec="libvpx", audio="libvorbis"),
    "mpeg4.avi": lambda p: make_video(p, codec="mpeg4", audio="libmp3lame"),
    "ffv1.mkv": lambda p: make_video(p, codec="ffv1", audio="flac"),
}


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The named file of MAKERS, made when first asked for. Tests do not change it."""
    folder = tmp_path_factory.mktemp("clips")

    def get(name: str) -> Path:
        path = folder / name
        return path if path.exists() else MAKERS[name](path)

    return get


# Of the package, that is of this folder: their children would stay beside all later tests.
@pytest.fixture(scope="package")
def pool() -> Iterator[DecodePool]:
    with DecodePool() as pool:
        yield pool


@pytest.fixture(scope="package")
def lenient_pool() -> Iterator[DecodePool]:
    with DecodePool(tolerance="lenient") as pool:
        yield pool


@pytest.fixture(scope="package")
def pyav_pool() -> Iterator[DecodePool]:
    with DecodePool(decoder="pyav") as pool:
        yield pool


@pytest.fixture(scope="package")
def small_block_pool() -> Iterator[DecodePool]:
    """Blocks of a few frames each, so that streams have many of them."""
    with DecodePool(limits=DecodeLimits(block_bytes=200_000)) as pool:
        yield pool
