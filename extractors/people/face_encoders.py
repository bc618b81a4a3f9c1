"""Networks that turn an aligned face into a vector, by name: ArcFace's `iresnet18` to `iresnet100`.

`register_face_encoder` makes another one known, from any file of `extractors/`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from torch import nn

from vlpipe.extractors.networks.iresnet import DEPTHS, WIDTH, IResNet, arcface_checkpoints
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint


@dataclass(frozen=True)
class FaceEncoderEntry:
    """An encoder by name.

    build: a module from faces (N, 3, 112, 112), RGB in [-1, 1], to a dict with `embedding`
    (N, width). checkpoints: none if it needs no weights. load: fills the module from one of them.
    """

    build: Callable[[], nn.Module]
    width: int
    checkpoints: Sequence[PublishedCheckpoint] = ()
    load: Callable[[nn.Module, Checkpoint], None] | None = None


FACE_ENCODERS: dict[str, FaceEncoderEntry] = {}


def register_face_encoder(name: str, entry: FaceEncoderEntry) -> None:
    """Makes an encoder known by that name; a name is given only once."""
    if name in FACE_ENCODERS:
        raise ValueError(f"face encoder {name!r} is registered twice")
    if entry.checkpoints and entry.load is None:
        raise ValueError(f"face encoder {name!r} has checkpoints, and no function loads them")
    FACE_ENCODERS[name] = entry


def _load_iresnet(name: str, module: nn.Module, checkpoint: Checkpoint) -> None:
    cast(IResNet, module).load(checkpoint, what=f"ArcFace {name}")


for _name, _depths in DEPTHS.items():
    register_face_encoder(
        _name,
        FaceEncoderEntry(
            build=partial(IResNet, _depths),
            width=WIDTH,
            checkpoints=arcface_checkpoints(_name),
            load=partial(_load_iresnet, _name),
        ),
    )
