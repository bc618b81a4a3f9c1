"""Detectors of faces by name.

`mtcnn` is plain PyTorch under a permissive licence (`people/mtcnn.py`). `register_face_detector`
makes another one known, from any file of `extractors/`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from torch import Tensor, nn

from vlpipe.extractors.people.mtcnn import Mtcnn
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint


class FaceDetector(Protocol):
    """A module that finds the faces of one frame."""

    def __call__(self, frame: Tensor) -> dict[str, Tensor]:
        """`boxes` (N, 4), `scores` (N) and `landmarks` (N, 5, 2) of a frame (3, H, W).

        frame: float32 RGB, 0 to 255. boxes: x1, y1, x2, y2 in its pixels. landmarks: x, y of eye,
        eye, nose, mouth, mouth, from the left of the picture.
        """
        ...


@dataclass(frozen=True)
class FaceDetectorEntry:
    """A detector by name.

    build: the module (a FaceDetector) for faces of at least so many pixels, with its constructor's
    weights. checkpoints: by role; none if it needs no weights. load: fills the module's part of a
    role.
    """

    build: Callable[[int], nn.Module]
    checkpoints: Mapping[str, Sequence[PublishedCheckpoint]] = field(default_factory=dict)
    load: Callable[[nn.Module, str, Checkpoint], None] | None = None


FACE_DETECTORS: dict[str, FaceDetectorEntry] = {}


def register_face_detector(name: str, entry: FaceDetectorEntry) -> None:
    """Makes a detector known by that name; a name is given only once."""
    if name in FACE_DETECTORS:
        raise ValueError(f"face detector {name!r} is registered twice")
    if entry.checkpoints and entry.load is None:
        raise ValueError(f"face detector {name!r} has checkpoints, and no function loads them")
    FACE_DETECTORS[name] = entry


_FACENET = "https://github.com/timesler/facenet-pytorch/raw/master/data"
_MTCNN_PARTS = ("pnet", "rnet", "onet")


def _load_mtcnn(module: nn.Module, role: str, checkpoint: Checkpoint) -> None:
    part = role.removeprefix("mtcnn_")
    checkpoint.load_into(
        cast(Mtcnn, module).get_submodule(part), what=f"MTCNN, {part} of facenet-pytorch"
    )


register_face_detector(
    "mtcnn",
    FaceDetectorEntry(
        build=lambda min_face: Mtcnn(min_face=min_face),
        checkpoints={
            f"mtcnn_{part}": (
                PublishedCheckpoint(f"mtcnn_{part}", f"{part}.pt", f"{_FACENET}/{part}.pt", "MIT"),
            )
            for part in _MTCNN_PARTS
        },
        load=_load_mtcnn,
    ),
)
