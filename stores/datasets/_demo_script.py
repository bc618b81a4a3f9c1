"""Makes up the scenes of the demo dataset: which figures do what, how often, and in which files.

Everything is drawn from generators seeded by the dataset's seed and the place of the clip, so that
the same parameters give the same scenes. Names, lengths and sizes of clips are drawn without regard
to what happens in them: an answer can be seen and heard, and cannot be read off a file.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from vlpipe.stores.datasets._demo_scene import (
    ACTIONS,
    COLORS,
    PLACES,
    SHAPES,
    Act,
    Figure,
    Scene,
)

_Item = TypeVar("_Item")

COUNTS = tuple(range(2, 11))
GIF_SIZES = ((96, 72), (112, 84), (128, 96))
VIDEO_SIZE = (160, 120)
VIDEO_FPS = (8, 10, 12)

_NAME_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
HEIGHTS = ((0.42, 0.48), (0.34, 0.42), (0.29, 0.34))  # for one, two and three figures
HOMES = ((0.5,), (0.27, 0.73), (0.18, 0.5, 0.82))
# Of those that take turns, none is easily taken for another.
TURN_SHAPES = tuple(shape for shape in SHAPES if shape not in ("square", "cross"))
TURN_COLORS = tuple(color for color in COLORS if color != "orange")
TURN_HEIGHTS = (0.5, 0.56)  # of figures that take turns
TURN_MARGIN_S = 0.3  # that they are there before and after what they do


@dataclass(frozen=True, slots=True)
class GifClip:
    """A GIF. kind: "repeat" (counts), "sequence" (transitions) or "still" (only the fly moves)."""

    name: str
    kind: str
    split: str
    scene: Scene
    size: tuple[int, int]
    delays_cs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VideoClip:
    """An MP4 with several events; sound_s is the part that has sound, None: no sound track."""

    name: str
    split: str
    scene: Scene
    fps: int
    sound_s: tuple[float, float] | None


def generator(seed: int, *parts: object) -> random.Random:
    """A generator for one part of the dataset; independent of how many other parts there are."""
    return random.Random(":".join(str(part) for part in (seed, *parts)))


def unique_names(rng: random.Random, num: int, length: int) -> list[str]:
    """Names that say nothing: random letters and digits."""
    names: dict[str, None] = {}
    while len(names) < num:
        names["".join(rng.choices(_NAME_LETTERS, k=length))] = None
    return list(names)


def gif_clips(seed: int, num: int) -> list[GifClip]:
    """GIFs, a quarter of each kind for testing."""
    rng = generator(seed, "gifs")
    names = unique_names(rng, num, 12)
    num_still = max(1, num // 10)
    num_sequence = num * 2 // 5
    kinds = {
        "repeat": num - num_sequence - num_still,
        "sequence": num_sequence,
        "still": num_still,
    }
    clips = []
    for kind, num_of_kind in kinds.items():
        splits = ["test" if place % 4 == 1 else "train" for place in range(num_of_kind)]
        for split in ("train", "test"):
            # Every count and every action equally often in each split, or nearly.
            num_of_split = splits.count(split)
            counts = _in_rounds(rng, COUNTS, num_of_split)
            actions = _in_rounds(rng, ACTIONS, num_of_split)
            for count, action in zip(counts, actions, strict=True):
                name = f"demo_{names.pop()}"
                one = generator(seed, "gif", name)
                clips.append(_gif_clip(one, name, kind, split, count, action))
    return _shuffled(rng, clips)


def video_clips(seed: int, num: int) -> list[VideoClip]:
    """Videos with five to seven events each, a quarter for validation."""
    rng = generator(seed, "videos")
    names = unique_names(rng, num, 11)
    clips = []
    for place, name in enumerate(names):
        one = generator(seed, "video", name)
        scene = _event_scene(one, one.randint(5, 7))
        sound_s: tuple[float, float] | None = (0.0, scene.duration_s)
        if place % 12 == 2:
            sound_s = None
        elif place % 12 == 6:  # sound sets in late and stops early
            sound_s = (round(0.2 * scene.duration_s, 2), round(0.7 * scene.duration_s, 2))
        split = "val" if place % 4 == 1 else "train"
        clips.append(VideoClip(f"v_{name}", split, scene, one.choice(VIDEO_FPS), sound_s))
    return clips


def _gif_clip(
    rng: random.Random, name: str, kind: str, split: str, count: int, action: str
) -> GifClip:
    """count, action: how often the first act of a repeating clip happens, and what it is."""
    figures = different_figures(rng, rng.choices((1, 2, 3), weights=(8, 7, 5))[0])
    # As many frames for no and for two repetitions as for ten: length says nothing about the count.
    num_frames = rng.randint(20, 60) if kind == "sequence" else rng.randint(52, 60)
    base_cs = rng.randint(6, 15)
    while True:  # until every repetition and every rest shows in the frames
        delays_cs = tuple(base_cs + rng.choice((-1, 0, 0, 0, 1)) for _ in range(num_frames))
        duration_s = sum(delays_cs) / 100
        frame_s = duration_s / num_frames
        acts: list[Act] = []
        if kind == "repeat":
            acts = _repetitions(rng, len(figures), count, action, num_frames, frame_s)
        elif kind == "sequence":
            acts = _sequence(rng, len(figures), action, num_frames, frame_s)
        if all(_shows(act, delays_cs) for act in acts):
            break
    place = rng.choice(tuple(PLACES))
    scene = Scene(place, figures, tuple(acts), duration_s, rng.getrandbits(32))
    return GifClip(name, kind, split, scene, rng.choice(GIF_SIZES), delays_cs)


def different_figures(rng: random.Random, num: int) -> tuple[Figure, ...]:
    """Figures that differ in shape and in colour, from left to right."""
    shapes = rng.sample(tuple(SHAPES), num)
    colors = rng.sample(tuple(COLORS), num)
    return tuple(
        Figure(
            shape, color, "plain", rng.uniform(*HEIGHTS[num - 1]), home + rng.uniform(-0.03, 0.03)
        )
        for shape, color, home in zip(shapes, colors, HOMES[num - 1], strict=True)
    )


def _repetitions(
    rng: random.Random,
    num_figures: int,
    count: int,
    action: str,
    num_frames: int,
    frame_s: float,
) -> list[Act]:
    """One figure repeats an action; another one may repeat another action at the same time."""
    num_acting = 2 if num_figures > 1 and rng.random() < 0.2 else 1
    figures = rng.sample(range(num_figures), num_acting)
    actions = _different_actions(rng, action, num_acting)
    counts = [count, rng.choice(COUNTS)][:num_acting]
    acts = []
    for figure, done, times in zip(figures, actions, counts, strict=True):
        longest = min((num_frames - 2) / times, 16.0)
        period = 4.9 * (longest / 4.9) ** rng.random()  # in frames
        start = rng.uniform(1.0, num_frames - 0.8 - period * times)
        active = period * rng.uniform(0.58, 0.72)
        acts.append(Act(figure, done, times, start * frame_s, period * frame_s, active * frame_s))
    return acts


def _sequence(
    rng: random.Random, num_figures: int, action: str, num_frames: int, frame_s: float
) -> list[Act]:
    """One figure does two or three things, one after the other."""
    num_acts = 3 if num_frames >= 34 and rng.random() < 0.5 else 2
    figure = rng.randrange(num_figures)
    share = num_frames / num_acts  # frames for each, its rest included
    acts = []
    for place, done in enumerate(_shuffled(rng, _different_actions(rng, action, num_acts))):
        times = rng.randint(1, min(3, int(share / 6)))
        period = share / times * rng.uniform(0.75, 0.9)
        active = period * rng.uniform(0.6, 0.75)
        start = place * share + rng.uniform(0.5, share - times * period)
        acts.append(Act(figure, done, times, start * frame_s, period * frame_s, active * frame_s))
    return acts


def _shows(act: Act, delays_cs: Sequence[int]) -> bool:
    """True if each repetition has two frames well inside it, and each rest between has one."""
    moments_s, start_cs = [], 0
    for delay_cs in delays_cs:
        moments_s.append((start_cs + delay_cs / 2) / 100)
        start_cs += delay_cs
    for repetition in range(act.times):
        start_s = act.start_s + repetition * act.period_s
        inside = [0.15 < (moment_s - start_s) / act.active_s < 0.85 for moment_s in moments_s]
        rest = [
            start_s + act.active_s <= moment_s < start_s + act.period_s for moment_s in moments_s
        ]
        if sum(inside) < 2 or (repetition < act.times - 1 and not any(rest)):
            return False
    return True


def _event_scene(rng: random.Random, num_events: int) -> Scene:
    """Figures that come one after another: each does one thing and leaves again."""
    shapes, colors = (_in_rounds(rng, of, num_events) for of in (TURN_SHAPES, TURN_COLORS))
    figures = tuple(
        Figure(shape, color, "plain", rng.uniform(*TURN_HEIGHTS), 0.5 + rng.uniform(-0.03, 0.03))
        for shape, color in zip(shapes, colors, strict=True)
    )
    acts, now_s = [], 0.0
    for figure, action in enumerate(_in_rounds(rng, ACTIONS, num_events)):
        period_s, times = rng.uniform(0.55, 0.85), rng.randint(1, 3)
        start_s = now_s + rng.uniform(0.15, 0.45) + TURN_MARGIN_S
        acts.append(
            Act(figure, action, times, start_s, period_s, period_s * rng.uniform(0.65, 0.8))
        )
        now_s = acts[-1].end_s + TURN_MARGIN_S
    duration_s = round(now_s + rng.uniform(0.15, 0.45), 2)
    place = rng.choice(tuple(PLACES))
    return Scene(place, figures, tuple(acts), duration_s, rng.getrandbits(32), TURN_MARGIN_S)


def _different_actions(rng: random.Random, first: str, num: int) -> list[str]:
    return [first, *rng.sample([action for action in ACTIONS if action != first], num - 1)]


def _in_rounds(rng: random.Random, items: Sequence[_Item], num: int) -> list[_Item]:
    """num of the items in shuffled rounds, so that each occurs equally often, or nearly."""
    rounds = [_shuffled(rng, items) for _ in range(-(-num // len(items)))]
    return [item for one_round in rounds for item in one_round][:num]


def _shuffled(rng: random.Random, items: Sequence[_Item]) -> list[_Item]:
    return rng.sample(items, len(items))
