"""Makes up the movies of the demo dataset: stories of five clips about the same figures."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from vlpipe.stores.datasets._demo_scene import (
    ACTIONS,
    COLORS,
    PATTERNS,
    PLACES,
    SHAPES,
    Act,
    Figure,
    Scene,
)
from vlpipe.stores.datasets._demo_script import HEIGHTS, HOMES, generator
from vlpipe.stores.datasets._stories import CLIPS_OF_STORY

STORY_FPS = 15

STORIES_OF_MOVIE = 4

_MOVIE_WORDS = ("QUIET", "SECOND", "LAST", "LONG", "BRIGHT", "HIDDEN", "NARROW", "OPEN")
_MOVIE_THINGS = ("SUMMER", "JOURNEY", "LETTER", "WINDOW", "GARDEN", "BRIDGE", "HARBOR", "WINTER")
_NAMES = {
    True: ("ADA", "BEA", "CORA", "DORA", "ELLA", "FAY", "GRETA", "HEDY"),
    False: ("ABEL", "BORIS", "CARL", "DAN", "EMIL", "FELIX", "GUS", "HUGO"),
}


@dataclass(frozen=True, slots=True)
class Character:
    """Somebody who appears in several clips of a movie, always with the same look."""

    name: str
    is_female: bool
    shape: str
    color: str
    pattern: str


@dataclass(frozen=True, slots=True)
class StoryClip:
    """One of five consecutive clips of a story; cast[i] is the character that figure i is."""

    name: str
    start_s: float
    scene: Scene
    cast: tuple[Character, ...]


@dataclass(frozen=True, slots=True)
class Movie:
    """Stories that share a cast; a movie is in one split as a whole."""

    name: str
    split: str
    characters: tuple[Character, ...]
    stories: tuple[tuple[StoryClip, ...], ...]


def movies(seed: int, num_stories: int) -> list[Movie]:
    """Movies with up to four stories each; from three stories on every split has one."""
    held_out = max(1, num_stories // 6) if num_stories >= 3 else 0
    of_split = {"train": num_stories - 2 * held_out, "val": held_out, "test": held_out}
    made: list[Movie] = []
    for split, num in of_split.items():
        for first in range(0, num, STORIES_OF_MOVIE):
            number = len(made) + 1
            rng = generator(seed, "movie", number)
            made.append(_movie(rng, number, split, min(STORIES_OF_MOVIE, num - first)))
    return made


def _movie(rng: random.Random, number: int, split: str, num_stories: int) -> Movie:
    title = f"{9000 + number}_THE_{rng.choice(_MOVIE_WORDS)}_{rng.choice(_MOVIE_THINGS)}"
    characters = _characters(rng)
    clock_s = rng.uniform(60, 600)
    stories = []
    for _ in range(num_stories):
        clips = []
        cast = rng.sample(characters, rng.randint(2, 3))
        for _ in range(CLIPS_OF_STORY):
            duration_s = rng.randint(36, 60) / STORY_FPS
            present = rng.sample(cast, rng.randint(1, len(cast)))
            times = f"{clock(clock_s)}-{clock(clock_s + duration_s)}"
            scene = _story_scene(rng, present, duration_s)
            clips.append(StoryClip(f"{title}_{times}", clock_s, scene, tuple(present)))
            clock_s += duration_s + rng.uniform(0.5, 4.0)
        stories.append(tuple(clips))
        clock_s += rng.uniform(60, 300)
    return Movie(title, split, tuple(characters), tuple(stories))


def _characters(rng: random.Random) -> list[Character]:
    """Four characters; two share a shape and two a colour, so that neither tells them apart."""
    shapes = rng.sample(tuple(SHAPES), 3)
    colors = rng.sample(tuple(COLORS), 3)
    looks = [(0, 0), (0, 1), (1, 1), (2, 2)]
    characters: list[Character] = []
    for shape, color in looks:
        is_female = rng.random() < 0.5
        taken = {character.name for character in characters}
        name = rng.choice([name for name in _NAMES[is_female] if name not in taken])
        pattern = rng.choice(PATTERNS)
        characters.append(Character(name, is_female, shapes[shape], colors[color], pattern))
    return characters


def _story_scene(rng: random.Random, present: Sequence[Character], duration_s: float) -> Scene:
    """One or two of those present act at the same time; the others watch."""
    num = len(present)
    figures = tuple(
        Figure(
            someone.shape,
            someone.color,
            someone.pattern,
            rng.uniform(*HEIGHTS[num - 1]),
            home + rng.uniform(-0.03, 0.03),
        )
        for someone, home in zip(present, HOMES[num - 1], strict=True)
    )
    num_acting = rng.randint(1, min(2, num))
    acts = []
    for figure, action in zip(
        rng.sample(range(num), num_acting), rng.sample(ACTIONS, num_acting), strict=True
    ):
        period_s = rng.uniform(0.5, 0.7)
        times = rng.randint(1, 3)
        start_s = rng.uniform(0.05, duration_s - times * period_s - 0.05)
        active_s = period_s * rng.uniform(0.65, 0.8)
        acts.append(Act(figure, action, times, start_s, period_s, active_s))
    return Scene(rng.choice(tuple(PLACES)), figures, tuple(acts), duration_s, rng.getrandbits(32))


def clock(seconds: float) -> str:
    """The time of day form of LSMDC: hh.mm.ss.mmm."""
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}.{minutes:02}.{rest // 1000:02}.{rest % 1000:03}"
