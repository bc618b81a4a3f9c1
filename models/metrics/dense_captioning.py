"""The evaluation of the ActivityNet dense-captioning challenge in its form since 2018.

For each tIoU 0.3, 0.5, 0.7, 0.9:

captions    every pair of a prediction and a reference event that overlap that much is an item; a
            prediction without a partner is paired with a word that nobody says. Figures are taken
            over the items of each video, then averaged over all videos of the references; a video
            without predictions has 0. CIDEr's rarities of words are those of one video.
detection   recall: events that some prediction hits; precision: predictions that hit some event;
            both the best over the sets of references, and a mean over videos. Here the overlap
            must be greater, not equal.

Sources: ranjaykrishna/densevid_eval after its fixes of April 2018, and v-iashin/BMT.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.models.metrics.captioning import (
    BLEU_NAMES,
    CIDER,
    ROUGE_L,
    MeteorKind,
    Tokeniser,
    caption_scores,
    tokenised,
)
from vlpipe.stores.datasets import DenseCaptions
from vlpipe.stores.errors import UsageError

TIOUS = (0.3, 0.5, 0.7, 0.9)
PRECISION, RECALL, F1 = "precision", "recall", "f1"
_NOBODY_SAYS = "zqxjkvwzqxjkvw"
_SUBMISSION_KEYS = ("version", "external_data", "results")

References = Mapping[str, DenseCaptions]
"""Events by video; one annotator's."""


@dataclass(frozen=True, slots=True)
class EventCaption:
    """A predicted event: start and end in seconds, and what is said of it."""

    start_s: float
    end_s: float
    sentence: str = ""


Predictions = Mapping[str, Sequence[EventCaption]]
"""Predicted events by video, the most confident first."""


def evaluate_captions(
    predictions: Predictions,
    references: Sequence[References],
    *,
    tious: Sequence[float] = TIOUS,
    most: int | None = 1000,
    meteor: MeteorKind | None = None,
    tokeniser: Tokeniser = "penn",
) -> dict[str, float]:
    """BLEU-1 to 4, ROUGE-L, CIDEr and, if given, METEOR, times 100: means over the tIoUs by name,
    and those of each as `name/tiou_0.5`.

    most: so many predictions of a video count, the first ones; None: all. For captions of the
    references' own events the custom is `tious=(0.5,)` and one set of references at a time.
    """
    videos = _videos(references)
    kept = {video: list(predictions.get(video, ()))[:most] for video in videos}
    said = (event.sentence for events in kept.values() for event in events)
    told = (text for annotator in references for of in annotator.values() for text in of.sentences)
    texts = list(dict.fromkeys(chain(said, told)))
    tokens = dict(zip(texts, tokenised([ascii_only(t) for t in texts], tokeniser), strict=True))
    names = (*BLEU_NAMES, ROUGE_L, CIDER, *((meteor.name,) if meteor is not None else ()))
    figures: dict[str, float] = {}
    for tiou in tious:
        totals = np.zeros(len(names))
        for video in videos:
            pairs = list(_pairs(kept[video], _events(references, video), tiou))
            if not pairs:
                continue
            found = caption_scores(
                [tokens[mine] for mine, _ in pairs],
                [[_NOBODY_SAYS if its is None else tokens[its]] for _, its in pairs],
                meteor=meteor,
            )
            totals += [found.whole[name] for name in names]
        figures |= {
            f"{name}/tiou_{tiou:g}": 100 * float(total) / len(videos)
            for name, total in zip(names, totals, strict=True)
        }
    means = {n: float(np.mean([figures[f"{n}/tiou_{t:g}"] for t in tious])) for n in names}
    return means | figures


def evaluate_detection(
    predictions: Predictions,
    references: Sequence[References],
    *,
    tious: Sequence[float] = TIOUS,
    most: int | None = 1000,
) -> dict[str, float]:
    """Precision and recall, times 100: means over the tIoUs by name, those of each as
    `recall/tiou_0.5`, and `f1` of the two means."""
    videos = _videos(references)
    figures: dict[str, float] = {}
    of_videos = [
        [overlaps(list(predictions.get(video, ()))[:most], of) for of in _events(references, video)]
        for video in videos
    ]
    for tiou in tious:
        precision, recall = 0.0, 0.0
        for of_sets in of_videos:
            hits = [overlap > tiou for overlap in of_sets if overlap.size]
            precision += max((float(hit.any(axis=1).mean()) for hit in hits), default=0.0)
            recall += max((float(hit.any(axis=0).mean()) for hit in hits), default=0.0)
        figures[f"{PRECISION}/tiou_{tiou:g}"] = 100 * precision / len(videos)
        figures[f"{RECALL}/tiou_{tiou:g}"] = 100 * recall / len(videos)
    means = {
        name: float(np.mean([figures[f"{name}/tiou_{tiou:g}"] for tiou in tious]))
        for name in (PRECISION, RECALL)
    }
    total = means[PRECISION] + means[RECALL]
    f1 = 2 * means[PRECISION] * means[RECALL] / total if total else 0.0
    return means | {F1: f1} | figures


def read_submission(path: Path) -> dict[str, list[EventCaption]]:
    """The predictions of a file in the challenge's form.

    Raises UsageError when it lacks one of the keys version, external_data and results, or holds
    an entry without sentence and timestamp.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the submission {path} cannot be read: {error}") from error
    missing = [k for k in _SUBMISSION_KEYS if not isinstance(found, dict) or k not in found]
    if missing:
        raise UsageError(
            f"the submission {path} lacks {', '.join(missing)}; expected {_SUBMISSION_KEYS}"
        )
    try:
        return {
            str(video): [_event(entry) for entry in entries]
            for video, entries in found["results"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"the submission {path}: {type(error).__name__}: {error}; expected results as "
            '{video: [{"sentence": ..., "timestamp": [start, end]}]}'
        ) from error


def _event(entry: Mapping[str, Any]) -> EventCaption:
    start_s, end_s = map(float, entry["timestamp"])
    return EventCaption(start_s, end_s, str(entry["sentence"]))


def submission(predictions: Predictions) -> dict[str, Any]:
    """The same in the challenge's form, to be written as JSON."""
    return {
        "version": "VERSION 1.0",
        "external_data": {"used": True, "details": ""},
        "results": {
            video: [{"sentence": e.sentence, "timestamp": [e.start_s, e.end_s]} for e in events]
            for video, events in predictions.items()
        },
    }


def _videos(references: Sequence[References]) -> list[str]:
    videos = list(dict.fromkeys(chain.from_iterable(references)))
    if not videos:
        raise ValueError("there are no references")
    return videos


def _events(references: Sequence[References], video: str) -> list[DenseCaptions]:
    return [annotator[video] for annotator in references if video in annotator]


def _pairs(
    predictions: Sequence[EventCaption], references: Sequence[DenseCaptions], tiou: float
) -> Iterator[tuple[str, str | None]]:
    """(sentence of a prediction, that of an event that it meets, or None if it meets none)."""
    meets = [overlaps(predictions, of) >= tiou for of in references]
    for place, prediction in enumerate(predictions):
        partners = [
            of.sentences[event]
            for of, met in zip(references, meets, strict=True)
            for event in np.flatnonzero(met[place])
        ]
        if not partners:
            yield prediction.sentence, None
        for partner in partners:
            yield prediction.sentence, partner


def overlaps(
    predictions: Sequence[EventCaption], reference: DenseCaptions
) -> npt.NDArray[np.float64]:
    """(predictions, events) tIoU, with the small constant that makes an exact half a miss."""
    mine = np.array([(p.start_s, p.end_s) for p in predictions]).reshape(-1, 1, 2)
    its = np.array(reference.spans).reshape(1, -1, 2)
    starts, ends = (mine[..., 0], its[..., 0]), (mine[..., 1], its[..., 1])
    overlap = np.maximum(0, np.minimum(*ends) - np.maximum(*starts))
    hull = np.maximum(*ends) - np.minimum(*starts)
    lengths = (ends[0] - starts[0]) + (ends[1] - starts[1])
    found: npt.NDArray[np.float64] = overlap / (np.minimum(hull, lengths) + 1e-8)
    return found


def ascii_only(text: str) -> str:
    """The text with a blank for every other letter."""
    return "".join(letter if letter.isascii() else " " for letter in text)
