"""Everything a training needs to go on as if it had never stopped, in one file."""

import os
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlpipe.stores.errors import UsageError

STATE_VERSION = 1


@dataclass
class Progress:
    """How far a training has come. A checkpoint lies always between two steps.

    epoch, batch: the next batch to train on. loss_sum, loss_count: over the epoch so far.
    history: a dict of figures for each finished epoch. waited: epochs since the best one.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    best: float | None = None
    best_epoch: int | None = None
    waited: int = 0
    seconds: float = 0.0
    is_finished: bool = False
    history: list[dict[str, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def random_state() -> dict[str, Any]:
    """The state of all generators of this process, as tensors and plain values."""
    version, numbers, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, cached = legacy
    state: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [name, keys.tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Sets all generators of this process to what `random_state` saw."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Replaces the file as a whole: a kill leaves the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save({"state_version": STATE_VERSION, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote; only tensors and plain values are ever made from the file."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UsageError(
            f"{path} is not there: this run has not reached its first checkpoint",
            hint="start it again into a new folder",
        ) from error
    except Exception as error:
        raise UsageError(f"{path} is not a training state: {error}") from error
    if state.get("state_version") != STATE_VERSION:
        raise UsageError(
            f"{path} has the form {state.get('state_version')!r}, expected {STATE_VERSION}",
            hint="resume it with the version of vlpipe that wrote it",
        )
    return state
