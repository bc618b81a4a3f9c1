"""Captions with the encoded streams, keys and values kept, against the published order of work.

The published code computes encoder and decoder again for every word. Here BMT writes captions of 30
words for 16 events of 20 rows of picture and 53 of sound (51 s), at published size with fresh
weights, whose captions never end. Both ways must write the same words.
"""

from typing import cast

import torch

from benchmarks._measure import best_of_turns
from vlpipe.models import create_model
from vlpipe.models.bmt import Bmt
from vlpipe.models.caption_vocabulary import END, START

NUM_EVENTS, NUM_WORDS = 16, 30
VIDEO_ROWS, AUDIO_ROWS = 20, 53
GOAL = 5.0


def run() -> None:
    """Prints captions a second and the ratio."""
    torch.manual_seed(0)
    model = cast(Bmt, create_model("bmt", task="captioning")).eval()
    with torch.no_grad():
        model.get_parameter("words.weight").normal_()
        model.get_parameter("generator.bias")[END] = -1e3
    videos = {
        "rgb": torch.randn(NUM_EVENTS, VIDEO_ROWS, 1024),
        "flow": torch.randn(NUM_EVENTS, VIDEO_ROWS, 1024),
        "audio": torch.randn(NUM_EVENTS, AUDIO_ROWS, 128),
    }
    written: dict[str, torch.Tensor] = {}

    @torch.inference_mode()
    def plain() -> None:
        ids = torch.full((NUM_EVENTS, 1), START)
        while ids.shape[1] <= NUM_WORDS:
            # A last word is appended, which the forward pass leaves out of what it reads.
            shares = model(**videos, caption=torch.cat([ids, ids[:, :1]], dim=1))["logp"]
            ids = torch.cat([ids, shares[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
        written["plain"] = ids

    @torch.inference_mode()
    def kept(beams: int) -> None:
        written[f"beams {beams}"] = model.write_captions(**videos, max_words=NUM_WORDS, beams=beams)

    sides = {"plain": plain, "greedy": lambda: kept(1), "four beams": lambda: kept(4)}
    best = best_of_turns(sides, 2)
    if not torch.equal(written["plain"], written["beams 1"]):
        raise RuntimeError("captions differ between the two ways of decoding")
    for name in ("greedy", "four beams"):
        print(
            f"captioning: bmt, {NUM_EVENTS} captions of {NUM_WORDS} words, {name}: "
            f"{NUM_EVENTS / best[name]:.1f} a second, {best['plain'] / best[name]:.1f} x the "
            f"published order{f' (goal {GOAL:g})' if name == 'greedy' else ''}"
        )


if __name__ == "__main__":
    run()
