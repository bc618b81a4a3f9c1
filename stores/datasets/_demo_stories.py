"""Annotations of the demo dataset's movies in the forms of LSMDC 2019 and M-VAD Names."""

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vlpipe.stores.datasets._demo_language import at_place, look, verb_phrase
from vlpipe.stores.datasets._demo_movies import STORY_FPS, Character, Movie, StoryClip, clock
from vlpipe.stores.datasets._demo_questions import table_text
from vlpipe.stores.datasets._demo_scene import Figure, box
from vlpipe.stores.datasets._demo_script import VIDEO_SIZE, generator
from vlpipe.stores.datasets._stories import CHARACTER_COLUMNS, LSMDC_SPLITS, MENTION_COLUMNS, NO_IDS

Tracks = list[list[list[int]]]


@dataclass(frozen=True, slots=True)
class Told:
    """A sentence with {0}, {1} for the people that it mentions, in the order of the mentions."""

    template: str
    people: tuple[Character, ...]

    def with_names(self, name: Callable[[Character], str]) -> str:
        return self.template.format(*(name(person) for person in self.people))


def story_files(seed: int, movies: Sequence[Movie]) -> dict[str, str]:
    """All files: path below the dataset's root -> text."""
    files: dict[str, str] = {}
    for split, word in LSMDC_SPLITS.items():
        of_split = [movie for movie in movies if movie.split == split]
        sets = [story for movie in of_split for story in movie.stories]
        base = f"LSMDC16_annos_{word}"
        files[f"lsmdc/{split}Sets.csv"] = _lines(
            "\t".join(clip.name for clip in story) for story in sets
        )
        told = [
            (movie, clip, tell(clip, generator(seed, "story", clip.name)))
            for movie in of_split
            for story in movie.stories
            for clip in story
        ]
        files[f"lsmdc/task1/{base}_someone.csv"] = _lines(
            _annotation(clip, said.with_names(lambda _: "SOMEONE")) for _, clip, said in told
        )
        files[f"lsmdc/task2/{base}_blank.csv"] = _lines(
            _annotation(clip, said.with_names(lambda _: "[...]")) for _, clip, said in told
        )
        files[f"lsmdc/task2/{base}_onlyIDs.csv"] = _lines(
            f"{clip.name}\t{','.join(_person_id(movie, p) for p in said.people) or NO_IDS}"
            for movie, clip, said in told
        )
    return files | _names_files(seed, movies) | _box_files(movies)


def tell(clip: StoryClip, rng: random.Random) -> Told:
    """One sentence about a clip. Who is meant can only be told from what everybody does."""
    scene = clip.scene
    acts = sorted(scene.acts, key=lambda act: act.start_s)
    actors = [clip.cast[act.figure] for act in acts]
    watchers = [person for person in clip.cast if person not in actors]
    doing = [verb_phrase(act) for act in acts]
    where = f" {at_place(scene)}"
    if len(acts) == 2:
        together = rng.choice(("and", "while"))
        template = f"{{0}} {doing[0]} {together} {{1}} {doing[1]}{where}."
        return Told(template, tuple(actors))
    if len(watchers) == 1 and rng.random() < 0.6:
        return Told(f"{{0}} {doing[0]}{where} while {{1}} watches.", (actors[0], watchers[0]))
    pleased = ""
    if rng.random() < 0.4:
        pleased = f", pleased with {'her' if actors[0].is_female else 'him'}self"
    return Told(f"{{0}} {doing[0]}{where}{pleased}.", (actors[0],))


def _annotation(clip: StoryClip, sentence: str) -> str:
    start, end = clock(clip.start_s), clock(clip.start_s + clip.scene.duration_s)
    return "\t".join((clip.name, start, end, start, end, sentence))


def _person_id(movie: Movie, person: Character) -> str:
    number = movie.characters.index(person) + 1
    return f"[{movie.name.split('_')[0]}_PERSON{number}]"


def _names_files(seed: int, movies: Sequence[Movie]) -> dict[str, str]:
    names: dict[str, dict[str, dict[str, dict[str, Tracks]]]] = {}
    mentions, characters = [], []
    splits: dict[str, list[str]] = {split: [] for split in LSMDC_SPLITS}
    for movie in movies:
        videos: dict[str, dict[str, Tracks]] = {}
        for number, clip in enumerate(clip for story in movie.stories for clip in story):
            videos[f"DVS{number}"] = clip_tracks(clip)
            said = tell(clip, generator(seed, "story", clip.name))
            sentence = said.with_names(lambda person: f"<PERSON>{person.name}</PERSON>")
            values = (movie.name, f"DVS{number}", clip.name, sentence)
            mentions.append(dict(zip(MENTION_COLUMNS, values, strict=True)))
            splits[movie.split].append(f"{movie.name}_DVS{number}")
        names[movie.name] = {
            "characters": {
                person.name: {
                    clip: tracks[person.name]
                    for clip, tracks in videos.items()
                    if person.name in tracks
                }
                for person in movie.characters
            },
            "videos": videos,
        }
        for person in movie.characters:
            seen = look(Figure(person.shape, person.color, person.pattern, 1.0, 0.0))
            values = (movie.name, person.name, "F" if person.is_female else "M", seen)
            characters.append(dict(zip(CHARACTER_COLUMNS, values, strict=True)))
    return {f"mvad_names/{split}.txt": _lines(clips) for split, clips in splits.items()} | {
        "mvad_names/mvad-names.json": json.dumps(names, separators=(",", ":")) + "\n",
        "mvad_names/captions.csv": table_text(MENTION_COLUMNS, mentions),
        "mvad_names/characters.csv": table_text(CHARACTER_COLUMNS, characters),
    }


def _box_files(movies: Sequence[Movie]) -> dict[str, str]:
    """Where somebody is in each frame, without telling who: what a detector would find."""
    files = {}
    for clip in (clip for movie in movies for story in movie.stories for clip in story):
        found = sorted(
            box for tracks in clip_tracks(clip).values() for track in tracks for box in track
        )
        given = {
            "boxes": [place for _, *place in found],
            "labels": [0] * len(found),
            "frames": [frame for frame, *_ in found],
        }
        files[f"boxes/{clip.name}.json"] = json.dumps(given, separators=(",", ":")) + "\n"
    return files


def clip_tracks(clip: StoryClip) -> dict[str, Tracks]:
    """The tracks of everybody in a clip; a track ends where a figure cannot be seen."""
    found: dict[str, Tracks] = {}
    for figure, person in enumerate(clip.cast):
        tracks: Tracks = [[]]
        for frame in range(round(clip.scene.duration_s * STORY_FPS)):
            at = box(clip.scene, figure, (frame + 0.5) / STORY_FPS, *VIDEO_SIZE)
            if at is not None:
                tracks[-1].append([frame, *at])
            elif tracks[-1]:
                tracks.append([])
        found[person.name] = [track for track in tracks if track]
    return found


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\r\n" for line in lines)
