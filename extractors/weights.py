"""Checkpoints: where they are published, how they are read safely, and which one a run uses.

A checkpoint is data: it is read from safetensors, from NumPy archives without pickled objects, or
with `torch.load(weights_only=True)`, and there is no fallback. Checkpoints that were added live
as safetensors in the weights folder beside a JSON file that keeps their origin.
"""

import codecs
import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct
from platformdirs import user_data_path
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.stores.errors import UsageError

UNTRAINED = "untrained"

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
class WeightsSource:
    """Which weights an extractor runs with: one file a role, or random numbers from a seed.

    published_sha256: by role, the hash of the published file where `files` names a copy of it.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    published_sha256: Mapping[str, str] = field(default_factory=dict)
    is_untrained: bool = False
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Identity for the provenance: hashes of the published files, never their paths."""
        if self.is_untrained:
            return {"untrained": True, "seed": self.seed}
        return {
            "untrained": False,
            "sha256": {
                role: self.published_sha256.get(role) or sha256_of(path)
                for role, path in sorted(self.files.items())
            },
        }


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one file, by the names that its authors gave them."""

    path: Path
    state: State

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
        return cls(path, {_without_module(key): value for key, value in state.items()})

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


@dataclass(frozen=True, slots=True)
class AddedCheckpoint:
    """A checkpoint in the weights folder.

    sha256, original: hash and name of the file that it was added from. copy_sha256: hash of
    `path`, the copy in the folder.
    """

    name: str
    path: Path
    sha256: str
    original: str
    copy_sha256: str


class WeightsFolder:
    """The folder of added checkpoints: `VLPIPE_WEIGHTS`, else the user's data folder."""

    def __init__(self, path: Path | None = None) -> None:
        default = user_data_path("vlpipe", appauthor=False) / "weights"
        self.path = path or Path(os.environ.get("VLPIPE_WEIGHTS") or default)

    def find(self, name: str) -> AddedCheckpoint | None:
        """The added checkpoint of that name."""
        origin = self.path / f"{name}.json"
        if not origin.is_file():
            return None
        facts = json.loads(origin.read_text(encoding="utf-8"))
        return AddedCheckpoint(
            name,
            self.path / f"{name}.safetensors",
            facts["sha256"],
            facts["file"],
            facts["copy_sha256"],
        )

    def add(
        self, published: PublishedCheckpoint, file: Path, check: Callable[[Checkpoint], None]
    ) -> AddedCheckpoint:
        """Checks `file` against what is known of it and keeps a safetensors copy.

        check: raises WeightsRejected for a checkpoint that the role's network does not accept.
        Raises WeightsRejected when hash, keys or shapes differ from the published ones.
        """
        checkpoint = Checkpoint.read(file)
        sha256 = sha256_of(file)
        if published.sha256 and not sha256.startswith(published.sha256):
            raise WeightsRejected(
                f"{file}: SHA-256 begins {sha256[:16]}, the published {published.filename} begins "
                f"{published.sha256}",
                hint=f"get {published.url} again, or use the file as it is: --weights "
                f"NETWORK={file}",
            )
        check(checkpoint)
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / f"{published.name}.safetensors"
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        save_file({k: v.contiguous().clone() for k, v in checkpoint.state.items()}, temporary)
        copy_sha256 = sha256_of(temporary)
        origin = {
            "sha256": sha256,
            "file": file.name,
            "published": published.url,
            "copy_sha256": copy_sha256,
        }
        origin_temporary = temporary.with_suffix(".origin")
        origin_temporary.write_text(json.dumps(origin, indent=1), encoding="utf-8")
        # The origin goes last: what has none is not in the folder.
        temporary.replace(target)
        origin_temporary.replace(self.path / f"{published.name}.json")
        return AddedCheckpoint(published.name, target, sha256, file.name, copy_sha256)


def parse_source(
    weights: str | Path | Mapping[str, str | Path] | None,
    published: Mapping[str, Sequence[PublishedCheckpoint]],
    folder: WeightsFolder,
) -> tuple[WeightsSource, dict[str, Any]]:
    """The source that `weights` names, and the settings that its checkpoints come with.

    weights: None (what was added), `untrained` or `untrained:SEED`, a file, the name of a
        published checkpoint, or a mapping from role to file or name. A name belongs to the role
        that publishes it, a single file to the first role, and to others of which no checkpoint
        was added (some files hold several).
    """
    if isinstance(weights, str) and weights.partition(":")[0] == UNTRAINED:
        seed = weights.partition(":")[2] or "0"
        if not seed.isdecimal():
            raise UsageError(f"weights {weights!r}: expected untrained or untrained:SEED")
        return WeightsSource(is_untrained=True, seed=int(seed)), {}
    given: dict[str, str | Path] = {}
    owners: list[str] = []
    if isinstance(weights, Mapping):
        given = dict(weights)
    elif weights is not None:
        owners = [r for r, ps in published.items() if any(p.name == str(weights) for p in ps)]
        given = {owners[0] if owners else next(iter(published)): weights}

    single = weights if isinstance(weights, str | Path) and not owners else None
    files: dict[str, Path] = {}
    hashes: dict[str, str] = {}
    settings: dict[str, Any] = {}
    for role, checkpoints in published.items():
        wanted = given.pop(role, None)
        by_name = {p.name: p for p in checkpoints}
        if wanted is not None and str(wanted) not in by_name:
            path = Path(wanted)
            if not path.is_file():
                raise WeightsMissing(
                    f"weights {str(wanted)!r} for {role}: there is no such file, and no published "
                    f"checkpoint of that name ({', '.join(by_name)})",
                    hint="`vlpipe weights ls`",
                )
            files[role] = path
            continue
        for name in [str(wanted)] if wanted is not None else by_name:
            added = folder.find(name)
            if added is not None:
                files[role] = added.path
                hashes[role] = added.sha256
                settings |= by_name[name].settings
                break
        else:
            if single is not None:
                files[role] = Path(single)
            elif wanted is not None:
                entry = by_name[str(wanted)]
                raise WeightsMissing(
                    f"the published checkpoint {entry.name} is not in {folder.path}",
                    hint=f"get {entry.url}, then `vlpipe weights add {entry.name} FILE`",
                )
    if given:
        raise UsageError(
            f"no checkpoint is called {', '.join(map(repr, given))}; expected one of "
            f"{', '.join(published)}"
        )
    return WeightsSource(files=files, published_sha256=hashes), settings


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsRejected(f"{path}: not a readable safetensors file: {error}") from error


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
            hint="ask its author for a state_dict or safetensors; vlpipe never loads pickled code",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsRejected(f"{path}: not a checkpoint: {_first_line(error)}") from error
    if isinstance(loaded, Mapping):
        for wrapper in ("state_dict", "model_state_dict", "model"):
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
