"""The learning rate over a training: constant, or warmed up and then lowered."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Schedule = Literal["constant", "cosine", "step", "plateau"]

# The options of the code of HGA and MASN.
_WARMUP_START = 0.2
_LOWERED = 0.1
_STEP_EPOCHS = (10, 20, 30, 40)
_PLATEAU_PATIENCE = 3


def is_better(figure: float, best: float, is_higher_better: bool) -> bool:
    """Whether a figure is better than the best so far; an equal one is not."""
    return figure > best if is_higher_better else figure < best


@dataclass
class LearningRate:
    """The rate of each epoch. `state` and `restore` carry it through a checkpoint.

    The original `plateau` reads a figure before there is one and fails; here the rate stands until
    an epoch has been validated.
    """

    base: float
    schedule: Schedule
    epochs: int
    warmup_epochs: int
    is_higher_better: bool
    factor: float = 1.0
    best: float | None = None
    waited: int = 0

    def rate(self, epoch: int) -> float:
        """The rate of an epoch, counted from 0."""
        if self.schedule == "constant":
            return self.base
        if epoch < self.warmup_epochs:
            share = epoch / self.warmup_epochs
            return self.base * (_WARMUP_START + (1 - _WARMUP_START) * share)
        if self.schedule == "cosine":
            share = (epoch - self.warmup_epochs) / max(1, self.epochs - self.warmup_epochs)
            return self.base * (1 + math.cos(math.pi * min(1.0, share))) / 2
        if self.schedule == "step":
            return self.base * _LOWERED ** sum(epoch >= at for at in _STEP_EPOCHS)
        return self.base * self.factor

    def validated(self, figure: float) -> None:
        """Takes note of the validation figure of the epoch that ended."""
        if self.best is None or is_better(figure, self.best, self.is_higher_better):
            self.best, self.waited = figure, 0
            return
        self.waited += 1
        if self.waited > _PLATEAU_PATIENCE:
            self.factor, self.waited = self.factor * _LOWERED, 0

    def state(self) -> dict[str, Any]:
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.factor, self.best, self.waited = state["factor"], state["best"], state["waited"]
