"""SODA: whether the captions of a video tell its events as one story, each once and in order.

Paper: SODA: Story Oriented Dense Video Captioning Evaluation Framework (Fujita et al., ECCV 2020).
Code: fujiso/SODA. Predictions and events of a video are sorted by their starts and matched one to
one, in order, so that the sum of the pairs' weights is largest. With the score of the matched pairs
S, precision is S / predictions, recall S / events; a video counts with the harmonic mean of both.

    variant  weight of a pair               score of a pair
    a        tIoU, 0 below a threshold      METEOR; mean over the thresholds 0.3, 0.5, 0.7, 0.9
    b        tIoU                           METEOR
    c        tIoU x METEOR                  the same
    d        tIoU                           the same

As in the authors' program, videos without predictions do not count, METEOR takes what an event is
told by as the hypothesis and the prediction as its reference (it weighs the two differently), and
the first prediction and event of a video are a pair of a or b even if they do not overlap.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt

from vlpipe.models.metrics.captioning import MeteorKind, Tokeniser, tokenised
from vlpipe.models.metrics.dense_captioning import (
    PRECISION,
    RECALL,
    TIOUS,
    EventCaption,
    Predictions,
    References,
    ascii_only,
    overlaps,
)
from vlpipe.stores.datasets import DenseCaptions

SodaVariant = Literal["a", "b", "c", "d"]
_METEOR = "meteor"

_Scores = npt.NDArray[np.float64]


def soda_name(variant: SodaVariant, meteor: MeteorKind | None) -> str:
    """The name of the figure: `soda_c`; with another METEOR than the authors', that too."""
    if variant == "d" or meteor is None or meteor.name == _METEOR:
        return f"soda_{variant}"
    return f"soda_{variant}_{meteor.name}"


def evaluate_soda(
    predictions: Predictions,
    references: Sequence[References],
    *,
    variant: SodaVariant = "c",
    meteor: MeteorKind | None = None,
    is_merged: bool = True,
    most: int | None = None,
    tokeniser: Tokeniser = "penn",
) -> dict[str, float]:
    """The F1 by its name (see `soda_name`), and NAME_precision and NAME_recall, all times 100.

    meteor: needed but for variant d. is_merged: the events of all annotators are one story;
    else the annotator counts with whom a video has its best F1. most: so many predictions of a
    video count, the first ones. With no video on both sides the figures are 0.
    """
    if meteor is None and variant != "d":
        raise ValueError(f"variant {variant} needs a METEOR")
    kept = {video: _in_order(list(events)[:most]) for video, events in predictions.items()}
    told = {video: list(_stories(references, video, is_merged=is_merged)) for video in kept}
    videos = [video for video, events in kept.items() if events and told[video]]
    words = _Words([kept[v] for v in videos], [told[v] for v in videos], meteor, tokeniser)
    figures = [
        [_best([_matched(kept[v], of, variant, tiou, words) for of in told[v]]) for v in videos]
        for tiou in (TIOUS if variant == "a" else (0.0,))
    ]  # by threshold and video
    name = soda_name(variant, meteor)
    means = np.mean(figures, axis=(0, 1)) if videos else np.zeros(3)
    named = zip((f"{name}_{PRECISION}", f"{name}_{RECALL}", name), means, strict=True)
    return {key: 100 * float(value) for key, value in named}


class _Words:
    """METEOR of sentences, those that are asked for."""

    def __init__(
        self,
        predicted: Sequence[Sequence[EventCaption]],
        told: Sequence[Sequence[DenseCaptions]],
        meteor: MeteorKind | None,
        tokeniser: Tokeniser,
    ) -> None:
        self._meteor = meteor
        self._tokens: dict[str, str] = {}
        if meteor is not None:
            said = (event.sentence for events in predicted for event in events)
            wanted = (text for of in chain.from_iterable(told) for text in of.sentences)
            texts = list(dict.fromkeys(chain(said, wanted)))
            found = tokenised([ascii_only(text) for text in texts], tokeniser)
            self._tokens = dict(zip(texts, found, strict=True))

    def scores(
        self, events: Sequence[EventCaption], of: DenseCaptions, wanted: npt.NDArray[np.bool_]
    ) -> _Scores:
        """(told, predicted) METEOR of the wanted pairs, 0 of all others."""
        scores, places = np.zeros(wanted.shape), np.argwhere(wanted)
        if self._meteor is None or not len(places):
            return scores
        statistics = [
            self._meteor.statistics(
                self._tokens[of.sentences[its]], [self._tokens[events[mine].sentence]]
            )
            for its, mine in places.tolist()
        ]
        scores[tuple(places.T)] = self._meteor.score(statistics)[1]
        return scores


def _matched(
    events: Sequence[EventCaption], of: DenseCaptions, variant: SodaVariant, tiou: float,
    words: _Words,
) -> tuple[float, float, float]:  # fmt: skip
    """Precision, recall and F1 of one video, 0 to 1."""
    overlap = overlaps(events, of).T  # (told, predicted)
    overlap[overlap < tiou] = 0
    if variant in ("c", "d"):
        scores = words.scores(events, of, overlap > 0) if variant == "c" else 1.0
        total = best_in_order(overlap * scores)[0]
    else:
        pairs = np.zeros(overlap.shape, np.bool_)
        pairs[tuple(zip(*best_in_order(overlap)[1], strict=True))] = True
        total = float(words.scores(events, of, pairs).sum())
    precision, recall = total / len(events), total / len(of.spans)
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0.0


def best_in_order(weights: _Scores) -> tuple[float, list[tuple[int, int]]]:
    """The largest sum of weights (rows, columns) of pairs that keep both orders, and the pairs
    as the authors' program walks back to them."""
    rows, columns = weights.shape
    best = np.zeros((rows + 1, columns + 1))
    is_pair = np.zeros((rows, columns), np.bool_)
    for row in range(rows):
        above = best[row, 1:] if row else np.full(columns, -1.0)
        paired = best[row, :-1] + weights[row]
        best[row + 1, 1:] = np.maximum.accumulate(np.maximum(above, paired))
        before = np.concatenate([[-1.0], best[row + 1, 1:-1]])
        is_pair[row] = (paired > above) & (paired > before)
    pairs: list[tuple[int, int]] = []
    row, column = rows - 1, columns - 1
    while row >= 0 and column >= 0:
        found = np.flatnonzero(is_pair[row, : column + 1])
        if len(found):
            pairs.append((row, int(found[-1])))
            column = int(found[-1]) - 1
        row -= 1
    return float(best[-1, -1]), pairs[::-1]


def _in_order(events: Sequence[EventCaption]) -> list[EventCaption]:
    return sorted(events, key=lambda event: event.start_s)


def _stories(
    references: Sequence[References], video: str, *, is_merged: bool
) -> Iterator[DenseCaptions]:
    """The events of each annotator or, merged, of all, by their starts."""
    told = [annotator[video] for annotator in references if video in annotator]
    told = [of for of in told if of.spans]
    if not is_merged:
        yield from told  # the authors keep the order of the file
    elif told:
        events = [e for of in told for e in zip(of.spans, of.sentences, strict=True)]
        events.sort(key=lambda event: event[0][0])
        spans, sentences = zip(*events, strict=True)
        yield DenseCaptions(video, told[0].duration_s, spans, sentences)


def _best(figures: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """That of the annotator with the best F1, the first of equals."""
    return max(figures, key=lambda of: of[2])
