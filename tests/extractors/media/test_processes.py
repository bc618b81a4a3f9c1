"""Children: limits, crashes, hangs, orphans, early ends, and the same bits from any pool."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from decoded_media import decode_all
from made_media import make_gif, make_video

from vlpipe.extractors.media import (
    AudioRequest,
    DecodeLimits,
    DecodePool,
    DecodeStream,
    FrameRequest,
    MediaError,
    Resize,
    decode,
)


def _children() -> set[int]:
    return {
        child.pid
        for child in psutil.Process().children()
        if any("media.worker" in word for word in child.cmdline())
    }


@pytest.fixture
def child_of() -> Callable[[DecodePool, Path], int]:
    def start(pool: DecodePool, path: Path) -> int:
        """The id of the only child of a fresh pool."""
        before = _children()
        pool.probe(path)
        (pid,) = _children() - before
        return pid

    return start


def _first_block_then(stream: DecodeStream, act: Callable[[], None]) -> None:
    next(stream)
    act()
    for _ in stream:
        pass


@pytest.fixture(scope="module")
def large_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More pictures than fit into the pipe, so that the child is busy while we look."""
    return make_video(tmp_path_factory.mktemp("large") / "a.mp4", seconds=8, size=(320, 240))


def test_a_child_that_dies_is_reported_and_replaced(
    large_clip: Path, child_of: Callable[[DecodePool, Path], int]
) -> None:
    with DecodePool(limits=DecodeLimits(block_bytes=300_000)) as pool:
        pid = child_of(pool, large_clip)
        stream = pool.open(large_clip, [FrameRequest()])
        with pytest.raises(MediaError, match="was ended by SIGKILL") as caught:
            _first_block_then(stream, lambda: os.kill(pid, signal.SIGKILL))
        assert caught.value.kind == "crashed"
        assert str(large_clip) in caught.value.message
        assert list(stream) == []
        assert len(decode_all(pool, large_clip, FrameRequest(fps=1)).frames()) == 8
        assert not psutil.pid_exists(pid)


def test_a_child_that_dies_while_idle_is_replaced(
    clip: Callable[[str], Path], child_of: Callable[[DecodePool, Path], int]
) -> None:
    with DecodePool() as pool:
        pid = child_of(pool, clip("plain.gif"))
        os.kill(pid, signal.SIGKILL)
        assert len(decode_all(pool, clip("plain.gif"), FrameRequest()).frames()) == 20


def test_a_child_that_hangs_costs_its_time_and_nothing_else(
    large_clip: Path, child_of: Callable[[DecodePool, Path], int]
) -> None:
    limits = DecodeLimits(block_bytes=300_000, min_wall_s=1.0, wall_per_media_s=0.1)
    with DecodePool(limits=limits) as pool:
        pid = child_of(pool, large_clip)
        stream = pool.open(large_clip, [FrameRequest()])
        started = time.monotonic()
        with pytest.raises(MediaError, match=r"more than 1\.\d s") as caught:
            _first_block_then(stream, lambda: os.kill(pid, signal.SIGSTOP))
        assert caught.value.kind == "timeout"
        assert time.monotonic() - started < 3.0
        assert not psutil.pid_exists(pid)
        assert len(decode_all(pool, large_clip, FrameRequest(fps=1)).frames()) == 8


def test_a_slow_consumer_spends_none_of_the_childs_time(large_clip: Path) -> None:
    limits = DecodeLimits(block_bytes=300_000, min_wall_s=2.0, wall_per_media_s=0.1)
    with DecodePool(limits=limits) as pool, pool.open(large_clip, [FrameRequest()]) as stream:
        next(stream)
        time.sleep(3)
        assert sum(len(block.frames) for block in stream) > 190


def test_a_stream_can_be_left_early(
    large_clip: Path, child_of: Callable[[DecodePool, Path], int]
) -> None:
    with DecodePool(limits=DecodeLimits(block_bytes=300_000)) as pool:
        pid = child_of(pool, large_clip)
        for _ in range(3):
            with pool.open(large_clip, [FrameRequest(), AudioRequest()]) as stream:
                next(stream)
            with pytest.raises(RuntimeError, match="after the last block"):
                _ = stream.summary
        assert len(decode_all(pool, large_clip, FrameRequest(fps=1)).frames()) == 8
        # The child listened each time; it was not replaced.
        assert psutil.pid_exists(pid)


def test_children_end_with_the_pool_and_hold_no_files(
    clip: Callable[[str], Path], child_of: Callable[[DecodePool, Path], int], tmp_path: Path
) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        with DecodePool() as pool:
            pid = child_of(pool, clip("plain.gif"))
            child = psutil.Process(pid)
            assert str(secret.name) not in {file.path for file in child.open_files()}
            assert os.getsid(pid) == os.getpgid(pid) == pid
            assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
            assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
            assert child.rlimit(psutil.RLIMIT_AS)[0] == DecodeLimits().memory_bytes
            assert child.rlimit(psutil.RLIMIT_CPU)[0] < 3600
    assert not psutil.pid_exists(pid)


def test_secrets_of_the_environment_stay_with_the_parent(
    clip: Callable[[str], Path],
    child_of: Callable[[DecodePool, Path], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with DecodePool() as pool:
        pid = child_of(pool, clip("plain.gif"))
        assert "AWS_SECRET_ACCESS_KEY" not in psutil.Process(pid).environ()


def test_no_orphan_outlives_a_killed_parent(large_clip: Path) -> None:
    script = f"""
import sys, time
from vlpipe.extractors.media import DecodeLimits, DecodePool, FrameRequest
pool = DecodePool(workers=2, limits=DecodeLimits(block_bytes=300_000))
streams = [pool.open({str(large_clip)!r}, [FrameRequest()]) for _ in range(2)]
print("open", flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "open\n"
        children = psutil.Process(parent.pid).children()
        assert len(children) == 2
        parent.kill()
    # In a container nobody may collect the dead: a zombie is gone as well.
    deadline = time.monotonic() + 5
    while any(_is_running(child) for child in children):
        assert time.monotonic() < deadline, "orphans"
        time.sleep(0.05)


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_pool_serves_threads_and_gives_the_same_bits_at_any_size(
    tmp_path: Path, clip: Callable[[str], Path]
) -> None:
    paths = [make_gif(tmp_path / f"{k}.gif", [40] * 5, seed=k) for k in range(10)]
    paths += [clip("plain.mp4"), clip("vp8.webm")]
    request = FrameRequest(fps=10, resize=Resize(24))

    def read(pool: DecodePool, path: Path) -> np.ndarray:
        return decode_all(pool, path, request).frames()

    with DecodePool(1) as one, DecodePool(3) as three, ThreadPoolExecutor(6) as threads:
        expected = [read(one, path) for path in paths]
        for _ in range(2):
            got = list(threads.map(lambda path: read(three, path), paths))
            assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_open_waits_for_a_free_child(clip: Callable[[str], Path]) -> None:
    with DecodePool(1) as pool:
        stream = pool.open(clip("plain.mp4"), [FrameRequest()])
        done = threading.Event()
        waiting = threading.Thread(target=lambda: (pool.probe(clip("plain.gif")), done.set()))
        waiting.start()
        assert not done.wait(0.3)
        stream.close()
        assert done.wait(10)
        waiting.join()


def test_errors_free_the_child(tmp_path: Path, clip: Callable[[str], Path]) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing" * 100)
    with DecodePool(1) as pool:
        for _ in range(3):
            with pytest.raises(MediaError):
                pool.open(bad, [FrameRequest()])
        assert len(decode_all(pool, clip("plain.gif"), FrameRequest()).frames()) == 20


def test_a_closed_pool_refuses_work(clip: Callable[[str], Path]) -> None:
    pool = DecodePool()
    pool.close()
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.probe(clip("plain.gif"))


def test_decode_reads_one_file(clip: Callable[[str], Path]) -> None:
    with decode(clip("plain.gif"), [FrameRequest()]) as stream:
        assert stream.info.container == "gif"
        assert sum(len(block.frames) for block in stream) == 20
        assert stream.summary.frames_decoded == 20


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    peaks = []
    for seconds in (20, 400):
        path = make_video(tmp_path / f"{seconds}.mp4", seconds=seconds, audio="aac")
        requests = FrameRequest(), FrameRequest(fps=10, resize=Resize(96)), AudioRequest()
        with (
            DecodePool(limits=DecodeLimits(block_bytes=1 << 20)) as pool,
            pool.open(path, requests) as stream,
        ):
            for block in stream:
                if block.request < 2:
                    assert block.frames.nbytes <= 1 << 20
            peaks.append(stream.summary.peak_memory_bytes)
            assert stream.summary.frames_decoded == seconds * 25
    assert 0 < peaks[0] <= 200 << 20
    assert peaks[1] - peaks[0] < 12 << 20
