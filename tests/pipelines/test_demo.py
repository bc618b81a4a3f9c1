"""The demonstration: complete, repeatable, without the network, and a report that stands alone."""

import json
import pathlib
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from vlpipe.stores import FeatureStore

# Anything but loopback is refused before it happens, names included.
OFFLINE = """
import ipaddress, sys

def refuse(event, arguments):
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
        sys.stderr.write(f"OUTSIDE CALL: {event} {name}\\n")
        raise OSError(f"no network in this test: {name}")

sys.addaudithook(refuse)
from vlpipe.pipelines.cli import run
sys.exit(run(sys.argv[1:]))
"""


def run_demo(out):
    return subprocess.run(
        [sys.executable, "-c", OFFLINE, "demo", "--out", str(out), "--clips", "8", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


class Page(HTMLParser):
    """Collects what a page would fetch, and its text."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.words, self.images = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.images += tag == "img"
        self.addresses += [value for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    done = run_demo(out)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout), done.stderr


def test_everything_is_extracted_and_the_broken_files_are_named(demo):
    _, result, err = demo
    whole, broken, movies, stories = result["extractions"]
    assert whole["extracted"] == whole["selected"] > 8
    assert stories["extracted"] == stories["selected"] == 10
    assert not whole["failed"] + movies["failed"] + stories["failed"]
    assert {f["id"]: f["kind"] for f in broken["failed"]} == {
        "error_page": "not_media",
        "half": "damaged",
        "nothing": "empty",
    }
    assert "OUTSIDE CALL" not in err


def test_the_store_is_sound_and_marked_untrained(demo):
    with FeatureStore.open(demo[1]["store"]) as store:
        assert store.verify().is_sound
        assert all(info.is_untrained for info in store.features.values())
        assert max(len(store["vggish"][v]) for v in store["vggish"]) > 5


def test_all_networks_take_in_what_they_are_shown(demo):
    """Eight clips are too few to answer about others; what was seen has to be learnt."""
    folders = [pathlib.Path(run) for run in demo[1]["runs"]]
    assert [folder.name for folder in folders] == [
        "frameqa", "count", "action", "transition", "captions", "reid", "retrieval", "mc", "fib"
    ]  # fmt: skip
    for folder in folders:
        history = json.loads((folder / "history.json").read_text())
        # One story, seen once an epoch, is 24 steps; transitions of two GIFs are seen ten times.
        shares = {"transition": 0.7} | dict.fromkeys(("reid", "retrieval", "mc", "fib"), 0.9)
        share = shares.get(folder.name, 0.5)
        assert history[-1]["loss"] < share * history[0]["loss"], folder.name


def test_the_report_stands_alone_and_shows_what_happened(demo):
    text = (demo[0] / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.images >= 10
    beside = [a for a in page.addresses if not a.startswith("data:image/")]
    assert all((demo[0] / address).is_file() for address in beside)
    assert not re.search(r"url\(|@import|<script", text)
    assert sum(address.startswith("captions/") for address in beside) == 1
    words = " ".join(page.words)
    for expected in (
        "not_media",
        "looks like an HTML page",
        "untrained",
        "How many times",
        "vggish",
    ):
        assert expected in words


def test_repeating_it_does_nothing_again(demo):
    out, _, _ = demo
    result = json.loads(run_demo(out).stdout)
    whole, broken, movies, stories = result["extractions"]
    for done in (whole, movies, stories):
        assert (done["extracted"], done["stored_before"]) == (0, done["selected"])
    assert sorted(broken["failed_before"]) == ["error_page", "half", "nothing"]
    assert "not_media" in (out / "report.html").read_text(encoding="utf-8")
