"""Files that are not what they seem: refused with a clear reason, without being followed."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from decoded_media import decode_all
from made_media import make_video

from vlpipe.extractors.media import DecodeLimits, DecodePool, FrameRequest, MediaError, Resize
from vlpipe.extractors.media.open_container import open_container

PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n"
SCRIPT = "ffconcat version 1.0\nfile '{target}'\n"
DASH = '<?xml version="1.0"?>\n<MPD><BaseURL>{target}</BaseURL></MPD>\n'


def _refusal(pool: DecodePool, path: Path) -> MediaError:
    with pytest.raises(MediaError) as caught:
        pool.probe(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("text", [PLAYLIST, SCRIPT, DASH], ids=["hls", "ffconcat", "dash"])
def test_playlists_and_scripts_named_mp4_are_refused(
    text: str, clip: Callable[[str], Path], tmp_path: Path, pool: DecodePool
) -> None:
    path = tmp_path / "evil.mp4"
    path.write_text(text.format(target=clip("plain.mp4")))
    error = _refusal(pool, path)
    assert error.kind == "format_refused"
    assert "names other files" in error.message


@pytest.mark.parametrize("text", [PLAYLIST, SCRIPT], ids=["hls", "ffconcat"])
def test_the_whitelist_alone_refuses_them_too(
    text: str, clip: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "evil.mp4"
    path.write_text(text.format(target=clip("plain.mp4")))
    with (
        pytest.raises(MediaError) as caught,
        open_container(path, path.read_bytes(), DecodeLimits()),
    ):
        pass
    assert caught.value.kind in ("format_refused", "not_media")


CONTENTS = {
    "empty.mp4": (b"", "empty", "0 bytes"),
    "zeros.mp4": (bytes(10_000), "not_media", "zero bytes"),
    "text.mp4": (b"this is not a video\n" * 50, "not_media", "no known media format"),
    "page.gif": (b"\n<!DOCTYPE html><html><body>404</body></html>", "not_media", "HTML page"),
    "page2.gif": (b"<HTML><HEAD><TITLE>Gone</TITLE>", "not_media", "HTML page"),
    "image.gif": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not_media", "PNG image"),
    "noise.webm": (np.random.default_rng(3).bytes(20_000), "not_media", "no known"),
    "head.gif": (b"GIF89a", "damaged", ""),
    "byte.mp4": (b"\x00", "not_media", ""),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_other_content_is_named(name: str, tmp_path: Path, pool: DecodePool) -> None:
    content, kind, words = CONTENTS[name]
    path = tmp_path / name
    path.write_bytes(content)
    error = _refusal(pool, path)
    assert error.kind == kind, error
    assert words in error.message


def test_a_wrong_ending_does_not_matter(
    clip: Callable[[str], Path], tmp_path: Path, pool: DecodePool
) -> None:
    path = tmp_path / "video.gif"
    path.write_bytes(clip("vp8.webm").read_bytes())
    assert pool.probe(path).container == "matroska,webm"


def test_things_that_are_no_files_are_not_opened(tmp_path: Path, pool: DecodePool) -> None:
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    link = tmp_path / "link.mp4"
    link.symlink_to(pipe)
    for path, words in (
        (pipe, "a named pipe"),
        (link, "a named pipe"),
        (tmp_path, "a folder"),
        (Path("/dev/zero"), "a device"),
    ):
        error = _refusal(pool, path)
        assert error.kind == "unreadable"
        assert words in error.message


def test_missing_files_are_named(tmp_path: Path, pool: DecodePool) -> None:
    assert _refusal(pool, tmp_path / "none.mp4").kind == "missing"
    dangling = tmp_path / "dangling.mp4"
    dangling.symlink_to(tmp_path / "none.mp4")
    assert _refusal(pool, dangling).kind == "missing"


def test_a_file_without_permission_is_unreadable(
    clip: Callable[[str], Path], pool: DecodePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    error = _refusal(pool, clip("plain.mp4"))
    assert error.kind == "unreadable"
    assert "Permission denied" in error.message


NAMES = [
    "-i.mp4",
    "a:b.mp4",
    "http:x.mp4",
    "x%03d.mp4",
    "sp ace.mp4",
    "\u00fcn\u00efcode.mp4",
    "a\nb.mp4",
]


@pytest.mark.parametrize("name", [*NAMES, "raw\udcff.mp4", "[a]'\"$(b);.mp4"])
def test_names_are_only_names(
    name: str, clip: Callable[[str], Path], tmp_path: Path, pool: DecodePool
) -> None:
    path = tmp_path / name
    path.write_bytes(clip("plain.mp4").read_bytes())
    got = decode_all(pool, path, FrameRequest(), FrameRequest(max_frames=1))
    assert len(got.frames()) == 25
    assert got.info.path == str(path)
    assert len(decode_all(pool, path, FrameRequest(max_frames=1)).frames()) == 1


def test_relative_paths_belong_to_the_caller(
    clip: Callable[[str], Path], pool: DecodePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip("plain.mp4")
    monkeypatch.chdir(path.parent)
    assert pool.probe(path.name).path == str(path)


def test_titles_in_other_encodings_do_no_harm(tmp_path: Path, pool: DecodePool) -> None:
    path = make_video(tmp_path / "a.avi", codec="mpeg4", options=["-metadata", "title=XXXX"])
    path.write_bytes(path.read_bytes().replace(b"XXXX", b"\xe9\xff\xfe\xa4"))
    assert pool.probe(path).video is not None


def test_the_number_of_frames_asked_for_is_limited(
    clip: Callable[[str], Path],
) -> None:
    with DecodePool(limits=DecodeLimits(max_frames=100)) as pool:
        assert len(decode_all(pool, clip("plain.mp4"), FrameRequest(fps=100)).frames()) == 100
        for request in (FrameRequest(fps=101), FrameRequest(fps=1000)):
            with pytest.raises(MediaError, match="more than 100 frames") as caught:
                decode_all(pool, clip("plain.mp4"), request)
            assert caught.value.kind == "too_large"
        with pytest.raises(MediaError, match="more than 100 frames"):
            pool.probe(clip("long.mp4"))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_frame_pixels": 64 * 47}, "frames of 64 x 48 pixels"),
        ({"max_total_pixels": 64 * 48 * 20}, "25 frames of 3,072 pixels"),
        ({"max_duration_s": 0.5}, "1 s long"),
    ],
)
def test_headers_are_held_to_the_limits(
    limits: dict[str, float], words: str, clip: Callable[[str], Path]
) -> None:
    with DecodePool(limits=DecodeLimits(**limits)) as pool:
        error = _refusal(pool, clip("plain.mp4"))
    assert error.kind == "too_large"
    assert words in error.message
    assert next(iter(limits)) in str(error.hint)


def test_a_bomb_is_refused_by_its_headers(tmp_path: Path, pool: DecodePool) -> None:
    options = ["-vf", "scale=8192:8192", "-x264-params", "ref=1:rc-lookahead=0"]
    path = make_video(tmp_path / "bomb.mp4", seconds=0.1, options=options)
    assert _refusal(pool, path).kind == "too_large"


def test_small_frames_cannot_be_blown_up(tmp_path: Path, pool: DecodePool) -> None:
    strip = make_video(tmp_path / "strip.mkv", size=(4000, 2), codec="ffv1", seconds=0.1)
    with pytest.raises(MediaError, match="after resize") as caught:
        decode_all(pool, strip, FrameRequest(resize=Resize(256)))
    assert caught.value.kind == "too_large"


def test_memory_is_limited(clip: Callable[[str], Path], tmp_path: Path) -> None:
    options = ["-vf", "scale=4096:4096", "-x264-params", "ref=1:rc-lookahead=0"]
    path = make_video(tmp_path / "large.mp4", seconds=0.3, options=options)
    with DecodePool(limits=DecodeLimits(memory_bytes=420 << 20), decoder="pyav") as pool:
        with pytest.raises(MediaError) as caught:
            decode_all(pool, path, FrameRequest())
        assert caught.value.kind == "too_large"
        assert "memory_bytes" in str(caught.value)
        # The libraries alone fit.
        assert len(decode_all(pool, clip("plain.gif"), FrameRequest()).frames()) == 20
