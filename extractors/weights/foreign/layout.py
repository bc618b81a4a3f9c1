"""What an extractor says of the files of another framework: names, axis orders, settings.

A layout stands in the extractor's own file or in one beside it, as a call of `register_layout`; it
is found with the extractors. It is written from the wanted entries backwards: for each of them
the variable that it comes from, so that nothing is left at random.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

Variables = Mapping[str, npt.NDArray[Any]]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an entry of the torch layout comes from.

    variable: name below the file's prefix. axes: for each axis of the entry, which axis of the
    variable it is; None leaves them in order. default: the value of all numbers where the variable
    is absent; None means that it must be there.
    """

    variable: str
    axes: tuple[int, ...] | None = None
    default: float | None = None


@dataclass(frozen=True)
class ForeignLayout:
    """Variables of one framework for one role of an extractor.

    role: as in `Extractor.published_checkpoints`. title: of the layout, in words.
    signature: name of a variable that files of this layout have and those of others have not;
        what stands before it, up to a slash, is the prefix of all names.
    entries: names and shapes of the torch layout that belongs to the variables of a file (some
        sizes, such as the number of classes, are the file's choice).
    origin: of each entry.
    fits: whether the signature's array is of this role, where another one has the same names.
    ignored: matches names of what is no weight, such as an optimiser's state.
    settings: configuration that these weights were trained with, where not the default.
    """

    role: str
    title: str
    signature: str
    entries: Callable[[Variables], Mapping[str, Shape]]
    origin: Callable[[str], Origin]
    fits: Callable[[npt.NDArray[Any]], bool] = lambda array: True
    ignored: re.Pattern[str] = re.compile(r"(?!)")
    settings: Mapping[str, Any] = field(default_factory=dict)

    def prefixes(self, variables: Variables) -> list[str]:
        """What stands before the signature, for each time that the file has it."""
        return [
            name[: -len(self.signature)]
            for name in variables
            if name == self.signature or name.endswith("/" + self.signature)
        ]


TENSORFLOW_IGNORED = re.compile(
    r"(.*/)?(global_step|beta[12]_power|(Adam|Momentum|RMSProp|Adagrad|Adadelta|Ftrl)(_\d)?)"
)
"""The counter of steps, and what TensorFlow's optimisers keep beside each variable."""

_layouts: list[ForeignLayout] = []


def register_layout(layout: ForeignLayout) -> ForeignLayout:
    """Makes a layout known to `vlpipe weights convert`; one title of a role is given only once."""
    if any((known.role, known.title) == (layout.role, layout.title) for known in _layouts):
        raise ValueError(f"the layout {layout.title!r} of {layout.role} is registered twice")
    _layouts.append(layout)
    return layout


def registered_layouts() -> tuple[ForeignLayout, ...]:
    """The layouts of all extractors that were imported so far."""
    return tuple(_layouts)


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, Shape]:
    """Names and shapes of a network's entries without counters, without memory for its weights."""
    with torch.device("meta"):
        state = build().state_dict()
    return {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
