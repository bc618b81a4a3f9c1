"""`vlpipe store` compact, gc, verify --repair and rm --purge."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlpipe.pipelines.cli import app
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import SnapshotGone, UsageError

IDS = ["a", "b", "c"]


@pytest.fixture
def run():
    def invoke(*words, code=0):
        result = CliRunner().invoke(app, ["store", *words])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if "--json" in words else result.output

    return invoke


@pytest.fixture
def url(store, samples):
    for video_id in IDS:
        samples.write(store, [video_id], samples.rgb)
    return store.url


def test_compact_and_gc(url, run, samples):
    assert run("compact", url, "--dry-run", "--json")["parts_after"] == 1
    facts = run("compact", url, "--feature", "rgb", "--json")
    assert (facts["parts_before"], facts["parts_after"], facts["videos"]) == (3, 1, 3)
    assert "parts before" in run("compact", url)
    everything = ("--keep-days", "0", "--grace-hours", "0")
    assert run("gc", url, "--json")["parts"] == 0  # all are young
    dry = run("gc", url, *everything, "--json")
    assert (dry["parts"], dry["is_dry_run"]) == (3, True)
    assert "nothing was removed" in run("gc", url, *everything)
    assert run("gc", url, *everything, "--yes", "--json")["parts"] == 3
    samples.check(FeatureStore.open(url), IDS, samples.rgb)
    run("compact", url, "--feature", "nonsense", code=1)


@pytest.mark.folder
def test_repair(url, run, samples, monkeypatch):
    path = Path(url, FeatureStore.open(url)["rgb"].locate("b")[0].rows_file)
    data = bytearray(path.read_bytes())
    data[4100] ^= 1
    path.write_bytes(data)
    assert "video" in run("verify", url, code=4)
    facts = run("compact", url, "--json", code=4)
    assert facts["damaged"] == 1
    assert CliRunner().invoke(app, ["store", "verify", url, "--repair"], input="n\n").exit_code == 1
    monkeypatch.setattr(FeatureStore, "gc", None)  # old versions are nobody's damage
    output = run("verify", url, "--repair", "--yes")
    assert "missing now: b of rgb" in output
    assert run("verify", url, "--json")["is_sound"]
    samples.check(FeatureStore.open(url), ["a", "c"], samples.rgb)


def test_what_asks_says_how_to_go_on_when_nobody_can_answer(url, run):
    result = CliRunner().invoke(app, ["store", "rm", url, "--video", "b"])
    assert isinstance(result.exception, UsageError)
    assert "--yes" in result.exception.hint
    assert run("rm", url, "--video", "b", "--yes", "--json")["deleted"] == ["b"]


def test_versions_have_names(url, run):
    assert run("tag", url, "--json")["tags"] == []
    assert "names version 2" in run("tag", url, "two", "--version", "2", "--note", "before c")
    run("rm", url, "--video", "a", "--yes")
    assert run("tag", url, "now", "--json")["tags"] == [
        {"tag": "now", "version": 4, "note": None},
        {"tag": "two", "version": 2, "note": "before c"},
    ]
    assert "before c" in run("tag", url)
    names = {"two": ["a", "b"], "3": ["a", "b", "c"], "now": ["b", "c"]}
    for version, ids in names.items():
        found = run("ls", url, "--videos", "--version", version, "--json")["videos"]
        assert [video["video_id"] for video in found] == ids
    assert run("info", url, "--version", "two", "--json")["videos"] == 2
    assert run("ls", url, "--at", "2001-01-01", "--json")["features"] == []
    assert "no version any more" in run("tag", url, "two", "--remove")
    for words in (
        ["ls", url, "--version", "two"],
        ["ls", url, "--version", "-1"],
        ["ls", url, "--version", "9" * 5000],
        ["tag", url, "--remove"],
        ["tag", url, "--version", "1"],
        ["tag", url, "now", "--remove", "--version", "1"],
        ["tag", url, "9"],
        ["tag", url, "\u0661\u0662"],
    ):
        result = CliRunner().invoke(app, ["store", *words])
        assert isinstance(result.exception, UsageError)


def test_a_version_whose_files_were_collected_gets_no_name(url, run, samples):
    past = FeatureStore.open(url, 3)
    run("rm", url, "--video", "a", "--yes")
    run("compact", url)
    run("gc", url, "--keep-days", "0", "--grace-hours", "0", "--yes")
    for _ in range(2):  # the first leaves no tag behind
        with pytest.raises(SnapshotGone, match=r"parts of version 3 .* were collected"):
            past.tag("late")
    assert run("tag", url, "--json")["tags"] == []
    assert run("tag", url, "now", "--json")["tags"][0]["tag"] == "now"


def test_purge(url, run):
    output = run("rm", url, "--video", "b", "--purge", "--yes", "--reason", "asked for")
    assert "the bytes are still there" in output
    assert run("gc", url, "--json")["unpurged"] == ["b"]
    run("compact", url)
    run("gc", url, "--keep-days", "0", "--grace-hours", "0", "--yes")
    assert run("gc", url, "--json")["unpurged"] == []
    assert any("asked for" in entry["what"] for entry in run("log", url, "--json")["log"])
