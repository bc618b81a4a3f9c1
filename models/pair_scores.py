"""Scores of all pairs of many videos and sentences, in blocks, each encoded once.

What a network makes of a video or a sentence alone is made once; only what depends on the pair is
made for each. Videos and sentences are taken by rising length, so that the pairs of a block are
cut to the same few frames and words: padding costs nothing.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Encoded(NamedTuple):
    """Videos or sentences, each encoded once for all pairs that it is in.

    rows: (N, T, D), 0 where padded. length: int64 (N,). state: (N, H), of the last steps.
    """

    rows: Tensor
    length: Tensor
    state: Tensor

    def at(self, index: Tensor | slice) -> "Encoded":
        """Those of that index along N."""
        return Encoded(self.rows[index], self.length[index], self.state[index])


class ScoresPairs(Protocol):
    """A network whose score of a pair comes from two encodings."""

    def score_pairs(self, videos: Encoded, sentences: Encoded) -> Tensor:
        """(P,) scores of the pairs (videos[i], sentences[i])."""
        ...


def joined(parts: Iterable[Encoded]) -> Encoded:
    """The encodings of batches as one."""
    rows, length, state = zip(*parts, strict=True)
    return Encoded(torch.cat(rows), torch.cat(length), torch.cat(state))


@torch.inference_mode()
def score_all_pairs(
    network: ScoresPairs,
    videos: Encoded,
    sentences: Encoded,
    *,
    cells_at_once: int = 2**12,
    on_progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """(V, S) float32 scores on the CPU: row i is video i, column j sentence j.

    The network is to be in evaluation mode. cells_at_once: pairs of a frame and a word in a block;
    JSFusion needs some 20 KB for each; a GPU wants hundreds of times the default.
    on_progress: called with how many pairs are done and how many there are.
    """
    by_length = [torch.argsort(side.length, stable=True) for side in (videos, sentences)]
    scores = torch.zeros(len(videos.length), len(sentences.length))
    done = 0
    for chosen_words in _runs(sentences.length[by_length[1]], by_length[1]):
        num_words = int(sentences.length[chosen_words[0]])
        for chosen_frames in _runs(videos.length[by_length[0]], by_length[0]):
            cells = num_words * int(videos.length[chosen_frames[0]])
            step = max(1, cells_at_once // cells)
            first = chosen_frames.repeat_interleave(len(chosen_words))
            second = chosen_words.repeat(len(chosen_frames))
            for start in range(0, len(first), step):
                left, right = first[start : start + step], second[start : start + step]
                found = network.score_pairs(videos.at(left), sentences.at(right))
                scores[left.cpu(), right.cpu()] = found.float().cpu()
            done += len(first)
            if on_progress is not None:
                on_progress(done, scores.numel())
    return scores


def _runs(lengths: Tensor, places: Tensor) -> tuple[Tensor, ...]:
    """The places, which stand by rising length, parted where the length changes."""
    _, counts = torch.unique_consecutive(lengths, return_counts=True)
    return torch.split(places, counts.tolist())
