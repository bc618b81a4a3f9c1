"""Trainings that end in the middle."""

from vlpipe.pipelines.training.loop import Silent


class Cut(Exception):
    """The process dies here."""


class CutAt(Silent):
    """An observer that ends the process, or this one's training, at a step."""

    def __init__(self, step, error=Cut):
        self.step, self.error = step, error

    def on_step(self, progress, num_batches):
        if progress.step == self.step:
            raise self.error
