"""The parent checks what a child says, and loads no decoder itself."""

import os
import subprocess
import sys
import threading
from typing import Any

import pytest

import vlpipe.extractors.media as media
from vlpipe.extractors.media import wire


def test_the_package_offers_what_it_lists() -> None:
    assert sorted(media.__all__) == media.__all__
    assert all(hasattr(media, name) for name in media.__all__)


def test_the_parent_loads_no_decoder() -> None:
    script = (
        "import sys, vlpipe.extractors.media\n"
        "found = {'av', 'decord', 'PIL', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'loaded {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def _through_pipe(data: bytes) -> tuple[dict[str, Any], int]:
    read_fd, write_fd = os.pipe()
    try:
        os.write(write_fd, data)
        os.close(write_fd)
        return wire.receive_header(read_fd, wire.Clock(5))
    finally:
        os.close(read_fd)


def test_messages_arrive_whole() -> None:
    read_fd, write_fd = os.pipe()
    payload = os.urandom(3_000_000)
    header = {"kind": "frames", "name": "\u00fc\udcff"}
    sender = threading.Thread(target=wire.send, args=(write_fd, header, [payload, b"tail"]))
    sender.start()
    clock = wire.Clock(10)
    received, count = wire.receive_header(read_fd, clock)
    body = bytearray(count)
    wire.receive_into(read_fd, memoryview(body), clock)
    sender.join()
    os.close(read_fd)
    os.close(write_fd)
    assert received == header
    assert bytes(body) == payload + b"tail"


@pytest.mark.parametrize(
    "data", [b"x" * 64, b"vlm1\xff\xff\xff\xff" + bytes(8), b"vlm1\x02\0\0\0" + bytes(8) + b"[]"]
)
def test_other_bytes_are_no_message(data: bytes) -> None:
    with pytest.raises(wire.WireDamaged):
        _through_pipe(data)


def test_a_closed_pipe_and_silence_are_told_apart() -> None:
    with pytest.raises(wire.WireClosed):
        _through_pipe(b"vlm1")
    read_fd, write_fd = os.pipe()
    with pytest.raises(wire.WireTimeout):
        wire.receive_header(read_fd, wire.Clock(0.05))
    os.close(read_fd)
    os.close(write_fd)


class _LyingChild:
    """Stands for a child that answers with the given messages."""

    def __init__(self, *messages: tuple[dict[str, Any], bytes]) -> None:
        self.from_child, self._write_fd = os.pipe()
        self.num_jobs, self.returncode, self.is_killed = 0, None, False
        for header, payload in messages:
            wire.send(self._write_fd, {"job": 7, **header}, [payload])

    def wait_ready(self) -> None: ...
    def send(self, message: dict[str, Any]) -> None: ...

    def kill(self) -> None:
        self.is_killed = True

    def close(self) -> None:
        os.close(self.from_child)
        os.close(self._write_fd)


INFO = media.MediaInfo(
    path="/a.mp4",
    container="mp4",
    duration_s=1.0,
    num_bytes=10,
    sha256="",
    video=media.VideoStream(8, 4, 0, 25.0, 25, False, "h264", "yuv420p", 0.0, 1.0),
    audio=None,
    decoder="pyav",
).to_json()
GOOD = {"kind": "frames", "request": 0, "shape": [1, 4, 8, 3], "first": 0}
LIES = {
    "job": ({**GOOD, "job": 8}, 16 + 96),
    "kind": ({**GOOD, "kind": "exec"}, 16 + 96),
    "request": ({**GOOD, "request": 5}, 16 + 96),
    "size": ({**GOOD, "shape": [1, 4000, 8, 3]}, 16 + 96),
    "count": ({**GOOD, "shape": [10**9, 4, 8, 3]}, 16 + 96),
    "negative": ({**GOOD, "shape": [-1, 4, 8, 3]}, 16 + 96),
    "channels": ({**GOOD, "shape": [1, 4, 8, 4]}, 16 + 96),
    "first": ({**GOOD, "first": 3}, 16 + 96),
    "payload": (GOOD, 5),
    "types": ({**GOOD, "shape": "large"}, 16 + 96),
    "summary": ({"kind": "done", "summary": {"frames_decoded": 1}}, 0),
    "sound": ({"kind": "audio", "request": 0, "samples": 4, "start_s": 0, "first": 0}, 16),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_child_that_lies_is_ended(lie: str) -> None:
    header, num_bytes = LIES[lie]
    child = _LyingChild(({"kind": "info", "info": INFO}, b""), (header, bytes(num_bytes)))
    given_back = []
    stream = media.DecodeStream(
        child,  # type: ignore[arg-type]
        {"op": "decode", "job": 7, "path": "/a.mp4"},
        [media.FrameRequest()],
        media.DecodeLimits(),
        10,
        given_back.append,
    )
    with pytest.raises(media.MediaError, match="not a valid answer") as caught:
        next(stream)
    assert caught.value.kind == "crashed"
    assert child.is_killed
    assert given_back == [child]
    child.close()
