"""`vlpipe who` and the training before it, as a user calls them: figures, resuming, the page."""

import json

import pytest
import typer
from made_stories import SETTINGS, make_stories
from typer.testing import CliRunner

from vlpipe.pipelines.cli import evaluate, train, who
from vlpipe.pipelines.story_characters import identify_characters, read_sentences
from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.errors import UsageError

app = typer.Typer(pretty_exceptions_enable=False)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("who")(who.who)


def call(*words):
    """What a command prints on stdout, as JSON where it is; its errors are raised."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout) if "--json" in words else done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("who")
    make_stories(folder / "mvad", str(folder / "store"), num=16, media=range(60, 80))
    changes = [word for change in SETTINGS for word in ("--set", change)]
    result = call("train", "cisin", "--task", "reid", "--dataset", "mvad-names", "--root",
                  folder / "mvad", "--store", folder / "store", "--out", folder / "run", *changes,
                  "--no-prefect", "--json")  # fmt: skip
    return folder, result


def test_it_learns_who_is_who(place):
    folder, result = place
    found = result["metrics"]["test"]
    assert found["video"] > 90 > found["video/all_same"]
    assert found["grounding"] > 80
    assert found["accuracy"] > found["accuracy/all_different"]
    assert call("train", "--resume", folder / "run", "--json") == result
    lines = (folder / "run" / "predictions-test.csv").read_text().splitlines()
    assert len(lines) == 20
    assert lines[0].split("\t")[0] == "M_DVS60"
    assert "predictions-test.csv" in call("evaluate", folder / "run")


def test_the_report_shows_stories(place):
    folder, _ = place
    html = (folder / "run" / "report.html").read_text()
    assert "the next word after a mention" in html
    assert 'class="who"' in html
    assert "data:image/jpeg" in html


def test_who_writes_a_page_that_needs_nothing_else(place, tmp_path):
    folder, _ = place
    story = open_dataset("mvad-names", folder / "mvad").stories("test")[-1]
    ids = [line.video_id for line in story.lines]
    text = tmp_path / "story.txt"
    text.write_text("".join(f"{line.sentence} <b>\n" for line in story.lines) + "\n")
    page = tmp_path / "pages" / "who.html"
    told = call("who", *ids, "--text", text, "--run", folder / "run", "--out", page, "--json")
    assert [clip["video_id"] for clip in told["clips"]] == ids
    first = told["clips"][0]
    assert "SOMEONE" not in first["told"]
    assert first["told"].startswith("person 0 ")
    mention = first["mentions"][0]
    character = {track["track"]: track["character"] for track in first["tracks"]}
    assert character[mention["track"]] == mention["character"]
    html = page.read_text()
    assert html.count("data:image/jpeg") == 5
    assert "&lt;b&gt;" in html
    assert "http" not in html.replace("http-equiv", "")
    table = call("who", *ids, "--text", text, "--run", folder / "run", "--out", page)
    assert "person 0" in table


def test_wrong_clips_and_sentences_are_named(place, tmp_path):
    folder, _ = place
    text = tmp_path / "story.txt"
    text.write_text("SOMEONE jumps.\n")
    with pytest.raises(UsageError, match="has 1 lines for 2 clips"):
        read_sentences(text, 2)
    text.write_text("Nobody jumps.\n")
    with pytest.raises(UsageError, match="mentions nobody"):
        read_sentences(text, 1)
    with pytest.raises(UsageError, match="neither a video of"):
        identify_characters(folder / "run", ["gone"], ["SOMEONE jumps."])
    with pytest.raises(UsageError, match="named twice"):
        identify_characters(folder / "run", ["M_DVS0"] * 2, ["SOMEONE jumps."] * 2)
