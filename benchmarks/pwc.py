"""PWC-Net against the plain published order of work (tests/plain_pwc.py), fp32 and bf16.

A stack of 64 pairs is some 2,300 GFLOP, three quarters of it in the finest decoder. Here each
frame's pyramid is made once, and the decoders do not copy what they join.
"""

import sys
from pathlib import Path

import torch

from benchmarks._measure import best_of_turns
from vlpipe.extractors.networks.pwc import PwcNetwork
from vlpipe.extractors.precision import Precision, run_at
from vlpipe.extractors.weights.checkpoint import Checkpoint

NUM_FRAMES, HEIGHT, WIDTH = 5, 256, 341


def run() -> None:
    """Prints ratios, and the end-point error of bf16 in pixels."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import golden_cases
    import plain_pwc

    state = {key: torch.from_numpy(v) for key, v in golden_cases.state("pwc_net").items()}
    network = PwcNetwork()
    network.load(Checkpoint(golden_cases.FOLDER / "pwc_net.json", state))
    network.eval().requires_grad_(False)
    torch.manual_seed(0)
    frames = torch.nn.functional.interpolate(
        255 * torch.rand(NUM_FRAMES, 3, HEIGHT // 8, WIDTH // 8), (HEIGHT, WIDTH), mode="bicubic"
    ).clamp(0, 255)
    made: dict[str, torch.Tensor] = {}

    def plain() -> None:
        with torch.inference_mode():
            made["plain"] = plain_pwc.plain_flow(state, frames[:-1], frames[1:])

    def ours(precision: Precision) -> None:
        with torch.inference_mode(), run_at(precision, torch.device("cpu")):
            made[precision] = network.flow_of_stack(frames).float()

    sides = {"plain": plain, "fp32": lambda: ours("fp32"), "bf16": lambda: ours("bf16")}
    best = best_of_turns(sides, 4)
    wanted = made["plain"]
    for precision, goal in (("fp32", 1.2), ("bf16", 2.0)):
        error = (made[precision] - wanted).norm(dim=1).mean()
        print(
            f"pwc: {NUM_FRAMES - 1} pairs {WIDTH}x{HEIGHT} {precision} "
            f"{best['plain'] / best[precision]:.2f} x the plain order (goal {goal}); mean "
            f"end-point error {error:.2g} px of {wanted.norm(dim=1).mean():.2g} px"
        )


if __name__ == "__main__":
    run()
