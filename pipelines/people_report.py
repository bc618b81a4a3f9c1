"""The report of person tracks: one HTML file with the tracks of each video drawn on its frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlpipe.pipelines.html_pages import render
from vlpipe.pipelines.pictures import data_address
from vlpipe.pipelines.track_pictures import VideoTracks, track_colour, tracks_on_frames
from vlpipe.stores import FeatureStore
from vlpipe.stores.datasets import Video


@dataclass(frozen=True, slots=True)
class TrackFacts:
    """One track: its id and colour in the pictures, seconds it lasts, frames it is seen in."""

    id: int
    colour: str
    start_s: float
    end_s: float
    num_frames: int


@dataclass(frozen=True, slots=True)
class VideoPeople:
    """The tracks of one video. picture: a data address, None where nobody is tracked."""

    id: str
    picture: str | None
    tracks: tuple[TrackFacts, ...]


def people_of(store: FeatureStore, videos: Sequence[Video]) -> Iterator[VideoPeople]:
    """The tracks of each video, drawn on eight of its frames.

    Raises FeatureMissing or VideoMissing where the store has no `person_tracks` of it, MediaError
    when a file cannot be read.
    """
    for video in videos:
        if video.path is None:
            continue
        tracks = VideoTracks.read(store, video.id)
        _, spans = store["person_tracks"].read(video.id, with_spans=True)
        picture = tracks_on_frames(video.path, tracks)
        facts = []
        for track in np.unique(tracks.ids).tolist():
            of_track = spans[tracks.ids == track]
            facts.append(
                TrackFacts(
                    track,
                    "#{:02x}{:02x}{:02x}".format(*track_colour(track)),
                    float(of_track[:, 0].min()),
                    float(of_track[:, 1].max()),
                    len(of_track),
                )
            )
        address = data_address(picture, jpeg=True) if picture is not None else None
        yield VideoPeople(video.id, address, tuple(facts))


def write_people_report(path: Path, store: FeatureStore, videos: Sequence[Video]) -> Path:
    """Writes the report of these videos and returns its path; raises as `people_of`."""
    return render(
        "people.html.j2",
        path,
        url=store.url,
        is_untrained=store["person_tracks"].info.is_untrained,
        videos=list(people_of(store, videos)),
    )
