"""Golden cases: outputs of published code for weights and inputs that are drawn by rule.

A case is `golden/NAME.json` (checkpoint keys and shapes, inputs, notes) and `golden/NAME.npz` (the
reference's outputs). Nothing but names is needed to draw the weights, so that a test writes the
very checkpoint, in the published layout, that the reference ran with.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "golden"


def _generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def draw_weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor that stands for checkpoint entry `key`: float32, or int64 for counters."""
    random = _generator(key)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    if key.endswith("running_mean"):
        return (0.1 * random.standard_normal(shape)).astype(np.float32)
    if len(shape) > 1:
        scale = np.sqrt(2.0 / int(np.prod(shape[1:])))
        return (scale * random.standard_normal(shape)).astype(np.float32)
    if key.rsplit(".", 1)[-1] in ("weight", "gamma", "a_2"):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    return (0.05 * random.standard_normal(shape)).astype(np.float32)


def draw_input(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """The input of that name; kind is normal, unit, uint8, int:LOW:HIGH or mask."""
    random = _generator("input:" + name)
    if kind == "normal":
        return random.standard_normal(shape).astype(np.float32)
    if kind == "unit":
        return random.random(shape).astype(np.float32)
    if kind == "uint8":
        return random.integers(0, 256, shape).astype(np.uint8)
    if kind == "mask":
        return np.ones(shape, bool)
    low, high = map(int, kind.removeprefix("int:").split(":"))
    return random.integers(low, high, shape).astype(np.int64)


def _facts(case: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{case}.json").read_text(encoding="utf-8"))


def state(case: str) -> dict[str, np.ndarray]:
    """The checkpoint of a case."""
    return {key: draw_weight(key, tuple(s)) for key, s in _facts(case)["state"].items()}


def inputs(case: str) -> dict[str, np.ndarray]:
    """The inputs of a case, before what its notes do with them."""
    return {
        name: draw_input(name, tuple(spec["shape"]), spec["kind"])
        for name, spec in _facts(case)["inputs"].items()
    }


def outputs(case: str) -> dict[str, np.ndarray]:
    """What the reference gave."""
    with np.load(FOLDER / f"{case}.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Norm of the difference over the norm of the reference."""
    assert got.shape == wanted.shape
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
