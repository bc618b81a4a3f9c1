"""Boxes, key points and colours of the persons in every frame.

Stage 2.2 of CiSIN (Yu et al., Character Grounding and Re-Identification in Story of Videos and
Text Descriptions, ECCV 2020), with Keypoint R-CNN in place of CenterNet: one network for boxes and
key points, see `people/detectors.py`. Rows go on to `person_tracks`.

Data flow: frames (H, W, 3) uint8 as they are in the file -> the detector, one frame at a time ->
boxes clipped to the frame, those without area left out, N a frame by falling score: `boxes` (N, 4),
`score` (N), `keypoints` (N, 17, 3), `appearance` (N, 128). A frame without persons has no rows.

With `detector=given_boxes` the boxes come from that extractor: known ones in place of a detector's.

CiSIN squashes clips to 224 x 224 before it detects; that hurts, so that frames keep their size
here and boxes are in pixels of the original frame. The missing `resize` of the request, which is
part of the provenance, records this.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Inferred, Output, Source
from vlpipe.extractors.media import FrameBlock, FrameRequest, MediaInfo, MediaRequest
from vlpipe.extractors.people.appearance import WIDTH, describe_appearance
from vlpipe.extractors.people.detectors import (
    NUM_KEYPOINTS,
    PERSON_DETECTORS,
    DetectorSettings,
    PersonDetectorEntry,
)
from vlpipe.extractors.people.rows import MadeRows, gather_rows
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, FrameSampler, Sample, Sampler, SourceRows
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

GIVEN = "given_boxes"
"""In the place of a detector: the boxes of that extractor, all of score 1."""

# Thinner boxes show nothing of a person.
MIN_EDGE_PX = 1.0


class PersonBoxesConfig(ExtractorConfig):
    """Which frames, which detector, and which of its boxes are kept.

    fps: frames a second, 24 in CiSIN; None keeps every frame of the source.
    detector: a name of `PERSON_DETECTORS`; key points come from `keypointrcnn_resnet50_fpn` alone.
        `given_boxes` takes those that `given_boxes.folder` has.
    shorter_edge, longer_edge: pixels; the detector scales frames to the first, unless their longer
        edge would exceed the second.
    min_score: of boxes that are kept. Low ones (below `start_score` of `person_tracks`) carry
        tracks on through half-hidden frames.
    max_persons: boxes of a frame, those of highest score.
    proposals: regions that the box head looks at. None is the detector's own number, 1000 of
        most; the head takes 26 MFLOP a region, so that fewer make draft runs on a CPU faster.
    """

    fps: float | None = Field(default=24.0, gt=0)
    detector: str = "keypointrcnn_resnet50_fpn"
    shorter_edge: PositiveInt = 800
    longer_edge: PositiveInt = 1333
    min_score: float = Field(default=0.3, ge=0, le=1)
    max_persons: PositiveInt = 30
    proposals: PositiveInt | None = None

    @field_validator("detector")
    @classmethod
    def _detector_is_known(cls, name: str) -> str:
        if name not in PERSON_DETECTORS and name != GIVEN:
            raise ValueError(f"expected one of {', '.join(sorted(PERSON_DETECTORS))}, {GIVEN}")
        return name

    @property
    def entry(self) -> PersonDetectorEntry:
        if self.detector == GIVEN:
            return PersonDetectorEntry(lambda _: nn.Identity(), has_keypoints=False)
        return PERSON_DETECTORS[self.detector]


@register("person_boxes")
class PersonBoxes(Extractor):
    """Persons of each frame; all outputs share the row index (frame, person)."""

    version: ClassVar[int] = 1
    has_registered_parts: ClassVar[bool] = True
    Config: ClassVar[type[ExtractorConfig]] = PersonBoxesConfig
    batch_size = 4
    gflop_per_sample: ClassVar[float] = 137.0
    description: ClassVar[str] = "person boxes with 17 key points (Keypoint R-CNN): a row a person"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {n: entry.checkpoints for n, entry in PERSON_DETECTORS.items() if entry.checkpoints}

    @classmethod
    def required_roles(cls, config: ExtractorConfig) -> tuple[str, ...]:
        settings = cast(PersonBoxesConfig, config)
        return (settings.detector,) if settings.entry.checkpoints else ()

    @classmethod
    def sources(cls, config: ExtractorConfig) -> Mapping[str, Source]:
        settings = cast(PersonBoxesConfig, config)
        if settings.detector != GIVEN:
            return {}
        return {"given": Source(GIVEN, {"fps": settings.fps})}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        return FrameRequest(fps=cast(PersonBoxesConfig, config).fps)

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        outputs = [
            Output(cls.name, "boxes", (4,), ("corner",), "float32"),
            Output(f"{cls.name}_score", "score", (), (), "float32"),
            Output(f"{cls.name}_appearance", "appearance", (WIDTH,), ("colour",)),
        ]
        if cast(PersonBoxesConfig, config).entry.has_keypoints:
            shape, dimensions = (NUM_KEYPOINTS, 3), ("keypoint", "x_y_confidence")
            outputs.append(
                Output(f"{cls.name}_keypoints", "keypoints", shape, dimensions, "float32")
            )
        return tuple(outputs)

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        settings = cast(PersonBoxesConfig, config)
        return settings.entry.build(
            DetectorSettings(
                settings.shorter_edge,
                settings.longer_edge,
                settings.min_score,
                settings.max_persons,
                settings.proposals,
            )
        )

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        for role, checkpoint in checkpoints.items():
            load = PERSON_DETECTORS[role].load
            assert load is not None
            load(network, checkpoint)

    @classmethod
    def check_checkpoint(cls, role: str, checkpoint: Checkpoint) -> None:
        cls.load(cls.build_network(PersonBoxesConfig(detector=role)), {role: checkpoint})

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        del info
        return "no_persons" if num_rows == 0 else None

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        is_given = cast(PersonBoxesConfig, self.spec.config).detector == GIVEN
        return _GivenSampler() if is_given else FrameSampler()

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        frames = torch.from_numpy(samples).to(self.device)  # (B, H, W, 3) uint8
        return frames.permute(0, 3, 1, 2).float().div_(255)  # (B, 3, H, W)

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """The persons of each frame, however many; see `Extractor.infer`."""
        return gather_rows(self, [self._find(sample) for sample in samples])

    def _find(self, sample: Sample) -> MadeRows:
        frame = sample.data
        settings = cast(PersonBoxesConfig, self.spec.config)
        if settings.detector == GIVEN:
            boxes: npt.NDArray[np.float32] = sample.context
            found = {"boxes": boxes, "scores": np.ones(len(boxes), np.float32)}
        else:
            found = {
                key: values.float().cpu().numpy()
                for key, values in self.run_network(self.to_input(frame[None])[0]).items()
            }
        height, width = frame.shape[:2]
        boxes = clip_boxes(found["boxes"], width, height)
        kept = find_usable(boxes, found["scores"], settings.min_score, settings.max_persons)
        boxes = boxes[kept]
        rows = {
            "boxes": boxes,
            "score": found["scores"][kept],
            "appearance": describe_appearance(frame, boxes),
        }
        if settings.entry.has_keypoints:
            rows["keypoints"] = found["keypoints"][kept]
        return MadeRows(rows, np.tile(np.array(sample.span), (len(kept), 1)))


class _GivenSampler:
    """One sample a frame, with the boxes that are given for it as its context."""

    def __init__(self) -> None:
        self._frames: deque[Sample] = deque()
        self._given: deque[SourceRows] = deque()
        self._cut = FrameSampler()

    def push(self, block: Block) -> Sequence[Sample]:
        if isinstance(block, FrameBlock):
            self._frames += self._cut.push(block)
        elif isinstance(block, SourceRows):
            self._given.append(block)
        else:
            raise TypeError(f"expected frames and boxes, got {type(block).__name__}")
        samples = []
        while self._frames and self._given:
            # Both come once a frame, in order.
            frame, given = self._frames.popleft(), self._given.popleft()
            assert frame.span == given.span, f"frame at {frame.span}, boxes at {given.span}"
            samples.append(Sample(frame.data, frame.span, given.rows["boxes"]))
        return samples

    def finish(self) -> Sequence[Sample]:
        return []


def clip_boxes(
    boxes: npt.NDArray[np.floating], width: float, height: float
) -> npt.NDArray[np.float32]:
    """Boxes [N, 4] x1, y1, x2, y2 cut to [0, width] x [0, height]; NaN stays."""
    edges = np.array([width, height, width, height], np.float32)
    return np.clip(np.asarray(boxes, np.float32).reshape(-1, 4), 0, edges)


def find_usable(
    boxes: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    min_score: float,
    max_persons: int,
) -> npt.NDArray[np.int64]:
    """int64 indices, by falling score, of the boxes that are kept.

    Boxes thinner than a pixel (outside of the frame, before they were clipped), not finite, or of
    too low a score are left out.
    """
    edges = boxes[:, 2:] - boxes[:, :2]
    usable = np.isfinite(boxes).all(axis=1) & (edges >= MIN_EDGE_PX).all(axis=1)
    usable &= scores >= min_score
    order = np.argsort(-scores, kind="stable")
    return order[usable[order]][:max_persons]
