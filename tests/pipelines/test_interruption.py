"""Killed and interrupted commands: the same command again ends in the store of a quiet run."""

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import time

import made_media
import psutil
import pytest

from vlpipe.pipelines.cli import run
from vlpipe.stores import FeatureStore

COMMAND = (
    *("extract", "clips", "--store", "store", "--features", "resnet18,vggish"),
    *("--weights", "untrained", "--set", "resnet18.resize=40", "--set", "resnet18.crop=32"),
)


def start(folder, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "vlpipe", *COMMAND, *more],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(folder):
    """What the command prints when nothing disturbs it. It runs in this process, which has loaded
    the libraries that take a new one most of its time."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run(list(COMMAND))
    assert code == 0, err.getvalue()
    return out.getvalue()


def contents(folder):
    with FeatureStore.open(folder / "store") as store:
        report = store.verify()
        assert report.is_sound, report.problems
        return {name: (len(store[name]), store.digest(name)) for name in store.features}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A folder with clips, the store of an undisturbed run, and how long a process takes for it."""
    folder = tmp_path_factory.mktemp("quiet")
    (folder / "clips").mkdir()
    for n in range(12):
        made_media.make_gif(folder / "clips" / f"gif{n}.gif", [100] * (20 + n), seed=n)
    made_media.make_video(folder / "clips" / "sound.mp4", seconds=3, audio="aac")
    started = time.monotonic()
    process = start(folder)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return folder, contents(folder), time.monotonic() - started


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_at_random_moments_lose_nothing(quiet, tmp_path):
    """VLPIPE_KILLED_COMMANDS chooses how many are killed."""
    folder, wanted, seconds = quiet
    (tmp_path / "clips").symlink_to(folder / "clips")
    moments = random.Random(1)
    killed = 0
    for _ in range(int(os.environ.get("VLPIPE_KILLED_COMMANDS", "2"))):
        process = start(tmp_path)
        try:
            process.communicate(timeout=moments.uniform(0.3, 1.1) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
            process.communicate()
    assert killed
    finish(tmp_path)
    assert contents(tmp_path) == wanted
    assert "nothing to do" in finish(tmp_path)


def decoding_children(process):
    found = psutil.Process(process.pid).children(recursive=True)
    return [child for child in found if "extractors.media" in " ".join(child.cmdline())]


def wait_for_child(process):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if children := decoding_children(process):
            return children
        time.sleep(0.01)
    raise AssertionError("no decoding process was seen")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stores_what_is_in_flight_and_says_how_to_go_on(quiet, tmp_path, number):
    folder, wanted, _ = quiet
    (tmp_path / "clips").symlink_to(folder / "clips")
    process = start(tmp_path, "--decode-workers", "1")
    assert "13 of 13 videos to do" in process.stderr.readline()
    wait_for_child(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command carries on" in err
    assert "not reached" in out
    with FeatureStore.open(tmp_path / "store") as store:
        assert store.verify().is_sound
    finish(tmp_path)
    assert contents(tmp_path) == wanted


def test_a_second_ctrl_c_stops_at_once_even_beside_a_stuck_decoder(quiet, tmp_path):
    folder, wanted, _ = quiet
    (tmp_path / "clips").symlink_to(folder / "clips")
    process = start(tmp_path, "--decode-workers", "1")
    process.stderr.readline()
    (child,) = wait_for_child(process)
    child.suspend()
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not child.is_running()
    finish(tmp_path)
    assert contents(tmp_path) == wanted
