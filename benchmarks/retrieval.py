"""JSFusion: all pairs of videos and sentences in blocks, against pair by pair in batches.

    python -m benchmarks retrieval           a sample that fits anywhere
    python -m benchmarks retrieval --held    1,000 x 1,000 encoded, some of the pairs scored
    python -m benchmarks retrieval --full    1,000 x 1,000 in blocks (on a GPU if there is one)

Both sides have the paper's sizes and float32. Videos fill their 40 frames, as those of MSR-VTT do;
sentences have 2 to 40 words, 10 in the mean. A batch of the pair-by-pair side is 32 pairs in the
order of the table, encoders included. Time is per pair, as the sides score different numbers.
"""

import sys
import time

import numpy as np
import torch

from benchmarks._measure import peak_memory
from vlpipe.models import create_model
from vlpipe.models.jsfusion import JsFusion
from vlpipe.models.pair_scores import Encoded, joined, score_all_pairs

NUM_VIDEOS, NUM_SENTENCES, NUM_SAMPLED = 24, 24, 64
BATCH = 32
MEAN_WORDS = 10
NUM_HELD = 2


def run(options: tuple[str, ...] | list[str] = ()) -> None:
    """Prints times, peak memory, the ratio and the largest difference of scores."""
    if "--full" in options:
        full()
        return
    if "--held" in options:
        peak = peak_memory("-m", "benchmarks.retrieval", "--held", shows_output=True)
        print(f"retrieval: peak memory with all of 1,000 x 1,000 encoded {peak:,.0f} MiB")
        return
    model, video, words, word_len = material(NUM_VIDEOS, NUM_SENTENCES)
    scores, block_s = in_blocks(model, video, words, word_len)
    wanted, pair_s = by_pairs(model, video, words, word_len)
    first, second = sampled_pairs()
    error = (scores[first, second] - wanted).abs().max() / wanted.abs().max()
    blocks, pairs = block_s / scores.numel(), pair_s / len(wanted)
    print(
        f"retrieval: {1e3 * blocks:.1f} ms a pair in blocks, {1e3 * pairs:.1f} ms pair by pair: "
        f"{pairs / blocks:.1f} x (goal 3); 1,000 x 1,000 take {1e6 * blocks / 3600:.1f} h here; "
        f"largest difference {error:.1g} of the largest score"
    )
    for side in ("--blocks", "--pairs"):
        peak = peak_memory("-m", "benchmarks.retrieval", side)
        print(f"retrieval: peak memory {side.removeprefix('--')} {peak:,.0f} MiB")


def held() -> None:
    """Encodes 1,000 videos and 1,000 sentences, and scores all sentences with a few of the videos:
    what is held is that of the whole table, and time is in proportion."""
    model, _, words, word_len = material(1, 1000)
    started = time.perf_counter()
    with torch.inference_mode():
        videos = joined(
            model.encode_video(torch.rand(BATCH, 40, 2176)) for _ in range(-(-1000 // BATCH))
        )
        texts = zip(words.split(BATCH), word_len.split(BATCH), strict=True)
        sentences = joined(model.encode_words(*part) for part in texts)
    encoded_s = time.perf_counter() - started
    started = time.perf_counter()
    scores = score_all_pairs(model, videos.at(slice(0, NUM_HELD)), sentences)
    pair_s = (time.perf_counter() - started) / scores.numel()
    print(
        f"retrieval: {len(videos.length):,} videos, {len(sentences.length):,} sentences encoded in "
        f"{encoded_s:.0f} s; {scores.numel():,} pairs, {scores.numel() / 1e4:.1f} % of the table, "
        f"at {1e3 * pair_s:.1f} ms: {(encoded_s + 1e6 * pair_s) / 3600:.1f} h for all"
    )


def full() -> None:
    """1,000 x 1,000: seconds and, on a GPU, peak memory."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, video, words, word_len = (part.to(device) for part in material(1000, 1000))
    _, seconds = in_blocks(
        model, video, words, word_len, cells=2**19 if device == "cuda" else 2**12
    )
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    print(f"retrieval: 1,000 x 1,000 on {device}: {seconds:.0f} s, {memory:.1f} GiB of the device")


def material(
    num_videos: int, num_sentences: int
) -> tuple[JsFusion, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = create_model("jsfusion", task="retrieval", vocabulary_size=1000).eval()
    assert isinstance(model, JsFusion)
    drawn = np.random.default_rng(0).poisson(MEAN_WORDS - 2, num_sentences) + 2
    words = torch.randint(2, 1000, (num_sentences, 40))
    return model, torch.rand(num_videos, 40, 2176), words, torch.from_numpy(drawn.clip(2, 40))


@torch.inference_mode()
def in_blocks(
    model: JsFusion,
    video: torch.Tensor,
    words: torch.Tensor,
    word_len: torch.Tensor,
    cells: int = 2**12,
) -> tuple[torch.Tensor, float]:
    started = time.perf_counter()
    videos: Encoded = joined(model.encode_video(part) for part in video.split(BATCH))
    texts = zip(words.split(BATCH), word_len.split(BATCH), strict=True)
    sentences = joined(model.encode_words(*part) for part in texts)
    scores = score_all_pairs(model, videos, sentences, cells_at_once=cells)
    return scores, time.perf_counter() - started


@torch.inference_mode()
def by_pairs(
    model: JsFusion, video: torch.Tensor, words: torch.Tensor, word_len: torch.Tensor
) -> tuple[torch.Tensor, float]:
    first, second = sampled_pairs()
    started = time.perf_counter()
    found = []
    for left, right in zip(first.split(BATCH), second.split(BATCH), strict=True):
        outputs = model(video=video[left], words=words[right, None], word_len=word_len[right, None])
        found.append(outputs["score"].squeeze(1))
    return torch.cat(found), time.perf_counter() - started


def sampled_pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Every so-many-th pair of the table, in its order."""
    pairs = torch.arange(NUM_SAMPLED) * (NUM_VIDEOS * NUM_SENTENCES // NUM_SAMPLED)
    return pairs // NUM_SENTENCES, pairs % NUM_SENTENCES


if __name__ == "__main__":
    if "--held" in sys.argv:
        held()
    else:
        side = by_pairs if "--pairs" in sys.argv else in_blocks
        side(*material(NUM_VIDEOS, NUM_SENTENCES))
