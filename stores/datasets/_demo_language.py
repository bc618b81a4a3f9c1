"""How the demo dataset words what happens in a scene."""

import random
from dataclasses import dataclass

from vlpipe.stores.datasets._demo_scene import PLACES, Act, Figure, Scene

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, slots=True)
class Verb:
    """An action in the forms that sentences need: it jumps, it is jumping, or it hops."""

    present: str
    progressive: str
    synonym: str


VERBS = {
    "jump": Verb("jumps", "jumping", "hops"),
    "spin": Verb("spins", "spinning", "turns around"),
    "bow": Verb("bows", "bowing", "bends"),
    "grow": Verb("grows", "growing", "swells"),
    "vanish": Verb("vanishes", "vanishing", "disappears"),
    "duck": Verb("ducks", "ducking", "crouches"),
    "slide left": Verb("slides left", "sliding left", "moves left"),
    "slide right": Verb("slides right", "sliding right", "moves right"),
}


def look(figure: Figure) -> str:
    """What a figure looks like: "red circle", "striped red circle"."""
    pattern = "" if figure.pattern == "plain" else f"{figure.pattern} "
    return f"{pattern}{figure.color} {figure.shape}"


def indefinite(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def at_place(scene: Scene) -> str:
    """Where a scene takes place: "on the beach"."""
    return f"{PLACES[scene.place]} {scene.place}"


def how_often(times: int) -> str:
    return {1: "once", 2: "twice"}.get(times, f"{NUMBERS[times]} times")


def verb_phrase(act: Act, rng: random.Random | None = None) -> str:
    """What an act is and how often: "jumps three times"; with a generator, maybe a synonym."""
    verb = VERBS[act.action]
    word = verb.synonym if rng is not None and rng.random() < 0.3 else verb.present
    return f"{word} {how_often(act.times)}"


def description(scene: Scene) -> str:
    """One sentence about the looks of a still frame, as in the FrameQA table of TGIF-QA."""
    parts = []
    for number, figure in enumerate(scene.figures):
        acts = scene.acts_of(number)
        verb = VERBS[acts[0].action].present if acts else "stands still"
        parts.append(f"{indefinite(look(figure))} {verb}")
    return f"{' and '.join(parts)} {at_place(scene)} ."


def caption(scene: Scene, rng: random.Random) -> str:
    """One sentence about all that happens, lower case and without a full stop, as in MSR-VTT."""
    if not scene.acts:
        names = " and ".join(indefinite(look(figure)) for figure in scene.figures)
        verb = "stands" if len(scene.figures) == 1 else "stand"
        return f"{names} {verb} still {at_place(scene)}"
    parts = []
    last = None
    for act in sorted(scene.acts, key=lambda act: act.start_s):
        who = "" if act.figure == last else f"{indefinite(look(scene.figures[act.figure]))} "
        parts.append(f"{who}{verb_phrase(act, rng)}")
        last = act.figure
    idle = len(scene.figures) - len({act.figure for act in scene.acts})
    watching = "" if idle == 0 else f" next to {NUMBERS[idle]} other{'s' if idle > 1 else ''}"
    return f"{' and then '.join(parts)} {at_place(scene)}{watching}"
