"""Objects in frames: boxes, what they hold, and a vector of each.

Which detector finds them is a setting: `faster_rcnn_vg` (Visual Genome, "bottom-up attention"; see
`regions/faster_rcnn_vg.py`), whose 2048-d vectors MASN and many captioning papers read, or one of
torchvision's (`regions/torchvision_detectors.py`) with COCO's labels and 1024-d vectors.

Data flow: whole frames (H, W, 3) uint8 at `fps`, every `frame_step`-th -> the detector, one frame
at a time -> min_boxes to max_boxes regions of each. A region makes a row of every feature:

| key | feature | row | holds |
|---|---|---|---|
| features | `objects` | (D,) | the detector's vector |
| boxes | `objects_boxes` | (4,) float32 | x1, y1, x2, y2 in pixels of the decoded frame |
| labels | `objects_labels` | () int32 | index in the list that `label_space` names |
| label_scores | `objects_label_scores` | () float32 | probability of the label |
| attributes | `objects_attributes` | () int32 | index among 400 attributes, -1 if there are none |
| attribute_scores | `objects_attribute_scores` | () float32 | probability of the attribute |
| spatial | `objects_spatial` | (6,) float32 | x1/W, y1/H, x2/W, y2/H, (x2-x1)/W, (y2-y1)/H |
| index | `objects_index` | (2,) int32 | number of the sampled frame, of the box in it |

Where min_boxes equals max_boxes, n, a frame makes one row instead, with an axis of n objects in
front: (n, D), (n, 4), (n,), ... Places that no object fills hold zeros, label, attribute and the
number of the box -1.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Inferred, Names, Output
from vlpipe.extractors.media import FrameBlock, FrameRequest, MediaInfo, MediaRequest
from vlpipe.extractors.precision import run_at
from vlpipe.extractors.regions.adaptive_boxes import spatial_numbers
from vlpipe.extractors.regions.detector import (
    UNKNOWN,
    DetectionSettings,
    DetectorFacts,
    RegionDetector,
)
from vlpipe.extractors.regions.faster_rcnn_vg import FASTER_RCNN_VG
from vlpipe.extractors.regions.torchvision_detectors import TORCHVISION_DETECTORS
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

DETECTORS: Mapping[str, DetectorFacts] = {
    "faster_rcnn_vg": FASTER_RCNN_VG,
    **TORCHVISION_DETECTORS,
}

DetectorName = Literal[
    "faster_rcnn_vg",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
]

Key = Literal[
    "features",
    "boxes",
    "labels",
    "label_scores",
    "attributes",
    "attribute_scores",
    "spatial",
    "index",
]

# Key: shape of a region's part (that of features follows the detector), axes, dtype, and what
# fills up places without a region.
_PARTS: dict[Key, tuple[tuple[int, ...], tuple[str, ...], str | None, int]] = {
    "features": ((), ("channel",), None, 0),
    "boxes": ((4,), ("corner",), "float32", 0),
    "labels": ((), (), "int32", UNKNOWN),
    "label_scores": ((), (), "float32", 0),
    "attributes": ((), (), "int32", UNKNOWN),
    "attribute_scores": ((), (), "float32", 0),
    "spatial": ((6,), ("number",), "float32", 0),
    "index": ((2,), ("frame_box",), "int32", UNKNOWN),
}
_OF_ATTRIBUTES: tuple[Key, ...] = ("attributes", "attribute_scores")

Rows = npt.NDArray[Any]


class ObjectsConfig(DetectionSettings):
    """Which detector, how it looks (`DetectionSettings`), at which frames, and what is kept.

    detector: the other defaults follow it: those of torchvision's are 800 and 1333 pixels, 1000
        proposals, confidence 0.5, nms 0.5 and 0 to 100 boxes.
    label_space: names the list that labels are indices of; a fact about the detector.
    fps, frame_step: frames a second (None for all of the source), and every so many of those.
    outputs: keys of the table at the file's top; all that the detector makes if not given.
    """

    detector: DetectorName = "faster_rcnn_vg"
    label_space: Literal["visual_genome_1600", "coco_80"] = "visual_genome_1600"
    fps: float | None = Field(default=6.0, gt=0)
    frame_step: PositiveInt = 1
    outputs: Names[Key] = Field(default=tuple(_PARTS), min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _follow_detector(cls, given: Any) -> Any:  # noqa: ANN401 - whatever the caller passes
        if not isinstance(given, Mapping):
            return given
        facts = DETECTORS.get(str(given.get("detector", "faster_rcnn_vg")))
        if facts is None:
            return given
        outputs = [key for key in _PARTS if facts.has_attributes or key not in _OF_ATTRIBUTES]
        defaults = {"label_space": facts.label_space, "outputs": outputs}
        return {**facts.defaults, **defaults, **given}

    @model_validator(mode="after")
    def _fits_detector(self) -> Self:
        facts = DETECTORS[self.detector]
        if self.label_space != facts.label_space:
            raise ValueError(f"label_space of {self.detector} is {facts.label_space}")
        if not facts.has_attributes and not set(_OF_ATTRIBUTES).isdisjoint(self.outputs):
            raise ValueError(f"outputs: {self.detector} knows no attributes")
        return self

    @property
    def objects_axis(self) -> int | None:
        """Objects in every row, or None if every object is a row."""
        return self.max_boxes if self.min_boxes == self.max_boxes else None


class NumberedFrameSampler:
    """Every step-th frame as a sample: uint8 [H, W, 3] RGB, its own span, context its number.

    Numbers count the samples from 0.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self._num_frames = 0

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, FrameBlock):
            raise TypeError(f"expected frames, got {type(block).__name__}")
        samples = []
        for frame, (start, end) in zip(block.frames, block.spans, strict=True):
            number, rest = divmod(self._num_frames, self._step)
            self._num_frames += 1
            if rest == 0:
                samples.append(Sample(frame, (float(start), float(end)), number))
        return samples

    def finish(self) -> Sequence[Sample]:
        return []


@register("objects")
class Objects(Extractor):
    """Regions of frames: see the table at the file's top."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = ObjectsConfig
    rows_keep_span: ClassVar[bool] = True
    is_compilable: ClassVar[bool] = False
    # A frame of 600 x 1000 pixels keeps a processor busy, and frames share nothing.
    batch_size = 1
    gflop_per_sample: ClassVar[float] = FASTER_RCNN_VG.gflop
    description: ClassVar[str] = "objects in frames at 6 fps: boxes, labels and 2048-d vectors"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {name: facts.checkpoints for name, facts in DETECTORS.items()}

    @classmethod
    def required_roles(cls, config: ExtractorConfig) -> tuple[str, ...]:
        return (cast(ObjectsConfig, config).detector,)

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        return FrameRequest(fps=cast(ObjectsConfig, config).fps)

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(ObjectsConfig, config)
        axis = settings.objects_axis
        objects = ((), ()) if axis is None else ((axis,), ("object",))
        made = []
        for key in settings.outputs:
            shape, dimensions, dtype, _ = _PARTS[key]
            if key == "features":
                shape = (DETECTORS[settings.detector].width,)
            made.append(
                Output(
                    cls.name if key == "features" else f"{cls.name}_{key}",
                    key,
                    objects[0] + shape,
                    objects[1] + dimensions,
                    dtype,
                )
            )
        return tuple(made)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        return super().samples_per_second(config) / cast(ObjectsConfig, config).frame_step

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        settings = cast(ObjectsConfig, config)
        return DETECTORS[settings.detector].build(settings)

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        cast(RegionDetector, network).initialise_untrained()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        (checkpoint,) = checkpoints.values()
        cast(RegionDetector, network).load(checkpoint)

    @classmethod
    def check_checkpoint(cls, role: str, checkpoint: Checkpoint) -> None:
        DETECTORS[role].build(ObjectsConfig(detector=cast(DetectorName, role))).load(checkpoint)

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        return NumberedFrameSampler(cast(ObjectsConfig, self.spec.config).frame_step)

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        """`no_objects` for frames without any, where every object is a row."""
        has_axis = cast(ObjectsConfig, self.spec.config).objects_axis is not None
        return super().note(info, num_rows) if num_rows or has_axis else "no_objects"

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        """The network's input of one frame, (1, H, W, 3) uint8."""
        (frame,) = torch.from_numpy(samples).to(self.device)
        return cast(RegionDetector, self.network).prepare(frame)

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """The regions of N frames; each frame is looked at alone."""
        empty = {o.feature: np.zeros((0, *o.row_shape), _dtype(o)) for o in self.spec.outputs}
        made = [empty, *(self._regions_of(sample) for sample in samples)]
        counts = np.array([len(next(iter(rows.values()))) for rows in made[1:]], np.int64)
        spans = np.array([sample.span for sample in samples], np.float64).reshape(-1, 2)
        return Inferred(
            {feature: np.concatenate([rows[feature] for rows in made]) for feature in empty},
            spans.repeat(counts, axis=0),
            counts,
        )

    def _regions_of(self, sample: Sample) -> dict[str, Rows]:
        """The rows of one frame by feature."""
        frame = torch.from_numpy(sample.data).to(self.device)  # (H, W, 3) uint8
        with torch.inference_mode(), run_at(self.spec.precision, self.device):
            found = cast(RegionDetector, self.network).find(frame)
            spatial = spatial_numbers(found.boxes, *sample.data.shape[:2])
        count = len(found.boxes)
        parts: dict[Key, Tensor] = {
            "features": found.features,
            "boxes": found.boxes,
            "labels": found.labels,
            "label_scores": found.label_scores,
            "attributes": found.attributes,
            "attribute_scores": found.attribute_scores,
            "spatial": spatial,
            "index": torch.tensor([[sample.context, box] for box in range(count)]).view(-1, 2),
        }
        axis = cast(ObjectsConfig, self.spec.config).objects_axis
        rows: dict[str, Rows] = {}
        for output in self.spec.outputs:
            key = cast(Key, output.key)
            values = parts[key].cpu().numpy().astype(_dtype(output))
            if axis is not None:
                filled = np.full(output.row_shape, _PARTS[key][3], values.dtype)
                filled[:count] = values
                if key == "index":
                    filled[:, 0] = sample.context
                values = filled[None]  # (1, axis, ...)
            rows[output.feature] = values
        return rows


def _dtype(output: Output) -> npt.DTypeLike:
    return np.dtype(output.dtype or "float32")
