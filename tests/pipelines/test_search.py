"""`vlpipe search`: ranks, what is kept between searches, the page, media files, wrong input."""

import dataclasses
import json
import re

import numpy as np
import pytest
import typer
from made_media import make_gif
from made_sentences import TOLD, make_features, make_job, make_tables, sentence_of
from PIL import Image
from typer.testing import CliRunner

from vlpipe.pipelines.cli import search
from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.media_frames import frames_at
from vlpipe.pipelines.search_page import write_search_page
from vlpipe.pipelines.searching import search_videos
from vlpipe.pipelines.training.evaluation import evaluate_run
from vlpipe.pipelines.training.train import run_training
from vlpipe.stores import Features, FeatureStore
from vlpipe.stores.errors import UsageError

app = typer.Typer(pretty_exceptions_enable=False)
app.command("search")(search.search)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    make_features(folder / "store", make_tables(folder / "tables"))
    make_gif(folder / "tables" / "video7010.gif", [100] * 12)
    return folder


@pytest.fixture(scope="module")
def run(place):
    return run_training(make_job(place, "retrieval", "epochs=10")).run


def test_the_video_of_a_sentence_is_among_the_first(run):
    assert evaluate_run(run, "test").metrics["R@5"] >= 60
    found = search_videos(run, sentence_of(TOLD[0]), top=8)
    assert found.num_videos == 80
    assert found.words == ("a", "red", "dog", "jumps", "twice")
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    # Of twenty things one is told: four videos of eighty show it.
    shown = {hit.video_id for hit in found.hits}
    assert shown & {"video0", "video20", "video40", "video7010"}
    for hit in found.hits:
        assert hit.alpha.shape == (len(hit.spans_s), 5)
        assert 0 <= hit.alpha.min() <= hit.alpha.max() <= 1
        assert len(hit.spans_s) <= 7
        best = hit.best_frames(2)
        assert best == sorted(best)
        assert min(hit.shares[best]) >= np.median(hit.shares) - 1e-9


def test_encodings_are_kept_until_weights_or_features_change(run, place):
    first = search_videos(run, "a red dog")
    kept = run / "encoded-videos" / "rows.npy"
    before = kept.stat().st_mtime_ns
    again = search_videos(run, "a red dog")
    assert [h.video_id for h in again.hits] == [h.video_id for h in first.hits]
    assert [h.score for h in again.hits] == pytest.approx([h.score for h in first.hits], abs=1e-6)
    assert kept.stat().st_mtime_ns == before
    key = json.loads((run / "encoded-videos" / "key.json").read_text())
    (run / "encoded-videos" / "key.json").write_text(json.dumps(key | {"weights": "others"}))
    search_videos(run, "a red dog")
    assert kept.stat().st_mtime_ns > before
    assert json.loads((run / "encoded-videos" / "key.json").read_text()) == key
    assert not list(run.glob(".encoded-videos*"))


def test_the_page_stands_alone_and_shows_frames_where_media_are_there(run, tmp_path):
    found = search_videos(run, "a red <b>dog</b> jumps quickly", top=80)
    assert found.unknown == ("b", "quickly")
    html = write_search_page(tmp_path / "page.html", found).read_text(encoding="utf-8")
    assert "a red &lt;b&gt;dog&lt;/b&gt; jumps quickly" in html
    assert "<b>dog</b>" not in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    assert html.count('class="map"') == 80
    assert html.count("its media cannot be shown") == 79
    assert html.count('class="frames"') == 1


def test_the_command_writes_page_and_json(run, tmp_path):
    page = tmp_path / "found.html"
    words = ["a green dog waits", "--run", str(run), "--top", "3", "--out", str(page)]
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    value = json.loads(done.stdout)
    assert [hit["rank"] for hit in value["hits"]] == [1, 2, 3]
    assert len(value["hits"][0]["alpha"][0]) == len(value["words"]) == 4
    assert page.is_file()
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert value["hits"][0]["video"] in done.stdout


def test_wrong_input_is_named(run, place, tmp_path):
    with pytest.raises(UsageError, match="the sentence is empty"):
        search_videos(run, " . ")
    with pytest.raises(UsageError, match="none of the words of 'zebra'"):
        search_videos(run, "zebra")
    with pytest.raises(UsageError, match="expected 1 or more"):
        search_videos(run, "a dog", top=0)
    with pytest.raises(UsageError, match="media files and a store"):
        search_videos(run, "a dog", videos=[tmp_path], store="x")
    with pytest.raises(UsageError, match="was not made by an extractor"):
        search_videos(run, "a dog", videos=[place / "tables" / "video7010.gif"])
    choice = run_training(make_job(place, "mc", "epochs=1")).run
    with pytest.raises(UsageError, match="learnt mc, which ranks no videos"):
        search_videos(choice, "a dog")


def test_another_store_must_have_features_of_the_same_generation(run, place, tmp_path):
    truth = {f"new{n}": told for n, told in enumerate(TOLD)}
    make_features(tmp_path / "store", truth)
    found = search_videos(run, sentence_of(TOLD[3]), store=str(tmp_path / "store"), top=5)
    assert found.num_videos == 20
    assert {hit.video_id for hit in found.hits} <= set(truth)
    store = FeatureStore.create(tmp_path / "other", durability="process")
    definition = FeatureStore.open(place / "store")["frames"].definition
    changed = dataclasses.replace(definition, provenance={"made": "otherwise"})
    source = FeatureStore.open(place / "store")["frames"]
    with store.writer([changed]) as writer:
        writer.add("video0", {"frames": Features(*source.read("video0", with_spans=True))})
    with pytest.raises(UsageError, match="of another generation"):
        search_videos(run, "a dog", store=str(tmp_path / "other"))


def test_media_files_are_ranked_and_a_broken_one_fails_alone(tmp_path):
    root = tmp_path / "tables"
    make_tables(root, num_train=12)
    for n in (*range(12), *range(7010, 7013)):
        make_gif(root / f"video{n}.gif", [100] * 5, seed=n)
    run_extraction(
        ExtractionJob(
            dataset="msrvtt-retrieval",
            root=root,
            features=("resnet18",),
            settings={"resnet18": {"resize": 40, "crop": 32}},
            weights={"*": "untrained"},
            store=str(tmp_path / "store"),
        )
    )
    job = make_job(tmp_path, "retrieval", "features.frames=resnet18", "epochs=1")
    run = run_training(job).run
    files = tmp_path / "files"
    files.mkdir()
    for n in range(2):
        make_gif(files / f"new{n}.gif", [100] * 6, seed=50 + n)
    (files / "broken.gif").write_bytes(b"GIF89a")
    page = tmp_path / "page.html"
    done = CliRunner().invoke(
        app,
        ["a red dog", "--run", str(run), "--videos", str(files), "--out", str(page), "--json"],
        catch_exceptions=False,
    )
    assert done.exit_code == 1  # one file failed, and is named
    value = json.loads(done.stdout)
    assert {hit["video"] for hit in value["hits"]} == {"new0", "new1"}
    assert list(value["failed"]) == [str(files / "broken.gif")]
    html = page.read_text(encoding="utf-8")
    assert html.count('class="frames"') == 2
    assert "broken.gif" in html


def test_frames_at_any_time_without_keeping_the_video(tmp_path):
    path = tmp_path / "levels.gif"
    frames = [Image.new("L", (16, 16), 20 * n) for n in range(10)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=250, loop=0)
    found = frames_at(path, [-1.0, 1.3, 0.3, 99.0])
    assert [round(float(frame.mean()) / 20) for frame in found] == [0, 5, 1, 9]
