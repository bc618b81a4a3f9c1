"""The questions of the demo dataset about its GIFs, in the wording and the tables of TGIF-QA."""

import csv
import io
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence

from vlpipe.stores.datasets._demo_language import (
    NUMBERS,
    VERBS,
    at_place,
    description,
    look,
)
from vlpipe.stores.datasets._demo_scene import ACTIONS
from vlpipe.stores.datasets._demo_script import GifClip, generator
from vlpipe.stores.datasets._questions import COLUMNS, FRAME_KINDS, MAX_COUNT, TASKS

_ID_PREFIXES = {
    "count": "COUNT",
    "action": "ACTION",
    "transition": "TRANS",
    "frameqa": "FRAMEQA",
}
# Share of the repeating GIFs about which something is asked that does not happen in them.
_ZERO_SHARE = 0.1
# Each is asked with wrong choices of its own, so that what is learnt is not one set of five.
_ACTION_WORDINGS = (
    "What does the {name} do {often} times ?",
    "Which action does the {name} do {often} times ?",
)
_TRANSITION_WORDINGS = (
    "What does the {name} do {word} {told} ?",
    "Which action does the {name} do right {word} {told} ?",
)
_OBJECT, _NUMBER, _COLOR, _LOCATION = range(len(FRAME_KINDS))

Fields = dict[str, str]


def question_tables(seed: int, clips: Sequence[GifClip]) -> dict[str, str]:
    """The twelve tables of TGIF-QA, complete: file name -> text."""
    rng = generator(seed, "questions")
    keys = rng.sample(range(1, len(clips) + 1), len(clips))
    key_of = {clip.name: key for clip, key in zip(clips, keys, strict=True)}
    tables = {}
    for task in TASKS:
        asked = [
            (clip, fields)
            for clip in clips
            for fields in _ASK[task](clip, generator(seed, "questions", task, clip.name))
        ]
        rng.shuffle(asked)
        rows: dict[str, list[Fields]] = {"Train": [], "Test": [], "Total": []}
        for number, (clip, fields) in enumerate(asked, start=1):
            row = {
                **fields,
                "gif_name": clip.name,
                "vid_id": f"{_ID_PREFIXES[task]}{number}",
                "key": str(key_of[clip.name]),
            }
            rows["Total"].append(row)
            rows[clip.split.capitalize()].append(row)
        for prefix, of_split in rows.items():
            tables[f"{prefix}_{task}_question.csv"] = table_text(COLUMNS[task], of_split)
    return tables


def table_text(columns: Sequence[str], rows: Iterable[Fields], *, delimiter: str = "\t") -> str:
    """A table with a header, quoted where needed, with the CRLF line ends of the publishers."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, delimiter=delimiter, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _ask_count(clip: GifClip, rng: random.Random) -> Iterator[Fields]:
    scene = clip.scene
    done = {act.action for act in scene.acts}
    if clip.kind == "repeat":
        for act in scene.acts:
            yield _how_many_times(look(scene.figures[act.figure]), act.action, act.times)
    if clip.kind == "still" or (clip.kind == "repeat" and rng.random() < _ZERO_SHARE):
        absent = rng.choice([action for action in ACTIONS if action not in done])
        yield _how_many_times(look(rng.choice(scene.figures)), absent, 0)


def _how_many_times(name: str, action: str, times: int) -> Fields:
    return {
        "question": f"How many times does the {name} {action} ?",
        "answer": str(min(times, MAX_COUNT)),
    }


def _ask_action(clip: GifClip, rng: random.Random) -> Iterator[Fields]:
    if clip.kind != "repeat":
        return
    for act in clip.scene.acts:
        name = look(clip.scene.figures[act.figure])
        often = "10 or more than 10" if act.times >= MAX_COUNT else str(act.times)
        others = [action for action in ACTIONS if action != act.action]
        for wording in _ACTION_WORDINGS:
            yield {
                "question": wording.format(name=name, often=often),
                **_choices(rng, act.action, others),
            }


def _ask_transition(clip: GifClip, rng: random.Random) -> Iterator[Fields]:
    if clip.kind != "sequence":
        return
    acts = sorted(clip.scene.acts, key=lambda act: act.start_s)
    name = look(clip.scene.figures[acts[0].figure])
    for before, after in itertools.pairwise(acts):
        # What else the figure does is always among the choices: telling which actions occur in the
        # clip is not enough to be right.
        rest = {act.action for act in acts} - {before.action, after.action}
        others = [action for action in ACTIONS if action not in (before.action, after.action)]
        for word, told, answer in (
            ("after", before.action, after.action),
            ("before", after.action, before.action),
        ):
            for wording in _TRANSITION_WORDINGS:
                yield {
                    "question": wording.format(name=name, word=word, told=told),
                    **_choices(rng, answer, others, always=sorted(rest)),
                }


def _choices(
    rng: random.Random, answer: str, others: Sequence[str], *, always: Sequence[str] = ()
) -> Fields:
    """Five choices in random order: the answer, those always there, and some of the others."""
    free = [action for action in others if action not in always]
    choices = [answer, *always, *rng.sample(free, 4 - len(always))]
    rng.shuffle(choices)
    fields = {f"a{place}": choice for place, choice in enumerate(choices, start=1)}
    return {**fields, "answer": str(choices.index(answer))}


def _ask_frame(clip: GifClip, rng: random.Random) -> Iterator[Fields]:
    scene = clip.scene
    number = rng.randrange(len(scene.figures))
    figure = scene.figures[number]
    acts = scene.acts_of(number)
    doing = VERBS[acts[0].action].progressive if acts else "standing still"
    asked = {
        _OBJECT: (f"what is the {figure.color} figure that is {doing} ?", figure.shape),
        _NUMBER: (f"how many figures are {at_place(scene)} ?", NUMBERS[len(scene.figures)]),
        _COLOR: (f"what is the color of the {figure.shape} ?", figure.color),
        _LOCATION: (f"where is the {look(figure)} {doing} ?", scene.place),
    }
    for kind in (_NUMBER, _COLOR, rng.choice((_OBJECT, _LOCATION))):
        question, answer = asked[kind]
        yield {
            "question": question,
            "answer": answer,
            "type": str(kind),
            "description": description(scene),
        }


_ASK = {
    "count": _ask_count,
    "action": _ask_action,
    "transition": _ask_transition,
    "frameqa": _ask_frame,
}
