"""The words that are spoken during an event, out of those of its video."""

import numpy as np
import torch
from torch import Tensor

from vlpipe.models.caption_vocabulary import END, PADDING, START
from vlpipe.stores import Features
from vlpipe.stores.text_rows import WORD_BYTES

SPEECH, SPEECH_SPANS = "speech", "speech_spans"


def spoken_words(
    features: Features | None, window_s: tuple[float, float] | None
) -> dict[str, Tensor]:
    """`speech`, uint8 (W, 64), and `speech_spans`, float64 (W, 2) seconds, of the words that
    overlap the window; none of a video without them."""
    if features is None:
        features = Features(np.zeros((0, WORD_BYTES), np.uint8), np.zeros((0, 2)))
    rows, spans = torch.from_numpy(features.rows), torch.from_numpy(features.spans)
    if window_s is not None:
        inside = (spans[:, 1] > window_s[0]) & (spans[:, 0] < window_s[1])
        rows, spans = rows[inside], spans[inside]
    return {SPEECH: rows, SPEECH_SPANS: spans}


def words_of_events(
    speech: Tensor, speech_spans: Tensor, events: Tensor | None, *, most: int
) -> Tensor:
    """int64 (N, L): the words of each event between start and end, padded; at most the first
    `most` of them.

    speech: int (B, W) ids in the order of time, padded. speech_spans: float (B, W, 2) seconds.
    events: float (N, 3), item, start and end in seconds; None: each video whole. A word counts
    whose time overlaps the event's.
    """
    words, inside = speech.long(), speech != PADDING
    if events is not None:
        item = events[:, 0].long()
        words, inside = words[item], inside[item]
        starts_s, ends_s = speech_spans[item].unbind(dim=-1)  # (N, W)
        first_s, last_s = events[:, 1, None], events[:, 2, None]
        # The second way in is that of words as long as nothing.
        inside = inside & (starts_s < last_s) & ((ends_s > first_s) | (starts_s >= first_s))
    if not words.shape[1]:
        words, inside = words.new_full((len(words), 1), PADDING), inside.new_zeros(len(words), 1)
    order = torch.sort((~inside).byte(), dim=1, stable=True).indices
    counts = inside.sum(dim=1).clamp_max(most)
    longest = int(counts.max()) if len(counts) else 0
    kept = words.gather(1, order)[:, :longest]
    places = torch.arange(longest, device=words.device)
    found = words.new_full((len(words), longest + 2), PADDING)
    found[:, 0] = START
    found[:, 1:-1] = torch.where(places < counts[:, None], kept, PADDING)
    return found.scatter(1, counts[:, None] + 1, END)
