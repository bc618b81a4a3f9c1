"""Checkpoints: where they are published, and how they are read safely.

A checkpoint is data: it is read from safetensors, from NumPy archives without pickled objects, or
with `torch.load(weights_only=True)`, and there is no fallback.
"""

import codecs
import hashlib
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from vlpipe.extractors.errors import WeightsMissing, WeightsRejected

# Some published files hold NumPy arrays. These names rebuild arrays and dtypes and nothing else,
# so that allowing them runs no code of the file; NumPy 1 and 2 spell the first one differently.
_ARRAY_BUILDERS: list[Any] = [
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    codecs.encode,
    np.ndarray,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
]

State = dict[str, Tensor]

CONVERSION_KEY = "vlpipe.conversion"
"""Of a safetensors file's metadata: what `vlpipe weights convert` says of its origin, as JSON."""


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """A checkpoint as its authors publish it.

    name: what `vlpipe weights add` calls it. filename, url, licence: of the published file.
    sha256: the leading hex digits of the file's SHA-256 that are publicly known ("" if none).
    settings: configuration that the checkpoint was trained with, where not the default.
    """

    name: str
    filename: str
    url: str
    licence: str
    sha256: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one file, by the names that its authors gave them.

    conversion: what the file says of its origin, if `vlpipe weights convert` made it.
    """

    path: Path
    state: State
    conversion: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Raises WeightsMissing if there is no file, WeightsRejected if it is not plain tensors."""
        if not path.is_file():
            raise WeightsMissing(f"{path}: there is no such checkpoint file")
        if path.suffix == ".safetensors":
            state = _read_safetensors(path)
        elif path.suffix == ".npz":
            state = _read_npz(path)
        else:
            state = _read_torch(path)
        state = {_without_module(key): value for key, value in state.items()}
        return cls(path, state, read_conversion(path))

    def load_into(
        self, module: nn.Module, state: Mapping[str, Tensor] | None = None, *, what: str
    ) -> None:
        """Fills `module` with `state` (default: all of the checkpoint), every entry by name.

        `num_batches_tracked` may be absent (files from before torch 0.4.1) or present. Anything
        else missing, left over, or of another shape is WeightsRejected, with the entries named.
        """
        given = dict(self.state if state is None else state)
        wanted = module.state_dict()
        missing = [k for k in wanted if k not in given and not _is_counter(k)]
        surplus = [k for k in given if k not in wanted and not _is_counter(k)]
        differ = [
            f"{k} {tuple(given[k].shape)} instead of {tuple(wanted[k].shape)}"
            for k in wanted
            if k in given and given[k].shape != wanted[k].shape
        ]
        if missing or surplus or differ:
            found = [
                f"{len(names)} entries {word} ({_some(names)})"
                for word, names in (
                    ("missing", missing),
                    ("not of this network", surplus),
                    ("of another shape", differ),
                )
                if names
            ]
            raise WeightsRejected(
                f"{self.path}: this is not a checkpoint of {what}: {'; '.join(found)}",
                hint="`vlpipe weights ls` lists the published files and their networks",
            )
        counters = {k: v for k, v in wanted.items() if _is_counter(k) and k not in given}
        module.load_state_dict({k: v for k, v in given.items() if k in wanted} | counters)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_conversion(path: Path) -> dict[str, Any]:
    """What a file that `vlpipe weights convert` made says of its origin; {} for others.

    `role`, `source` (SHA-256 of each file by name), `layout`, `settings` and more. Reads no more
    than the file's header. Raises WeightsRejected where that is damaged.
    """
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get(CONVERSION_KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsRejected(f"{path}: not a readable safetensors file: {error}") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("settings", {}), dict):
        raise WeightsRejected(f"{path}: its entry {CONVERSION_KEY!r} is not what vlpipe writes")
    return facts


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsRejected(f"{path}: not a readable safetensors file: {error}") from error


# What torch's own unpickler raises for bytes that are no pickle, by which of them come first.
_GARBAGE = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError,
    MemoryError, OverflowError, struct.error,
)  # fmt: skip


def _read_npz(path: Path) -> State:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise WeightsRejected(
            f"{path}: not a NumPy archive of plain arrays: {_first_line(error)}"
        ) from error


def _read_torch(path: Path) -> State:
    try:
        with torch.serialization.safe_globals(_ARRAY_BUILDERS):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsRejected(
            f"{path}: the file holds more than tensors, and loading it could run code of its "
            f"author{_refused_name(error)}",
            hint="`vlpipe weights convert` reads TensorFlow's files and pickles of NumPy arrays; "
            "else ask its author for a state_dict or safetensors: pickled code is never loaded",
        ) from error
    except _GARBAGE as error:
        raise WeightsRejected(
            f"{path}: not a checkpoint: {_first_line(error)}",
            hint="`vlpipe weights convert` reads TensorFlow's files and pickles of NumPy arrays",
        ) from error
    if isinstance(loaded, Mapping):
        for wrapper in ("state_dict", "model_state_dict", "model", "module", "teacher"):
            if isinstance(loaded.get(wrapper), Mapping):
                loaded = loaded[wrapper]
                break
    if not isinstance(loaded, Mapping):
        raise WeightsRejected(f"{path}: holds a {type(loaded).__name__}, expected a state_dict")
    state: State = {}
    for key, value in loaded.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
        if not isinstance(value, Tensor):
            raise WeightsRejected(
                f"{path}: entry {key!r} is a {type(value).__name__}, expected a tensor"
            )
        state[str(key)] = value
    return state


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _refused_name(error: pickle.UnpicklingError) -> str:
    found = re.search(r"(?:GLOBAL|global:? GLOBAL) ([a-z_][\w.]*)", str(error))
    return f": it asks for {found[1]}" if found else ""


def _without_module(key: str) -> str:
    # DataParallel prefixes "module."; other networks have names that begin with "module" alone.
    return key.removeprefix("module.")


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _some(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (
        f", ... {len(names) - most} more" if len(names) > most else ""
    )
