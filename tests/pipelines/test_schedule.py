"""A real Prefect server and worker: a schedule fires, and the run stores what it should, and no
process of all of them asks for anything outside this machine.

The pins in pyproject.toml are there for this: with newer SQLAlchemy or fastapi the server starts
or seems to, and no schedule ever creates a run.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from vlpipe.stores import FeatureStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

PREFECT = Path(sys.executable).parent / "prefect"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(1)
    raise AssertionError(f"not within {seconds} s: {what}")


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def stop(process):
    """Ends a group of processes; a worker may have begun the next minute's run and wait for it."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def post(url, body):
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


# Python runs this in every process that is started with its folder on the path.
WATCH = """
import ipaddress, os, sys

def watch(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host
    try:
        is_local = name in (None, "", "localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        is_local = False
    if not is_local:
        with open(os.environ["OUTSIDE_CALLS"], "a") as file:
            file.write(f"{name}\\n")
        raise OSError(f"no network in this test: {name}")

sys.addaudithook(watch)
"""

# Where Prefect's server looks for a list of worker types when a pool is made; it goes on without.
ALLOWED = {"raw.githubusercontent.com"}


@pytest.fixture
def server(tmp_path):
    """Environment of a server of its own on a free loopback port, in which outside calls fail and
    are written down."""
    port = free_port()
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    paths = [str(tmp_path / "watch"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PYTHONPATH": os.pathsep.join(paths),
        "OUTSIDE_CALLS": str(tmp_path / "outside-calls"),
    }
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(
        [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/api/health"), 120, "the server answers")
        yield environment
    finally:
        stop(process)
        log.close()


def test_a_deployment_with_a_schedule_runs_by_itself(server, clips, tmp_path):
    store = tmp_path / "store"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vlpipe", "deploy", str(clips), "--store", str(store)),
            *("--features", "resnet18,vggish", "--weights", "untrained"),
            *("--set", "resnet18.resize=40", "--set", "resnet18.crop=32"),
            *("--cron", "* * * * *", "--name", "clips", "--work-pool", "here", "--json"),
        ],
        env=server, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["deployment"] == "extract/clips"
    worker = subprocess.Popen(
        [PREFECT, "worker", "start", "--pool", "here", "--limit", "1"],
        env=server, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        url = f"{server['PREFECT_API_URL']}/flow_runs/filter"
        completed = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        (run, *_) = wait_for(lambda: post(url, completed), 240, "a scheduled run is completed")
    finally:
        stop(worker)
    assert {"auto-scheduled", "vlpipe", "stage:extract", "dataset:folder"} <= set(run["tags"])
    with FeatureStore.open(store) as opened:
        assert len(opened["resnet18"]) == 6
    check_doctor(server, tmp_path)
    outside = tmp_path / "outside-calls"
    assert set(outside.read_text().split() if outside.exists() else ()) <= ALLOWED


def check_doctor(server, folder):
    """The doctor names what is registered, and that the worker is gone or about to be."""
    done = subprocess.run(
        [sys.executable, "-m", "vlpipe", "doctor", "--json"],
        env=server, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = {f["name"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["deployments"]["found"] == "clips"
    assert "work pool here" in found
    assert found["automations"]["level"] == "ok"
