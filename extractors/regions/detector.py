"""What every object detector is to `objects`: one frame in, its regions out.

A detector finds boxes, names them in its own label space and describes each with a vector. Boxes
are (x1, y1, x2, y2) in pixels of the frame as it was decoded, 0 at its left and upper edge.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vlpipe.extractors.extractor import ExtractorConfig
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

UNKNOWN = -1
"""Id of an attribute where the checkpoint has none, and of all that fills up a row."""


class DetectionSettings(ExtractorConfig):
    """How a detector looks at a frame and which of its regions are kept.

    The defaults are those of the chosen detector (`DetectorFacts.defaults`).
    shorter_edge, longer_edge: pixels that frames are scaled to; the shorter edge, unless the other
        one would exceed its limit.
    proposals: regions that the head looks at; most of the work.
    confidence: a region is kept from this probability on.
    nms: boxes of one class that overlap by so much are one object.
    min_boxes, max_boxes: regions of a frame. Where fewer are confident the best min_boxes are kept
        all the same, as far as there are any.
    """

    shorter_edge: int = Field(default=600, ge=16, le=4096)
    longer_edge: int = Field(default=1000, ge=16, le=8192)
    proposals: int = Field(default=300, ge=1, le=2000)
    confidence: float = Field(default=0.2, ge=0, le=1)
    nms: float = Field(default=0.3, gt=0, le=1)
    min_boxes: int = Field(default=10, ge=0)
    max_boxes: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.shorter_edge > self.longer_edge:
            raise ValueError(f"shorter_edge exceeds longer_edge, which is {self.longer_edge}")
        if self.min_boxes > self.max_boxes:
            raise ValueError(f"min_boxes exceeds max_boxes, which is {self.max_boxes}")
        return self


@dataclass(frozen=True, slots=True)
class Regions:
    """The n kept regions of a frame, n >= 0.

    boxes: float32 (n, 4). features: float32 (n, D). labels: int64 (n,), indices of the detector's
    label space. attributes: int64 (n,), indices of the attribute list, or UNKNOWN. Scores are
    probabilities, float32 (n,); that of an unknown attribute is 0.
    """

    boxes: Tensor
    features: Tensor
    labels: Tensor
    label_scores: Tensor
    attributes: Tensor
    attribute_scores: Tensor

    @classmethod
    def without_attributes(
        cls, boxes: Tensor, features: Tensor, labels: Tensor, label_scores: Tensor
    ) -> Self:
        """Regions of a detector that knows no attributes."""
        unknown, zeros = torch.full_like(labels, UNKNOWN), torch.zeros_like(label_scores)
        return cls(boxes, features, labels, label_scores, unknown, zeros)


class RegionDetector(nn.Module, ABC):
    """A network with all that makes regions of a frame."""

    @abstractmethod
    def prepare(self, frame: Tensor) -> Tensor:
        """The network's input (1, 3, H', W') of a frame, uint8 (H, W, 3) in R,G,B."""

    @abstractmethod
    def find(self, frame: Tensor) -> Regions:
        """The regions of a frame, uint8 (H, W, 3) in R,G,B, on its device.

        They depend on nothing but the frame, whatever was or will be looked at besides.
        """

    @abstractmethod
    def load(self, checkpoint: Checkpoint) -> None:
        """Fills the network from a published layout; WeightsRejected for another network's."""

    def initialise_untrained(self) -> None:
        """Draws weights whose activations stay within float16."""


@dataclass(frozen=True)
class DetectorFacts:
    """A detector by name: what is known of it before its network is built.

    label_space: name of the list that labels are indices of (`regions/labels.py`). width: of the
    features. gflop: of a frame at the default settings, a multiply and an add counted as two.
    """

    label_space: str
    width: int
    has_attributes: bool
    gflop: float
    defaults: Mapping[str, Any]
    checkpoints: tuple[PublishedCheckpoint, ...]
    build: Callable[[DetectionSettings], RegionDetector]


def fill_up(frame: Tensor, longer_edge: int, least: int = 8) -> Tensor:
    """The frame (H, W, 3) with zeros below or to the right where it is extremely narrow.

    Afterwards no edge comes below `least` pixels when the longer one is scaled to `longer_edge`.
    """
    height, width, channels = frame.shape
    shortest = -(-max(height, width) * least // longer_edge)
    if min(height, width) >= shortest:
        return frame
    filled = frame.new_zeros((max(height, shortest), max(width, shortest), channels))
    filled[:height, :width] = frame
    return filled
