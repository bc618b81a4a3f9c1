"""Figures of captions against references: BLEU, ROUGE-L, CIDEr, METEOR.

The first three are those of pycocoevalcap (the COCO caption evaluation); METEOR is Java's where
that runs, else the reduced one, under its own name (`reduced_meteor.py`). All work on tokens joined
by blanks. Figures are shares, 0 to 1; CIDEr's 0 to 10.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from vlpipe.models.metrics.java_scoring import Meteor, java_tokens, missing_for_java
from vlpipe.models.metrics.penn_treebank import penn_tokens
from vlpipe.models.metrics.reduced_meteor import ReducedMeteor
from vlpipe.stores.errors import EnvironmentLacks

BLEU_NAMES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
ROUGE_L, CIDER = "rouge_l", "cider"

Tokeniser = Literal["penn", "java"]
"""`java`: Stanford's, as in official programs; `penn`: its rules in Python."""


class MeteorKind(Protocol):
    """METEOR, or a reduced one: statistics of pairs, and figures of sets of them."""

    @property
    def name(self) -> str: ...
    def statistics(self, hypothesis: str, references: Sequence[str]) -> Any: ...  # noqa: ANN401
    def score(self, statistics: Sequence[Any]) -> tuple[float, list[float]]: ...


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """whole: figures of a set of captions by name. each: float64 (captions,) by name."""

    whole: Mapping[str, float]
    each: Mapping[str, npt.NDArray[np.float64]]


def best_meteor() -> AbstractContextManager[MeteorKind]:
    """METEOR where Java runs it, else the one with exact words and stems; `name` says which."""
    if missing_for_java() is None:
        return Meteor()
    return nullcontext(ReducedMeteor())


def tokenised(texts: Sequence[str], tokeniser: Tokeniser = "penn") -> list[str]:
    """The tokens of each text, joined by blanks."""
    found = java_tokens(texts) if tokeniser == "java" else [penn_tokens(text) for text in texts]
    return [" ".join(tokens) for tokens in found]


def caption_scores(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    meteor: MeteorKind | None = None,
) -> CaptionScores:
    """The figures of hypotheses (N,) against the references of each, all tokens joined by blanks.

    CIDEr's rarities of words are those of these very references: with one item it is 0. Raises
    ValueError if the numbers differ, an item has no reference, or there are none.
    """
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise ValueError(
            f"{len(hypotheses)} hypotheses for {len(references)} items of references; expected as "
            "many, not none, and a reference in each"
        )
    # Late, as they are needed for figures only.
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ModuleNotFoundError as error:
        raise EnvironmentLacks(
            "figures of captions need the package pycocoevalcap",
            hint='pip install "vlpipe[captioning]"',
        ) from error

    made = {number: [text] for number, text in enumerate(hypotheses)}
    wanted = {number: list(texts) for number, texts in enumerate(references)}
    bleu, bleu_each = Bleu(4).compute_score(wanted, made, verbose=0)
    rouge, rouge_each = Rouge().compute_score(wanted, made)
    cider, cider_each = Cider().compute_score(wanted, made)
    whole = dict(zip(BLEU_NAMES, bleu, strict=True)) | {ROUGE_L: rouge, CIDER: cider}
    each = dict(zip(BLEU_NAMES, bleu_each, strict=True)) | {ROUGE_L: rouge_each, CIDER: cider_each}
    if meteor is not None:
        pairs = zip(hypotheses, references, strict=True)
        found = meteor.score([meteor.statistics(made, of) for made, of in pairs])
        whole[meteor.name], each[meteor.name] = found
    return CaptionScores(
        {name: float(value) for name, value in whole.items()},
        {name: np.asarray(values, np.float64) for name, values in each.items()},
    )
