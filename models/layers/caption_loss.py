"""What captioners learn from: smoothed words, without padding (MDVC, BMT)."""

import torch
from torch import Tensor

from vlpipe.models.caption_vocabulary import PADDING


def smoothed_caption_loss(
    log_shares: Tensor, words: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Kullback-Leibler divergence to smoothed words, a mean over the words that are not padding,
    and their number, int64 ().

    log_shares: (N, L, V), logarithms of shares. words: int64 (N, L). The word has the share
    1 - smoothing, padding none, every other word smoothing / (V - 2). The published smoothing of
    0.7 is no slip: the word has 0.3.
    """
    is_word = words != PADDING
    kept, right = log_shares.float()[is_word], words[is_word]  # (n, V), (n,)
    num_words = kept.shape[-1]
    each = smoothing / (num_words - 2)
    of_right = kept.gather(1, right[:, None])[:, 0]
    of_others = kept.sum(dim=-1) - kept[:, PADDING] - of_right
    # The entropy of the wanted shares does not depend on the network, but is part of the figure.
    wanted = torch.tensor([1 - smoothing, each], dtype=torch.float64)
    counts = torch.tensor([1, num_words - 2], dtype=torch.float64)
    entropy = float((counts * torch.special.xlogy(wanted, wanted)).sum())
    divergence = entropy - (1 - smoothing) * of_right - each * of_others  # (n,)
    count = is_word.sum()
    return divergence.sum() / count.clamp_min(1), count
