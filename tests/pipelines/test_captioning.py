"""`vlpipe caption`: from files to events, sentences, subtitles and a page."""

import json
import re
from html.parser import HTMLParser

import made_captioning
import pytest
from made_media import ffmpeg, make_gif, make_video

from vlpipe.pipelines.captioning.caption import caption_videos, write_captions
from vlpipe.pipelines.captioning.telling import EventChoice
from vlpipe.pipelines.cli import run as run_command
from vlpipe.pipelines.training.material import prepare_run
from vlpipe.pipelines.training.train import run_training
from vlpipe.stores.errors import UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The dataset, its features, and a run of `dense_captioning`."""
    folder = tmp_path_factory.mktemp("captioning")
    made_captioning.make_dataset(folder / "data")
    made_captioning.make_features(folder / "data", folder / "store")
    run_training(made_captioning.captioning_job(folder, "dense_captioning"))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return folder / "dense_captioning"


class Page(HTMLParser):
    """What a page would fetch, what can be clicked, and its text."""

    def __init__(self, path):
        super().__init__()
        self.addresses, self.words, self.seconds, self.tags = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.addresses += [given[name] for name in ("src", "href") if name in given]
        if "data-at" in given:
            self.seconds.append(float(given["data-at"]))

    def handle_data(self, data):
        self.words.append(data)


def test_several_files_at_once_and_a_bad_one_stops_none(run, tmp_path, capsys):
    make_video(tmp_path / "loud.mp4", seconds=3, audio="aac")
    make_video(tmp_path / "silent.mkv", seconds=2)
    make_gif(tmp_path / "short.gif", [100, 100])
    (tmp_path / "page.mp4").write_text("<html>")
    names = ("loud.mp4", "page.mp4", "silent.mkv", "short.gif", "gone.mp4")
    out = tmp_path / "out"
    code = run_command(
        ["caption", *(str(tmp_path / n) for n in names), "--run", str(run), "--json",
         "--out", str(out), "--proposals", "6"]
    )  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert code == 1
    assert {entry["video"]: bool(entry["message"]) for entry in found["failed"]} == {
        str(tmp_path / "page.mp4"): True,
        str(tmp_path / "gone.mp4"): True,
    }
    assert [video["id"] for video in found["videos"]] == ["loud", "silent", "short"]
    assert found["is_untrained"]
    for video in found["videos"]:
        assert len(video["events"]) <= 6
        for event in video["events"]:
            assert 0 <= event["start_s"] < event["end_s"] <= video["duration_s"] + 0.01
            assert 0 <= event["confidence"] <= 1
        assert json.loads((out / f"{video['id']}.json").read_text())["events"] == video["events"]
        for suffix in ("vtt", "srt") if video["events"] else ():
            read = ffmpeg("-i", out / f"{video['id']}.{suffix}", "-f", "srt", "-").decode()
            assert "-->" in read


def test_a_page_holds_the_video_the_events_and_their_frames(run, folder, tmp_path):
    media = folder / "data" / "v_5.mp4"
    captions = caption_videos(run, [media], choice=EventChoice(most=8))
    (files,) = write_captions(captions, tmp_path, frames_per_event=3).values()
    (video,) = captions.videos
    assert video.events
    page = Page(files.page)
    kinds = [address.partition(",")[0] for address in page.addresses]
    assert kinds.count("data:video/mp4;base64") == 1
    assert kinds.count("data:text/vtt;base64") == 1
    assert all(kind.startswith("data:") for kind in kinds)
    assert not re.search(r"url\(|@import|https?:", files.page.read_text(encoding="utf-8"))
    for event in video.events:
        length = event.end_s - event.start_s
        wanted = [
            event.start_s,
            *(event.start_s + length * share for share in (1 / 6, 1 / 2, 5 / 6)),
        ]
        assert all(any(abs(at - t) < 1e-6 for at in page.seconds) for t in wanted)
        assert " ".join(event.sentence.split()) in " ".join(" ".join(page.words).split())
    assert "<b>ball" not in files.page.read_text(encoding="utf-8"), "words are no markup"


def test_a_large_video_is_linked_from_the_page(run, folder, tmp_path):
    captions = caption_videos(run, ["v_5"])
    (files,) = write_captions(captions, tmp_path / "a b", embed_bytes=10).values()
    (address,) = [a for a in Page(files.page).addresses if not a.startswith("data:")]
    linked = (files.page.parent / address).resolve()
    assert linked == (folder / "data" / "v_5.mp4").resolve()


def test_a_video_of_the_store_is_told_like_its_file(run, folder):
    stored, made = (
        caption_videos(run, [video]).videos[0] for video in ("v_5", folder / "data" / "v_5.mp4")
    )
    assert stored.path == folder / "data" / "v_5.mp4"
    assert stored.events == made.events


def test_a_whole_folder_can_be_named(run, folder, tmp_path):
    (tmp_path / "clips").mkdir()
    make_video(tmp_path / "clips" / "one.mp4")
    (tmp_path / "empty").mkdir()
    found = caption_videos(run, [tmp_path / "clips", tmp_path / "empty"])
    assert [video.id for video in found.videos] == ["one"]
    assert found.failed == {str(tmp_path / "empty"): "there is no media in this folder"}


def test_a_run_that_learnt_something_else_is_refused(folder, capsys):
    job = made_captioning.captioning_job(folder, "captioning")
    run = prepare_run(job)
    with pytest.raises(UsageError, match="learnt captioning") as caught:
        caption_videos(run.path, ["v_5"])
    assert "--task dense_captioning" in caught.value.hint
    assert run_command(["caption", "v_5", "--run", str(run.path)]) == 2
    assert "learnt captioning" in capsys.readouterr().err
