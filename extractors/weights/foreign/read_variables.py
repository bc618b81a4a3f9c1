"""One file of another framework as arrays by name, whichever format its content is in."""

import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.extractors.weights.checkpoint import Checkpoint, sha256_of
from vlpipe.extractors.weights.foreign.array_pickle import read_array_pickle
from vlpipe.extractors.weights.foreign.tensorflow_checkpoint import find_index, read_checkpoint
from vlpipe.extractors.weights.foreign.tensorflow_table import is_table

# What `torch.save` wrote before torch 1.6 begins with this number.
_TORCH_LEGACY = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class ForeignFile:
    """Arrays of one checkpoint by the names that its framework gave them.

    format: in words. sha256: of each file that was read, by name.
    skipped: names of entries that hold no weights, with the reason.
    """

    path: Path
    format: str
    variables: Mapping[str, npt.NDArray[Any]]
    sha256: Mapping[str, str]
    skipped: Mapping[str, str]


def read_variables(source: Path) -> ForeignFile:
    """The variables of a NumPy archive, a TensorFlow or torch checkpoint, or a pickle of arrays.

    source: a file, or what the names of a TensorFlow checkpoint's files begin with.
    Raises WeightsMissing if there is no such file, WeightsRejected if it is none of these, is
    damaged, or would run code.
    """
    path = find_index(source)
    if not path.is_file():
        raise WeightsMissing(
            f"{source}: there is no such file, and no TensorFlow checkpoint {source.name}.index"
        )
    files, skipped = [path], dict[str, str]()
    if is_table(path):
        found = read_checkpoint(path)
        kind, arrays = "TensorFlow checkpoint", found.arrays
        files, skipped = found.files, found.skipped
    elif zipfile.is_zipfile(path):
        kind, arrays = _read_zip(path)
    elif path.suffix == ".safetensors":
        kind, arrays = "safetensors", _torch_arrays(path)
    elif _is_torch_pickle(path):
        kind, arrays = "torch checkpoint", _torch_arrays(path)
    else:
        kind = "pickle of arrays"
        arrays, skipped = read_array_pickle(path)
    if not arrays:
        raise WeightsRejected(f"{path}: the {kind} holds no arrays")
    # TensorFlow's Python names a variable with the number of its output: `conv1/weights:0`.
    variables = {name.removesuffix(":0"): array for name, array in arrays.items()}
    if len(variables) < len(arrays):
        raise WeightsRejected(f"{path}: some variables are there with and without ':0'")
    return ForeignFile(path, kind, variables, {f.name: sha256_of(f) for f in files}, skipped)


def _read_zip(path: Path) -> tuple[str, dict[str, npt.NDArray[Any]]]:
    try:
        with zipfile.ZipFile(path) as archive:
            is_torch = any(name.endswith("data.pkl") for name in archive.namelist())
        if is_torch:
            return "torch checkpoint", _torch_arrays(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return "NumPy archive", {name: np.asarray(arrays[name]) for name in arrays.files}
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise WeightsRejected(
            f"{path}: neither a NumPy archive of plain arrays nor a torch checkpoint: {error}"
        ) from error


def _torch_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    state = Checkpoint.read(path).state
    # NumPy has no bfloat16.
    return {
        k: (v.float() if v.dtype == torch.bfloat16 else v).detach().numpy()
        for k, v in state.items()
    }


def _is_torch_pickle(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            numbers = (argument for _, argument, _ in pickletools.genops(file.read(64)))
            return _TORCH_LEGACY in (next(numbers), next(numbers))
    except (ValueError, StopIteration):
        return False
