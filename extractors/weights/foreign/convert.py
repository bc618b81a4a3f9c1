"""A file of another framework into the layout that the extractor of a role loads."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.extractor import Extractor
from vlpipe.extractors.registry import list_checkpoints
from vlpipe.extractors.weights.checkpoint import CONVERSION_KEY, Checkpoint, sha256_of
from vlpipe.extractors.weights.foreign.layout import (
    ForeignLayout,
    Origin,
    Shape,
    registered_layouts,
)
from vlpipe.extractors.weights.foreign.read_variables import ForeignFile, read_variables
from vlpipe.stores.errors import UsageError

CONVERTER_VERSION = 1
"""Raised whenever a change of code changes what is written."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """One entry: the variable that it comes from (None: a constant), and its shape."""

    entry: str
    variable: str | None
    shape: Shape


@dataclass(frozen=True)
class Conversion:
    """Weights in the layout of `role`, and where each of them comes from.

    skipped: names of the source's other entries, with the reason why they are no weights.
    settings: configuration to run the weights with; recorded in the file and taken from there.
    """

    source: ForeignFile
    role: str
    layout: str
    state: Mapping[str, Tensor]
    mapped: tuple[Mapped, ...]
    skipped: Mapping[str, str]
    settings: Mapping[str, Any]

    def save(self, target: Path, *, overwrite: bool = False) -> str:
        """Writes a safetensors file whole or not at all; its SHA-256.

        The same source gives the same bytes. Raises UsageError for another kind of name and, unless
        `overwrite`, for a file that is there.
        """
        check_target(target, overwrite=overwrite)
        facts = {
            "role": self.role,
            "source": dict(self.source.sha256),
            "format": self.source.format,
            "layout": self.layout,
            "converter_version": CONVERTER_VERSION,
            "settings": dict(self.settings),
        }
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            # One entry: safetensors writes several in an order of chance.
            save_file(dict(self.state), temporary, {CONVERSION_KEY: json.dumps(facts)})
            temporary.replace(target)
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{target} cannot be written: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)
        return sha256_of(target)


def convert(source: Path, *, role: str | None = None) -> Conversion:
    """The weights of a file, in the layout of a role (default: the one its variables tell).

    A file whose entries have the names of the role's own layout is taken as it is. Every entry of
    the layout must be there with its shape and finite, and every variable must be accounted for;
    the extractor of the role then loads the result. Raises WeightsRejected with the variables
    named, WeightsMissing without a file, UsageError for an unknown role.
    """
    extractors = {r: extractors[0] for _, r, extractors in list_checkpoints().values()}
    if role is not None and role not in extractors:
        raise UsageError(
            f"no checkpoint is called {role!r}; expected one of {', '.join(sorted(extractors))}"
        )
    file = read_variables(source)
    chosen = _choose_layout(file, role)
    if chosen is not None:
        conversion = _map(file, *chosen)
    elif role is not None:
        conversion = _keep(file, role)
    else:
        raise WeightsRejected(
            f"{source}: a {file.format} of {len(file.variables)} arrays ("
            f"{_some(sorted(file.variables))}), which no known layout has",
            hint="--role NAME says which network it is of; known layouts: "
            + "; ".join(f"{known.role} ({known.title})" for known in registered_layouts()),
        )
    _check_loads(extractors[conversion.role], conversion)
    return conversion


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raises UsageError for another kind of name, and for a file that may not be replaced."""
    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: expected a name that ends in .safetensors")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} is there already", hint="--overwrite replaces it")


def _choose_layout(file: ForeignFile, role: str | None) -> tuple[ForeignLayout, str] | None:
    """The layout, and the prefix of its variables' names."""
    by_name = [
        (layout, prefix)
        for layout in registered_layouts()
        if role in (None, layout.role)
        for prefix in layout.prefixes(file.variables)
    ]
    fitting = [
        (layout, prefix)
        for layout, prefix in by_name
        if layout.fits(file.variables[prefix + layout.signature])
    ]
    # A role that was given is kept, so that the error says which of its shapes differ.
    chosen = fitting or (by_name if role else [])
    if len(chosen) > 1 or (by_name and not chosen):
        raise UsageError(
            f"{file.path}: cannot tell which of these to convert: "
            + ", ".join(f"{layout.role} ({prefix!r})" for layout, prefix in chosen or by_name),
            hint="--role NAME",
        )
    return chosen[0] if chosen else None


def _map(file: ForeignFile, layout: ForeignLayout, prefix: str) -> Conversion:
    below = {n.removeprefix(prefix): v for n, v in file.variables.items() if n.startswith(prefix)}
    entries = layout.entries(below)
    origins = {entry: layout.origin(entry) for entry in entries}
    skipped = dict(file.skipped)
    used = {origin.variable for origin in origins.values()}
    others = tuple(p for p in layout.prefixes(file.variables) if p not in ("", prefix))
    for name in file.variables:
        if layout.ignored.fullmatch(name):
            skipped[name] = "no weight: a counter, or an optimiser's state"
        elif others and name.startswith(others):
            skipped[name] = "of another network in the same file"
    unknown = [
        name
        for name in file.variables
        if name not in skipped and not (name.startswith(prefix) and name[len(prefix) :] in used)
    ]
    missing = [
        prefix + origin.variable
        for origin in origins.values()
        if origin.variable not in below and origin.default is None
    ]
    differ = [
        f"{prefix}{origin.variable} {found} instead of {expected}"
        for entry, origin in origins.items()
        if origin.variable in below
        and (found := _without_leading_ones(below[origin.variable], len(entries[entry])).shape)
        != (expected := _foreign_shape(entries[entry], origin))
    ]
    _reject(file, f"{layout.role} ({layout.title})", missing, differ, unknown)
    state = {
        entry: _to_tensor(below.get(origin.variable), origin, entries[entry])
        for entry, origin in origins.items()
    }
    mapped = tuple(
        Mapped(e, prefix + o.variable if o.variable in below else None, entries[e])
        for e, o in origins.items()
    )
    return Conversion(file, layout.role, layout.title, state, mapped, skipped, layout.settings)


def _keep(file: ForeignFile, role: str) -> Conversion:
    """The arrays as they are; the extractor's own check names what differs."""
    _reject(file, role, [], [], [])
    state = {k: torch.tensor(v) for k, v in file.variables.items()}
    mapped = tuple(Mapped(k, k, tuple(v.shape)) for k, v in state.items())
    return Conversion(file, role, "entries as they are", state, mapped, file.skipped, {})


def _reject(
    file: ForeignFile, what: str, missing: list[str], differ: list[str], unknown: list[str]
) -> None:
    # Integers, such as counters of batches, are finite; `isfinite` takes them too.
    infinite = [name for name, values in file.variables.items() if not np.isfinite(values).all()]
    problems = [
        f"{len(names)} variables {word} ({_some(names)})"
        for word, names in (
            ("missing", missing),
            ("of another shape", differ),
            ("not of this layout", unknown),
            ("with NaN or infinite values", infinite),
        )
        if names
    ]
    problems += [
        f"{name} was not read: {file.skipped[name]}" for name in missing if name in file.skipped
    ]
    if problems:
        raise WeightsRejected(
            f"{file.path}: these are not the weights of {what}: {'; '.join(problems)}",
            hint="--role NAME says which network they are of, if it is another one",
        )


def _check_loads(extractor: type[Extractor], conversion: Conversion) -> None:
    checkpoint = Checkpoint(conversion.source.path, dict(conversion.state))
    extractor.check_checkpoint(conversion.role, checkpoint)


def _to_tensor(array: npt.NDArray[Any] | None, origin: Origin, shape: Shape) -> Tensor:
    if array is None:
        return torch.full(shape, float(origin.default or 0.0))
    # Torch turns a copy of its own: the arrays may be read-only, and NumPy takes thrice the time.
    tensor = torch.tensor(_without_leading_ones(array, len(shape)))
    return tensor if origin.axes is None else tensor.permute(origin.axes).contiguous()


def _without_leading_ones(array: npt.NDArray[Any], ndim: int) -> npt.NDArray[Any]:
    """TensorFlow keeps statistics of a channel as (1, 1, 1, 1, channels)."""
    while array.ndim > ndim and array.shape[0] == 1:
        array = array[0]
    return array


def _foreign_shape(shape: Shape, origin: Origin) -> Shape:
    """The shape that the variable of an entry of that shape has."""
    if origin.axes is None:
        return shape
    sizes = dict(zip(origin.axes, shape, strict=True))
    return tuple(sizes[axis] for axis in range(len(shape)))


def _some(names: list[str], most: int = 4) -> str:
    rest = f", ... {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
