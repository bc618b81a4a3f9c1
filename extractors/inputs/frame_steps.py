"""One frame in so many: the sampling of papers that count frames instead of time."""

from collections.abc import Sequence

from vlpipe.extractors.samples import Block, FrameSampler, Sample


class StepSampler(FrameSampler):
    """One sample for every step-th frame from the first on: uint8 [H, W, 3] and its own span."""

    def __init__(self, step: int, first: int = 0) -> None:
        self._step, self._next = step, first

    def push(self, block: Block) -> Sequence[Sample]:
        samples = super().push(block)
        taken = samples[self._next :: self._step]
        self._next += len(taken) * self._step - len(samples)
        return taken
