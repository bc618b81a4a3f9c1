"""The Visual Genome detector: a frame to its 10 to 100 regions, as published features hold them.

Papers, code and network: `networks/faster_rcnn_vg.py`; which regions are kept:
`regions/adaptive_boxes.py`. The boxes are the proposals that were pooled, not the boxes that the
head would move them to.

Frames are prepared in Caffe's form: B,G,R, mean subtracted, then scaled with OpenCV's linear
interpolation, without antialiasing and with the scale itself, not the ratio of the rounded sizes.
"""

from typing import cast

import torch
from torch import Tensor

from vlpipe.extractors.networks.faster_rcnn_vg import WIDTH, FasterRcnnVg
from vlpipe.extractors.regions.adaptive_boxes import choose_boxes, class_confidences
from vlpipe.extractors.regions.detector import (
    DetectionSettings,
    DetectorFacts,
    RegionDetector,
    Regions,
)
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

MEAN_BGR = (102.9801, 115.9465, 122.7717)

_MILVLG = "https://github.com/MILVLG/bottom-up-attention.pytorch"
_UNC = "https://github.com/airsplay/py-bottom-up-attention"


class VisualGenomeDetector(RegionDetector):
    """`FasterRcnnVg`, with frames prepared and regions chosen for it."""

    def __init__(self, settings: DetectionSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = FasterRcnnVg(num_proposals=settings.proposals)

    def forward(self, image: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        """The outputs of `FasterRcnnVg` for a prepared image (1, 3, H, W) of that scale."""
        return cast(dict[str, Tensor], self.network(image, scale))

    def prepare(self, frame: Tensor) -> Tensor:
        image = frame.flip(2).float() - frame.new_tensor(MEAN_BGR, dtype=torch.float32)
        return resize_linear(image.permute(2, 0, 1), self._scale(frame))[None]

    def find(self, frame: Tensor) -> Regions:
        settings = self.settings
        scale = self._scale(frame)
        found = self(self.prepare(frame), scale)
        boxes = found["proposals"] / scale  # (R, 4)
        probabilities = found["class_logits"].softmax(dim=1)[:, 1:]  # (R, 1600)
        confidences = class_confidences(
            boxes, probabilities, settings.nms, pixel=self.network.pixel
        )
        keep = choose_boxes(
            confidences,
            threshold=settings.confidence,
            fewest=settings.min_boxes,
            most=settings.max_boxes,
        )
        score, label = probabilities[keep].max(dim=1)
        features = found["features"][keep]
        if "attr_prob" not in found:
            return Regions.without_attributes(boxes[keep], features, label, score)
        attribute_score, attribute = found["attr_prob"][keep, 1:].max(dim=1)
        return Regions(boxes[keep], features, label, score, attribute, attribute_score)

    def load(self, checkpoint: Checkpoint) -> None:
        self.network.load(checkpoint)

    def initialise_untrained(self) -> None:
        self.network.initialise_untrained()

    def _scale(self, frame: Tensor) -> float:
        height, width = frame.shape[:2]
        return image_scale(height, width, self.settings.shorter_edge, self.settings.longer_edge)


def image_scale(height: int, width: int, shorter_edge: int, longer_edge: int) -> float:
    """By how much a frame is enlarged."""
    scale = shorter_edge / min(height, width)
    if round(scale * max(height, width)) > longer_edge:
        scale = longer_edge / max(height, width)
    return scale


def resize_linear(image: Tensor, scale: float) -> Tensor:
    """(C, H', W') float32 of (C, H, W): OpenCV's INTER_LINEAR with a scale and no size.

    Pixel i samples position (i + 0.5) / scale - 0.5, edges repeated; H' and W' are H and W times
    the scale, rounded half to even, at least 1.
    """
    for axis in (2, 1):
        length = image.shape[axis]
        count = max(1, round(length * scale))
        position = (torch.arange(count, dtype=torch.float64) + 0.5) / scale - 0.5
        position = position.clamp(0, length - 1)
        first = position.floor().long()
        share = (position - first).float().to(image.device)
        low = image.index_select(axis, first.to(image.device))
        high = image.index_select(axis, (first + 1).clamp(max=length - 1).to(image.device))
        share = share if axis == 2 else share[:, None]
        image = low + (high - low) * share
    return image


# The files of one network: regions of 10 to 100, of exactly 36 (with min_boxes=36, max_boxes=36),
# and the other port's, which are pickles of arrays and have to be converted.
FASTER_RCNN_VG = DetectorFacts(
    label_space="visual_genome_1600",
    width=WIDTH,
    has_attributes=True,
    gflop=1957.0,
    defaults={},
    checkpoints=(
        *(
            PublishedCheckpoint(
                f"faster_rcnn_vg_{name}",
                f"bua-caffe-frcn-r101-{name.replace('_', '-')}.pth",
                _MILVLG,
                "Apache-2.0",
            )
            for name in ("k10_100", "k36")
        ),
        *(
            PublishedCheckpoint(f"faster_rcnn_vg_unc_{name}", filename, _UNC, "Apache-2.0")
            for name, filename in (
                ("k10_100", "faster_rcnn_from_caffe_attr_original.pkl"),
                ("k36", "faster_rcnn_from_caffe_attr.pkl"),
                ("no_attributes", "faster_rcnn_from_caffe.pkl"),
            )
        ),
    ),
    build=VisualGenomeDetector,
)
