"""The report of person tracks: one HTML file with the tracks of each video drawn on its frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlpipe.extractors.errors import MediaError
from vlpipe.pipelines.html_pages import render
from vlpipe.pipelines.pictures import data_address
from vlpipe.pipelines.track_pictures import VideoTracks, track_colour, tracks_on_frames
from vlpipe.stores import FeatureStore
from vlpipe.stores.datasets import Video
from vlpipe.stores.errors import UsageError, VideoMissing

_MOST_NAMED = 5


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
    """The tracks of one video. picture: a data address, None where nobody is tracked. problem: why
    the video is not shown."""

    id: str
    picture: str | None = None
    tracks: tuple[TrackFacts, ...] = ()
    problem: str | None = None


def people_of(store: FeatureStore, videos: Sequence[Video]) -> Iterator[VideoPeople]:
    """The tracks of each video, drawn on eight of its frames, or why there are none: the store has
    no `person_tracks` of it, or its file cannot be read.

    Raises FeatureMissing where the store has no `person_tracks` at all.
    """
    reader = store["person_tracks"]
    for video in videos:
        if video.path is None:
            continue
        try:
            tracks = VideoTracks.read(store, video.id)
            _, spans = reader.read(video.id, with_spans=True)
            picture = tracks_on_frames(video.path, tracks)
        except (VideoMissing, MediaError) as error:
            yield VideoPeople(video.id, problem=error.message)
            continue
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


def write_people_report(
    path: Path, store: FeatureStore, videos: Sequence[Video]
) -> list[VideoPeople]:
    """Writes the report of these videos and returns what is in it.

    Raises UsageError if not one of them can be shown, FeatureMissing as `people_of`.
    """
    people = list(people_of(store, videos))
    if not people:
        raise UsageError(
            "there are no videos to show", hint="name media files, or a folder of them"
        )
    problems = [video.problem for video in people if video.problem is not None]
    if len(problems) == len(people):
        raise UsageError(
            f"none of {len(people)} videos can be shown: {'; '.join(problems[:_MOST_NAMED])}",
            hint="vlpipe extract --features person_tracks makes tracks; vlpipe store ls "
            f"{store.url} --videos lists what there is",
        )
    render(
        "people.html.j2",
        path,
        url=store.url,
        is_untrained=store["person_tracks"].info.is_untrained,
        videos=people,
    )
    return people
