"""Features of single tokens that lie in a store, and which text each of them belongs to.

A row of `subtitle_tokens` or `caption_tokens` is a token, in the order of its text, and its span is
that of the line or caption: rows with one span that follow each other are one text. A row of
`question_tokens` is a token of "question candidate", and the row of `question_place` beside it says
of which: qid and the place of the candidate, from 0. Their spans mean nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vlpipe.stores import Features

QUESTION_TOKENS, QUESTION_PLACE = "question_tokens", "question_place"
SUBTITLE_TOKENS, CAPTION_TOKENS = "subtitle_tokens", "caption_tokens"
TOKEN_SLOTS = (QUESTION_TOKENS, QUESTION_PLACE, SUBTITLE_TOKENS, CAPTION_TOKENS)


class TimedTokens(NamedTuple):
    """A text: when it stands, in seconds, and its token features (L, W)."""

    start_s: float
    end_s: float
    tokens: Tensor


def token_tensors(features: Mapping[str, Features]) -> dict[str, Tensor]:
    """By slot, N rows each: float32 (N, W), of question_place int64 (N, 2); and `SLOT_s`, float64
    (N, 2), start and end in seconds, of subtitles and captions. Other slots are left out."""
    found: dict[str, Tensor] = {}
    for slot in TOKEN_SLOTS:
        if slot not in features:
            continue
        rows = torch.from_numpy(features[slot].rows)
        found[slot] = rows.long() if slot == QUESTION_PLACE else rows.float()
        if slot in (SUBTITLE_TOKENS, CAPTION_TOKENS):
            found[f"{slot}_s"] = torch.from_numpy(features[slot].spans).double()
    return found


def timed_tokens(video: Mapping[str, Tensor], slot: str) -> list[TimedTokens]:
    """The texts of a slot in their order; none of a video without them."""
    if slot not in video or not len(video[slot]):
        return []
    rows, spans = video[slot], video[f"{slot}_s"]
    edges = (spans[1:] != spans[:-1]).any(dim=1).nonzero().flatten() + 1
    parts = torch.tensor_split(rows, edges)
    starts = [0, *edges.tolist()]
    return [
        TimedTokens(float(spans[start, 0]), float(spans[start, 1]), part)
        for start, part in zip(starts, parts, strict=True)
    ]


def question_tokens(video: Mapping[str, Tensor], qid: int, candidate: int) -> Tensor:
    """(L, W) of "question candidate"; no rows if the store has none of it."""
    place = video[QUESTION_PLACE]
    return video[QUESTION_TOKENS][(place == torch.tensor([qid, candidate])).all(dim=1)]
