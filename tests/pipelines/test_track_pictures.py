"""Tracks drawn on frames, from a store and alone."""

import json

import numpy as np
from drawn_figures import FigureDetector, crossing, make_clip

from vlpipe.extractors.people.detectors import PERSON_DETECTORS, PersonDetectorEntry
from vlpipe.pipelines.cli import run
from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.track_pictures import (
    VideoTracks,
    choose_frames,
    draw_tracks,
    track_colour,
    tracks_on_frames,
)
from vlpipe.stores import FeatureStore


def tracks_at(boxes, ids, frames, keypoints=None):
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    if keypoints is None:
        keypoints = np.zeros((len(rows), 17, 3), np.float32)
    return VideoTracks(rows, np.array(ids, np.int32), np.array(frames, np.int32), keypoints, 24.0)


def test_a_box_is_outlined_in_the_colour_of_its_track():
    frame = np.full((90, 120, 3), 7, np.uint8)
    tracks = tracks_at([(20, 30, 60, 80), (-9, -9, 500, 500), (5, 5, 5, 5)], [3, 4, 5], [0, 0, 0])
    made = np.asarray(draw_tracks(frame, tracks))
    for x, y in ((59, 30), (59, 79), (20, 79), (40, 79)):
        assert tuple(made[y, x]) == track_colour(3)
    assert (made[70, 30] == 7).all()
    assert (made[60, 80] == 7).all()
    assert (frame == 7).all()


def test_sure_key_points_are_joined_and_others_are_not():
    keypoints = np.zeros((1, 17, 3), np.float32)
    keypoints[0, 5], keypoints[0, 6] = (30, 50, 0.9), (50, 50, 0.9)
    keypoints[0, 11] = (30, 70, 0.2)
    tracks = tracks_at([(20, 30, 60, 80)], [1], [0], keypoints)
    made = np.asarray(draw_tracks(np.zeros((90, 120, 3), np.uint8), tracks))
    assert tuple(made[50, 40]) == track_colour(1)
    assert (made[50, 30] == 255).all()
    assert not made[60:76, 25:35].any()


def test_colours_of_near_tracks_differ():
    colours = [np.array(track_colour(track), int) for track in range(12)]
    for track, colour in enumerate(colours):
        assert max(colour) == 255
        for other in colours[:track]:
            assert np.abs(colour - other).sum() > 60


def test_frames_are_spread_over_those_with_tracks():
    tracks = tracks_at(np.zeros((40, 4)), [0] * 40, range(10, 50))
    assert choose_frames(tracks, 4) == [10, 23, 36, 49]
    assert choose_frames(tracks, 100) == list(range(10, 50))
    assert choose_frames(tracks_at([], [], []), 4) == []


def test_a_stored_video_shows_its_tracks(tmp_path, monkeypatch, capfd):
    entry = PersonDetectorEntry(
        build=lambda settings: FigureDetector(crossing()), has_keypoints=True
    )
    monkeypatch.setitem(PERSON_DETECTORS, "figures", entry)
    clip = make_clip(tmp_path / "crossing.mkv", crossing(), frames=24)
    make_clip(tmp_path / "empty.mkv", [], frames=4)
    job = ExtractionJob(
        paths=(tmp_path,),
        store=str(tmp_path / "store"),
        features=("person_tracks", "person_track_table"),
        settings={"person_boxes": {"detector": "figures"}},
    )
    summary = run_extraction(job)
    assert summary.extracted == 2
    with FeatureStore.open(job.store) as store:
        tracks = VideoTracks.read(store, "crossing")
        nobody = VideoTracks.read(store, "empty")
        assert store["person_track_table_id"].read("crossing").tolist() == [0, 1]
        assert store["person_track_table"].info.row_shape == (4,)
    assert tracks.fps == 24
    picture = tracks_on_frames(clip, tracks, most=3)
    assert picture.size == (3 * 160 + 2 * 2, 96)
    colours = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3)}
    assert {track_colour(0), track_colour(1)} <= colours
    assert tracks_on_frames(tmp_path / "empty.mkv", nobody) is None

    out = tmp_path / "people.html"
    assert (
        run(["people", job.store, str(clip), str(tmp_path / "empty.mkv"), "--out", str(out)]) == 0
    )
    html = out.read_text(encoding="utf-8")
    assert html.count("data:image/jpeg;base64,") == 1
    assert html.count("background:#") == 2
    assert "Nobody is tracked" in html

    # One video without tracks does not keep the others from being looked at.
    new = make_clip(tmp_path / "new.mkv", [], frames=2)
    assert run(["people", job.store, str(clip), str(new), "--out", str(out), "--json"]) == 0
    text = capfd.readouterr().out
    facts = json.loads(text[text.index("{") :])
    assert facts["videos"] == ["crossing"]
    assert list(facts["left_out"]) == ["new"]
    assert "Not shown" in out.read_text(encoding="utf-8")
    assert run(["people", job.store, str(new), "--out", str(tmp_path / "none.html")]) == 2
    assert not (tmp_path / "none.html").exists()


def test_rows_of_one_frame():
    tracks = tracks_at(np.arange(12).reshape(3, 4), [0, 1, 0], [5, 5, 6])
    assert tracks.in_frame(5).ids.tolist() == [0, 1]
    assert tracks.in_frame(6).boxes.tolist() == [[8, 9, 10, 11]]
