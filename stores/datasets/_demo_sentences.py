"""Captions of the demo dataset: ActivityNet Captions JSON, and the tables of JSFusion."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlpipe.stores.datasets._captions import (
    BLANK_COLUMNS,
    CAPTION_COLUMNS,
    CHOICE_COLUMNS,
    PAIR_COLUMNS,
)
from vlpipe.stores.datasets._demo_language import (
    NUMBERS,
    VERBS,
    at_place,
    caption,
    indefinite,
    look,
    verb_phrase,
)
from vlpipe.stores.datasets._demo_questions import table_text
from vlpipe.stores.datasets._demo_scene import COLORS, PATTERNS, PLACES, SHAPES, Act, Scene
from vlpipe.stores.datasets._demo_script import VideoClip, generator

# Words that can be left out of a sentence: looks, actions, numbers and places.
_CONTENT_WORDS = {
    *COLORS,
    *SHAPES,
    *PATTERNS,
    *PLACES,
    *NUMBERS,
    *("once", "twice", "left", "right"),
    *(word for verb in VERBS.values() for word in f"{verb.present} {verb.synonym}".split()),
} - {"around"}
BLANK = "_____"
NUM_CHOICES = 5
_SENTENCES = {"train": 2, "test": 1}  # of each clip


@dataclass(frozen=True, slots=True)
class Described:
    """Any clip of the dataset, for the tables that cover all of them."""

    video_id: str
    split: str
    scene: Scene


def dense_caption_files(seed: int, clips: Sequence[VideoClip]) -> dict[str, str]:
    """train.json, and two annotations of the validation videos by different annotators."""
    files: dict[str, dict[str, Any]] = {"train.json": {}, "val_1.json": {}, "val_2.json": {}}
    for clip in clips:
        annotators = ("train",) if clip.split == "train" else ("val_1", "val_2")
        for annotator in annotators:
            rng = generator(seed, "captions", annotator, clip.name)
            files[f"{annotator}.json"][clip.name] = _dense(clip.scene, rng)
    return {
        name: json.dumps(videos, ensure_ascii=True, indent=1) + "\n"
        for name, videos in files.items()
    }


def _dense(scene: Scene, rng: random.Random) -> dict[str, Any]:
    """One annotator's events: edges are told to a tenth of a second or two, words vary."""
    timestamps: list[list[float]] = []
    sentences: list[str] = []
    for act in sorted(scene.acts, key=lambda act: act.start_s):
        start_s, end_s = scene.event_s(act)
        start_s = max(0.0, start_s - abs(rng.gauss(0, 0.08)))
        end_s = min(scene.duration_s, end_s + abs(rng.gauss(0, 0.08)))
        timestamps.append([round(start_s, 2), round(end_s, 2)])
        sentence = _event_sentence(scene, act, rng)
        # In the published files all sentences but the first start with a space.
        sentences.append(f" {sentence}" if sentences else sentence)
    return {"duration": scene.duration_s, "timestamps": timestamps, "sentences": sentences}


def _event_sentence(scene: Scene, act: Act, rng: random.Random) -> str:
    who = indefinite(look(scene.figures[act.figure]))
    where = f" {at_place(scene)}" if rng.random() < 0.5 else ""
    sentence = f"{who} {verb_phrase(act, rng)}{where}."
    return sentence[0].upper() + sentence[1:]


def retrieval_tables(seed: int, clips: Sequence[Described]) -> dict[str, str]:
    """The tables of JSFusion over all clips; those not for training are the test set."""
    rng = generator(seed, "retrieval")
    numbers = rng.sample(range(len(clips)), len(clips))
    # split -> sentence -> row: within a split no sentence tells about two clips
    told: dict[str, dict[str, dict[str, str]]] = {"train": {}, "test": {}}
    for clip, number in zip(clips, numbers, strict=True):
        split = "train" if clip.split == "train" else "test"
        wording = generator(seed, "retrieval", clip.video_id)
        for _ in range(_SENTENCES[split]):
            sentence = caption(clip.scene, wording)
            row = {"vid_key": f"msr{number}", "video_id": clip.video_id, "sentence": sentence}
            told[split].setdefault(sentence, row)
    files: dict[str, str] = {}
    for split, rows in told.items():
        # A test set of fewer than five sentences takes its wrong choices from training.
        offered = list(rows if len(rows) >= NUM_CHOICES else told["train"] | rows)
        files |= _tables_of_split(split, rng, list(rows.values()), offered)
    return files


def _tables_of_split(
    split: str, rng: random.Random, rows: list[dict[str, str]], sentences: list[str]
) -> dict[str, str]:
    pairs, captions, choices, blanks = [], [], [], []
    for number, row in enumerate(rows):
        told = {"vid_key": row["vid_key"]}
        sentence = row["sentence"]
        pairs.append({"key": f"ret{number}", **row})
        captions.append({"key": f"CAP{number}", **told, "description": sentence})
        others = rng.sample([other for other in sentences if other != sentence], NUM_CHOICES - 1)
        offered = rng.sample([sentence, *others], NUM_CHOICES)
        fields = {f"a{place}": text for place, text in enumerate(offered, start=1)}
        answer = str(offered.index(sentence))
        choices.append({"key": f"MC{number}", **told, **fields, "answer": answer})
        words = sentence.split(" ")
        gap = rng.choice([place for place, word in enumerate(words) if word in _CONTENT_WORDS])
        blank = " ".join([*words[:gap], BLANK, *words[gap + 1 :]])
        filled = {"sentence": sentence, "blank_sentence": blank, "answer": words[gap]}
        blanks.append({"key": f"FIB{number}", **told, **filled})
    return {
        f"MSRVTT_JSFUSION_{split}.csv": table_text(PAIR_COLUMNS, pairs, delimiter=","),
        f"MSR_CAP_{split}.csv": table_text(CAPTION_COLUMNS, captions),
        f"MSR_MC_{split}.csv": table_text(CHOICE_COLUMNS, choices),
        f"MSR_FIB_{split}.csv": table_text(BLANK_COLUMNS, blanks),
    }
