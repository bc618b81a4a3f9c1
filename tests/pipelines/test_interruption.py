"""Killed and interrupted commands: the same command again ends in the store of a quiet run."""

import os
import random
import signal
import subprocess
import sys
import time

import made_media
import pytest

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
    process = start(folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def contents(folder):
    with FeatureStore.open(folder / "store") as store:
        report = store.verify()
        assert report.is_sound, report.problems
        return {name: (len(store[name]), store.digest(name)) for name in store.features}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A folder with clips, the store of an undisturbed run, and how long that run took."""
    folder = tmp_path_factory.mktemp("quiet")
    (folder / "clips").mkdir()
    for n in range(12):
        made_media.make_gif(folder / "clips" / f"gif{n}.gif", [100] * (20 + n), seed=n)
    made_media.make_video(folder / "clips" / "sound.mp4", seconds=3, audio="aac")
    started = time.monotonic()
    finish(folder)
    return folder, contents(folder), time.monotonic() - started


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills_at_random_moments_lose_nothing(quiet, tmp_path):
    folder, wanted, seconds = quiet
    (tmp_path / "clips").symlink_to(folder / "clips")
    moments = random.Random(1)
    killed = 0
    for _ in range(10):
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stores_what_is_in_flight_and_says_how_to_go_on(quiet, tmp_path, number):
    folder, wanted, _ = quiet
    (tmp_path / "clips").symlink_to(folder / "clips")
    process = start(tmp_path, "--decode-workers", "1")
    line = process.stderr.readline()
    assert "13 of 13 videos to do" in line
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 130), err
    if process.returncode == 130:
        assert "the same command carries on" in err
    with FeatureStore.open(tmp_path / "store") as store:
        assert store.verify().is_sound
    finish(tmp_path)
    assert contents(tmp_path) == wanted


def test_a_second_ctrl_c_stops_at_once(quiet, tmp_path):
    folder, wanted, _ = quiet
    (tmp_path / "clips").symlink_to(folder / "clips")
    process = start(tmp_path)
    process.stderr.readline()
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, err = process.communicate(timeout=30)
    # The second one may come when the interpreter is ending and no longer calls Python.
    assert process.returncode in (0, 130, -signal.SIGINT), err
    assert "Traceback" not in err
    finish(tmp_path)
    assert contents(tmp_path) == wanted
