"""Word by word from a network that gives log-probabilities: greedily, or by beam search.

The network keeps what it needs between words in a memory of its own (encoded streams, keys and
values of earlier words), so that a word costs the same at the end of a caption as at its start.
"""

from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from vlpipe.models.caption_vocabulary import END, PADDING, START


class Memory(Protocol):
    """What a network knows of N captions that are being written."""

    def select(self, rows: Tensor) -> Self:
        """That of the captions `rows`, int64 (M,), in this order; a row may come twice."""
        ...


M = TypeVar("M", bound=Memory)
M_contra = TypeVar("M_contra", bound=Memory, contravariant=True)


class WordByWord(Protocol[M_contra]):
    """A network that can go on with captions."""

    def next_words(self, words: Tensor, memory: M_contra) -> Tensor:
        """Log-probabilities (N, V) of what follows the newest words, int64 (N,), of N captions;
        memory takes the words in."""
        ...


def greedy_captions(
    network: WordByWord[M], memory: M, num_captions: int, *, max_words: int, device: torch.device
) -> Tensor:
    """int64 (N, L) ids, L <= max_words + 1: the start, then the likeliest word at each place.

    It stops when every caption has met its end. Captions that ended before the others go on
    emitting words, as in the published code: `cut_captions` leaves them out.
    """
    words = torch.full((num_captions,), START, device=device)
    written, has_ended = [words], torch.zeros_like(words, dtype=torch.bool)
    while len(written) <= max_words and not bool(has_ended.all()):
        words = network.next_words(words, memory).argmax(dim=-1)
        written.append(words)
        has_ended |= words == END
    return torch.stack(written, dim=1)


def beam_captions(
    network: WordByWord[M],
    memory: M,
    num_captions: int,
    *,
    beams: int,
    max_words: int,
    device: torch.device,
    length_power: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The best of `beams` captions kept at each place: ids int64 (N, L), padded behind the end,
    and scores float32 (N,): the sum of log-probabilities over words ** length_power.

    With one beam these are the greedy captions. The words of a caption are what follows its
    start, its end included.
    """
    memory = memory.select(torch.arange(num_captions, device=device).repeat_interleave(beams))
    written = torch.full((num_captions * beams, 1), START, device=device)
    # All beams of a caption start alike: only the first may go on at first.
    sums = torch.full((num_captions, beams), -torch.inf, device=device)
    sums[:, 0] = 0.0
    has_ended = torch.zeros(num_captions, beams, dtype=torch.bool, device=device)
    lengths = torch.zeros(num_captions, beams, device=device)
    first_row = torch.arange(num_captions, device=device)[:, None] * beams
    for _ in range(max_words):
        following = network.next_words(written[:, -1], memory).float()  # (N beams, V)
        following = following.view(num_captions, beams, -1)
        num_words = following.shape[-1]
        # A caption that has ended has one continuation, which costs nothing.
        following = following.masked_fill(has_ended[..., None], -torch.inf)
        following[..., PADDING] = following[..., PADDING].masked_fill(has_ended, 0.0)
        totals = sums[..., None] + following  # (N, beams, V)
        longer = (lengths + ~has_ended).clamp_min(1)
        ranked = totals / longer[..., None] ** length_power
        places = ranked.flatten(1).topk(beams, dim=-1).indices  # (N, beams)
        parents, words = places // num_words, places % num_words
        sums = totals.flatten(1).gather(1, places)
        lengths, has_ended = longer.gather(1, parents), has_ended.gather(1, parents)
        rows = (first_row + parents).flatten()
        memory = memory.select(rows)
        written = torch.cat([written[rows], words.view(-1, 1)], dim=1)
        has_ended = has_ended | (words == END)
        if bool(has_ended.all()):
            break
    scores = sums / lengths.clamp_min(1) ** length_power
    best = scores.argmax(dim=1)  # (N,)
    rows = first_row[:, 0] + best
    return written[rows], scores.gather(1, best[:, None])[:, 0]


def cut_captions(ids: Tensor) -> list[list[int]]:
    """The words of each row of ids (N, L), without its start, up to its end and without it."""
    captions = []
    for row in ids.tolist():
        words = row[1:]
        captions.append(words[: words.index(END)] if END in words else words)
    return captions
