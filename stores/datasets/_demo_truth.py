"""What really happens in a clip of the demo dataset, and what a sentence says of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlpipe.stores.datasets._demo_language import VERBS
from vlpipe.stores.datasets._demo_scene import COLORS, SHAPES, Act, Figure, Scene


@dataclass(frozen=True, slots=True)
class Happening:
    """Somebody does something from start_s to end_s, the time before and after it included in
    which he is there alone."""

    start_s: float
    end_s: float
    color: str
    shape: str
    action: str


@dataclass(frozen=True, slots=True)
class Said:
    """What a sentence names: each the only one of its kind in it, or None."""

    color: str | None
    shape: str | None
    action: str | None


def happenings_of(scene: Mapping[str, Any]) -> list[Happening]:
    """The acts of an entry of scenes.json in the order of time."""
    figures = tuple(Figure(**figure) for figure in scene["figures"])
    acts = tuple(Act(**act) for act in scene["acts"])
    shown = Scene(
        scene["place"], figures, acts, scene["duration_s"], scene["decor_seed"], scene["margin_s"]
    )
    found = [
        Happening(
            *shown.event_s(act), figures[act.figure].color, figures[act.figure].shape, act.action
        )
        for act in acts
    ]
    return sorted(found, key=lambda happening: happening.start_s)


def said_in(sentence: str) -> Said:
    """The colour, the shape and the action that the sentence names, in any wording of the demo."""
    words = f" {' '.join(sentence.lower().replace('.', ' ').split())} "
    actions = {
        action
        for action, verb in VERBS.items()
        if any(f" {phrase} " in words for phrase in (verb.present, verb.synonym))
    }
    colors = {color for color in COLORS if f" {color} " in words}
    shapes = {shape for shape in SHAPES if f" {shape} " in words}
    return Said(_only(colors), _only(shapes), _only(actions))


def _only(found: set[str]) -> str | None:
    return next(iter(found)) if len(found) == 1 else None
