"""Persons in a frame: torchvision's detectors, and any other by name.

Papers: Faster R-CNN (Ren et al., 2015), Mask R-CNN with its key point head (He et al., 2017),
feature pyramids (Lin et al., 2017), MobileNetV3 (Howard et al., 2019). Code: torchvision, trained
on COCO. Checkpoint layout: torchvision's (`backbone.body.conv1.weight`, `rpn.head.conv.0.0.weight`,
`roi_heads.box_predictor.cls_score.weight`, ...). The box head's person is COCO's category 1.

Data flow: a frame (3, H, W) in [0, 1] RGB -> normalised, shorter edge 800 unless the longer one
would exceed 1333 -> boxes (N, 4) in pixels of the frame, scores (N), and of a detector with key
points 17 of COCO's (N, 17, 3). 137 GFLOP a frame with key points at 800.

A frame goes through alone: rows are then the same whatever frames share its batch.

`register_person_detector` makes another detector known, from any file of `extractors/`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

NUM_KEYPOINTS = 17
KEYPOINT_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
"""COCO's key points in the order of the rows; left and right are the person's own."""

_COCO_PERSON = 1
_KEYPOINT_RCNN = "keypointrcnn"
_MAX_OBJECTS = 100

# torchvision gives the height of a key point's peak before the softmax over its window. Detectron
# draws points above 2, CiSIN counts those with confidence above 0.3: one is laid on the other.
_VISIBLE_PEAK = 2.0
_VISIBLE_CONFIDENCE = 0.3


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """shorter_edge, longer_edge: pixels; frames are scaled to the first, unless their longer edge
    would exceed the second.

    min_score: of boxes that are kept. max_persons: boxes of a frame, those of highest score.
    proposals: regions that the box head looks at; None leaves that to the detector.
    """

    shorter_edge: int
    longer_edge: int
    min_score: float
    max_persons: int
    proposals: int | None = None


class PersonDetector(Protocol):
    """A module that finds the persons of one frame."""

    def __call__(self, frame: Tensor) -> dict[str, Tensor]:
        """`boxes` (N, 4), `scores` (N) and perhaps `keypoints` (N, 17, 3) of a frame (3, H, W).

        frame: float32 RGB in [0, 1]. boxes: x1, y1, x2, y2 in its pixels. keypoints: x, y in its
        pixels and confidence in [0, 1].
        """
        ...


@dataclass(frozen=True)
class PersonDetectorEntry:
    """A detector by name.

    build: the module (a PersonDetector), with its constructor's weights. checkpoints: none if it
    needs no weights. load: fills the module from one of them.
    """

    build: Callable[[DetectorSettings], nn.Module]
    has_keypoints: bool
    checkpoints: Sequence[PublishedCheckpoint] = ()
    load: Callable[[nn.Module, Checkpoint], None] | None = None


PERSON_DETECTORS: dict[str, PersonDetectorEntry] = {}


def register_person_detector(name: str, entry: PersonDetectorEntry) -> None:
    """Makes a detector known by that name; a name is given only once."""
    if name in PERSON_DETECTORS:
        raise ValueError(f"person detector {name!r} is registered twice")
    if entry.checkpoints and entry.load is None:
        raise ValueError(f"person detector {name!r} has checkpoints, and no function loads them")
    PERSON_DETECTORS[name] = entry


class TorchvisionPersons(nn.Module):
    """A torchvision detector that keeps persons alone."""

    def __init__(self, architecture: str, settings: DetectorSettings) -> None:
        super().__init__()
        self.min_score, self.max_persons = settings.min_score, settings.max_persons
        limit = {}
        if settings.proposals is not None:
            limit["rpn_post_nms_top_n_test"] = settings.proposals
        has_persons_alone = architecture.startswith(_KEYPOINT_RCNN)
        self.detector = get_model(
            architecture,
            weights=None,
            weights_backbone=None,
            min_size=settings.shorter_edge,
            max_size=settings.longer_edge,
            box_score_thresh=settings.min_score,
            # Of all classes together: other detectors' persons are picked afterwards.
            box_detections_per_img=settings.max_persons if has_persons_alone else _MAX_OBJECTS,
            **limit,
        )

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        found = self.detector([frame])[0]
        persons = torch.nonzero(found["labels"] == _COCO_PERSON).flatten()[: self.max_persons]
        kept = {"boxes": found["boxes"][persons], "scores": found["scores"][persons]}
        if "keypoints" in found:
            peaks = found["keypoints_scores"][persons]  # (N, 17)
            points = found["keypoints"][persons, :, :2]  # (N, 17, 2)
            kept["keypoints"] = torch.cat([points, peak_confidence(peaks)[..., None]], dim=2)
        return kept


def peak_confidence(peaks: Tensor) -> Tensor:
    """Confidence in (0, 1) of key points by the height of their peaks: 0.3 at a height of 2."""
    shift = torch.logit(torch.tensor(_VISIBLE_CONFIDENCE)) - _VISIBLE_PEAK
    return torch.sigmoid(peaks + shift.to(peaks))


def _load_torchvision(architecture: str, module: nn.Module, checkpoint: Checkpoint) -> None:
    detector = cast(TorchvisionPersons, module).detector
    checkpoint.load_into(detector, what=f"torchvision {architecture}")
    if architecture in _WITHOUT_EPS:
        # They were trained when torchvision's frozen BatchNorm had no epsilon.
        for layer in detector.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps = 0.0


def _checkpoints(architecture: str) -> tuple[PublishedCheckpoint, ...]:
    published = []
    for weights in get_model_weights(architecture):
        if weights.name == "COCO_LEGACY":
            continue
        filename = weights.url.rpartition("/")[2]
        published.append(
            PublishedCheckpoint(
                name=f"{architecture}_{weights.name.lower()}",
                filename=filename,
                url=weights.url,
                licence="BSD-3-Clause",
                sha256=filename.removesuffix(".pth").rpartition("-")[2],
            )
        )
    return tuple(published)


# torchvision sets the epsilon of BatchNorm to 0 for the COCO_V1 checkpoints of these.
_WITHOUT_EPS = ("keypointrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn")

for _architecture in (
    "keypointrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
):
    register_person_detector(
        _architecture,
        PersonDetectorEntry(
            build=partial(TorchvisionPersons, _architecture),
            has_keypoints=_architecture.startswith(_KEYPOINT_RCNN),
            checkpoints=_checkpoints(_architecture),
            load=partial(_load_torchvision, _architecture),
        ),
    )
