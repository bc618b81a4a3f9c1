"""torchvision's COCO detectors as sources of regions, for want of Visual Genome weights or time.

Papers: Faster R-CNN (Ren et al., 2015), Mask R-CNN (He et al., 2017), Feature Pyramid Networks (Lin
et al., 2017). Code and checkpoint layout: torchvision (`backbone.body.conv1.weight`, ...,
`roi_heads.box_predictor.cls_score.weight`, ...). Their features have 1024 numbers and their labels
are COCO's: neither compares with those of the Visual Genome detector.

Data flow: frame / 255, scaled (shorter edge 800), normalised, padded to a multiple of 32 -> feature
pyramid -> proposals -> class and box of each -> boxes that survive suppression, best first -> the
vector of the box head at each of those boxes (n, 1024).

The features describe the final boxes, which asks the box head a second time, and not the proposals
that they came from. Masks are not computed.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection import FasterRCNN

from vlpipe.extractors.networks.caffe_resnet import scale_branches
from vlpipe.extractors.regions.adaptive_boxes import choose_boxes
from vlpipe.extractors.regions.detector import (
    DetectionSettings,
    DetectorFacts,
    RegionDetector,
    Regions,
    fill_up,
)
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

WIDTH = 1024

# Detections below this are no candidates, even where fewer than min_boxes remain.
_LEAST_SCORE = 0.05

# Detector: GFLOP of an image of 800 x 1088 (320 x 436) without masks, and settings of its own.
_DETECTORS: dict[str, tuple[float, dict[str, Any]]] = {
    "fasterrcnn_resnet50_fpn": (269.0, {}),
    "fasterrcnn_resnet50_fpn_v2": (561.0, {}),
    "fasterrcnn_mobilenet_v3_large_fpn": (9.0, {}),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (
        1.4,
        {"shorter_edge": 320, "longer_edge": 640, "proposals": 150},
    ),
    "maskrcnn_resnet50_fpn": (269.0, {}),
    "maskrcnn_resnet50_fpn_v2": (561.0, {}),
}

# What their training used, but for the confidence, which it leaves to the user.
_DEFAULTS: dict[str, Any] = {
    "shorter_edge": 800,
    "longer_edge": 1333,
    "proposals": 1000,
    "confidence": 0.5,
    "nms": 0.5,
    "min_boxes": 0,
    "max_boxes": 100,
}


class TorchvisionDetector(RegionDetector):
    """One of torchvision's two-stage detectors, by name."""

    # The published ResNet-50 weights of the first version were trained without epsilon.
    _WITHOUT_EPSILON: ClassVar[Sequence[str]] = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn")

    def __init__(self, name: str, settings: DetectionSettings) -> None:
        super().__init__()
        self.name, self.settings = name, settings
        self.model: FasterRCNN = get_model(
            name,
            weights=None,
            weights_backbone=None,
            min_size=settings.shorter_edge,
            max_size=settings.longer_edge,
            rpn_post_nms_top_n_test=settings.proposals,
            box_score_thresh=min(settings.confidence, _LEAST_SCORE),
            box_nms_thresh=settings.nms,
            box_detections_per_img=settings.max_boxes,
        )
        if name in self._WITHOUT_EPSILON:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 0.0
        self._own_labels: Tensor
        self.register_buffer("_own_labels", torch.tensor(_own_labels(name)), persistent=False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Detections of an image (1, 3, H, W) in R,G,B, 0..1, in its pixels, best first.

        `boxes` (n, 4), `scores` (n,), `labels` (n,) as torchvision counts them (1 to 90), and
        `features` (n, 1024) of the boxes.
        """
        model, heads = self.model, self.model.roi_heads
        images, _ = model.transform([image[0]])
        maps = model.backbone(images.tensors)
        proposals, _ = model.rpn(images, maps)

        def describe(boxes: list[Tensor]) -> Tensor:
            pooled = heads.box_roi_pool(maps, boxes, images.image_sizes)  # (n, 256, 7, 7)
            described: Tensor = heads.box_head(pooled)  # (n, 1024)
            return described

        logits, deltas = heads.box_predictor(describe(proposals))
        boxes, scores, labels = heads.postprocess_detections(
            logits.float(), deltas.float(), proposals, images.image_sizes
        )
        height, width = images.image_sizes[0]
        ratio = boxes[0].new_tensor([image.shape[3] / width, image.shape[2] / height] * 2)
        return {
            "boxes": boxes[0] * ratio,
            "scores": scores[0],
            "labels": labels[0],
            "features": describe(boxes).float(),
        }

    def prepare(self, frame: Tensor) -> Tensor:
        filled = fill_up(frame, self.settings.longer_edge)
        return filled.permute(2, 0, 1)[None].float() / 255

    def find(self, frame: Tensor) -> Regions:
        height, width = frame.shape[:2]
        found = self(self.prepare(frame))
        keep = choose_boxes(
            found["scores"],
            threshold=self.settings.confidence,
            fewest=self.settings.min_boxes,
            most=self.settings.max_boxes,
        )
        labels = self._own_labels[found["labels"]]
        # The unused ids of COCO are classes of the head as well.
        keep = keep[labels[keep] >= 0]
        limits = found["boxes"].new_tensor([width, height, width, height])
        return Regions.without_attributes(
            found["boxes"][keep].minimum(limits),
            found["features"][keep],
            labels[keep],
            found["scores"][keep],
        )

    def load(self, checkpoint: Checkpoint) -> None:
        checkpoint.load_into(self.model, what=f"torchvision {self.name}")

    def initialise_untrained(self) -> None:
        scale_branches(self.model)


def coco_names() -> tuple[str, ...]:
    """The 80 names of COCO in the order of its ids, without background and unused ids."""
    categories = get_model_weights("fasterrcnn_resnet50_fpn").DEFAULT.meta["categories"]
    return tuple(name for name in categories[1:] if name != "N/A")


def _own_labels(name: str) -> list[int]:
    """Index among `coco_names` of every class of the head, -1 where it has none."""
    names = coco_names()
    categories = get_model_weights(name).DEFAULT.meta["categories"]
    return [names.index(category) if category in names else -1 for category in categories]


def _facts(name: str) -> DetectorFacts:
    weights = get_model_weights(name).DEFAULT
    filename = weights.url.rpartition("/")[2]
    gflop, settings = _DETECTORS[name]
    return DetectorFacts(
        label_space="coco_80",
        width=WIDTH,
        has_attributes=False,
        gflop=gflop,
        defaults=_DEFAULTS | settings,
        checkpoints=(
            PublishedCheckpoint(
                f"{name}_{weights.name.lower()}",
                filename,
                weights.url,
                "BSD-3-Clause",
                sha256=filename.removesuffix(".pth").rpartition("-")[2],
            ),
        ),
        build=lambda chosen: TorchvisionDetector(name, chosen),
    )


TORCHVISION_DETECTORS = {name: _facts(name) for name in _DETECTORS}
