"""Common-sense vectors of the objects in a frame (VC R-CNN), computed where the objects change.

Papers: Visual Commonsense R-CNN (Wang et al., 2020), iPerceive (Chadha et al., 2020). Network and
checkpoints: `networks/vc_rcnn.py`; when a frame is computed: `regions/label_changes.py`.

Data flow: whole frames (H, W, 3) uint8 at `fps`, and the boxes and labels that `objects` (or
another extractor of boxes) finds in them -> frame scaled by Pillow, B,G,R minus the mean, padded to
multiples of 32, boxes scaled alike -> fc7 of every box. A box makes a row of every feature:

| key | feature | row | holds |
|---|---|---|---|
| features | `commonsense` | (1024,) | fc7 after ReLU, >= 0 |
| boxes | `commonsense_boxes` | (4,) float32 | x1, y1, x2, y2 in pixels of the source frame |
| labels | `commonsense_labels` | () int32 | index in the detector's label space |
| index | `commonsense_index` | (3,) int32 | number of the frame, of the box, of the source frame |

The detector looks at every frame. A row is *re-used* where the numbers of frame and source frame
differ: then vector and box are those of the source. Frames without objects have no rows.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Inferred, Names, Output, Source
from vlpipe.extractors.media import FrameBlock, FrameRequest, MediaInfo, MediaRequest
from vlpipe.extractors.networks.vc_intervention import WIDTH
from vlpipe.extractors.networks.vc_rcnn import VcRcnnNetwork, load_causal
from vlpipe.extractors.regions.faster_rcnn_vg import MEAN_BGR
from vlpipe.extractors.regions.label_changes import (
    EventStarts,
    GivenEvents,
    LabelChanges,
    Shots,
    WholeVideo,
    read_events,
)
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler, SourceRows
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint, sha256_of

_STRIDE = 32
_VC_RCNN = "https://github.com/Wangt-CN/VC-R-CNN"

Key = Literal["features", "boxes", "labels", "index"]
_PARTS: dict[Key, tuple[tuple[int, ...], tuple[str, ...], str | None]] = {
    "features": ((WIDTH,), ("channel",), None),
    "boxes": ((4,), ("corner",), "float32"),
    "labels": ((), (), "int32"),
    "index": ((3,), ("frame_box_source",), "int32"),
}


class CommonsenseConfig(ExtractorConfig):
    """Whose boxes, at which frames, at which size, and when they are computed.

    boxes: the extractor that finds them, with outputs `boxes` and `labels`.
    detector, confidence, nms, max_boxes: of `objects`; the defaults are iPerceive's.
    fps: frames a second; None keeps every frame of the source.
    depth: of the residual network, as in the checkpoint.
    shorter_edge, longer_edge: pixels; 800 and 1333 in VC R-CNN, 400 and 667 in iPerceive.
    cache: False computes every frame (exact mode).
    events: where features are computed anew in any case: `video` (its first frame only), `shots`
        (needs PySceneDetect, with shot_threshold), `file`: the starts in events_file.
    events_file: JSON in ActivityNet Captions' form, by the video's file name without ending.
        events_sha256 follows from it.
    """

    boxes: str = "objects"
    detector: str = "maskrcnn_resnet50_fpn_v2"
    confidence: float = Field(default=0.7, ge=0, le=1)
    nms: float = Field(default=0.3, gt=0, le=1)
    max_boxes: PositiveInt = 100
    fps: float | None = Field(default=2.0, gt=0)
    depth: Literal[50, 101] = 101
    shorter_edge: int = Field(default=800, ge=32, le=4096)
    longer_edge: int = Field(default=1333, ge=32, le=8192)
    cache: bool = True
    events: Literal["video", "shots", "file"] = "video"
    shot_threshold: float = Field(default=27.0, gt=0)
    events_file: Path | None = Field(default=None, exclude=True)
    events_sha256: str = ""
    outputs: Names[Key] = Field(default=tuple(_PARTS), min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _hash_events(cls, given: Any) -> Any:  # noqa: ANN401 - whatever the caller passes
        if isinstance(given, Mapping) and given.get("events_file"):
            path = Path(given["events_file"])
            if not path.is_file():
                raise ValueError(f"events_file: {path} is not there")
            return {**given, "events": "file", "events_sha256": sha256_of(path)}
        return given

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.shorter_edge > self.longer_edge:
            raise ValueError(f"shorter_edge exceeds longer_edge, which is {self.longer_edge}")
        if self.events == "file" and not self.events_sha256:
            raise ValueError("events=file needs events_file")
        return self


@dataclass
class _Computed:
    """What a sample holds beside its frame: boxes, and the frames that use the result."""

    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    numbers: list[int] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)


class SourceFrameSampler:
    """One sample a source frame, handed on once no later frame can use it.

    Holds the frames whose boxes have not come yet, and one source.
    """

    def __init__(self, events: EventStarts, *, is_exact: bool) -> None:
        self._events = events
        self._is_exact = is_exact
        self._changes = LabelChanges()
        self._frames: deque[tuple[npt.NDArray[np.uint8], tuple[float, float]]] = deque()
        self._source: tuple[npt.NDArray[np.uint8], _Computed] | None = None
        self._num_frames = 0

    def push(self, block: Block) -> Sequence[Sample]:
        if isinstance(block, FrameBlock):
            self._frames.extend(
                (frame, (float(start), float(end)))
                for frame, (start, end) in zip(block.frames, block.spans, strict=True)
            )
            return []
        if not isinstance(block, SourceRows):
            raise TypeError(f"expected frames and their boxes, got {type(block).__name__}")
        frame, span = self._frames.popleft()
        labels = block.rows["labels"]
        is_start = self._events.is_start(frame, span)
        is_source = self._changes.is_source(labels.tolist(), starts_event=is_start)
        samples: Sequence[Sample] = []
        if is_source or self._is_exact or self._source is None:
            samples = self.finish()
            self._source = (frame, _Computed(block.rows["boxes"].reshape(-1, 4), labels))
        assert self._source is not None
        self._source[1].numbers.append(self._num_frames)
        self._source[1].spans.append(span)
        self._num_frames += 1
        return samples

    def finish(self) -> Sequence[Sample]:
        source, self._source = self._source, None
        if source is None or not len(source[1].boxes):
            return []
        frame, computed = source
        return [Sample(frame, computed.spans[0], computed)]


@register("commonsense")
class Commonsense(Extractor):
    """Vectors of boxes: see the table at the file's top."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = CommonsenseConfig
    # A frame of 800 x 1088 pixels keeps a processor busy, and frames share nothing.
    batch_size = 1
    gflop_per_sample: ClassVar[float] = 361.0
    description: ClassVar[str] = "VC R-CNN: a 1024-d common-sense vector of every object, at 2 fps"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {
            "vc_rcnn": [PublishedCheckpoint("vc_rcnn_coco", "model_final.pth", _VC_RCNN, "MIT")]
        }

    @classmethod
    def sources(cls, config: ExtractorConfig) -> Mapping[str, Source]:
        settings = cast(CommonsenseConfig, config)
        wanted: dict[str, Any] = {"fps": settings.fps, "outputs": ("boxes", "labels")}
        if settings.boxes == "objects":
            wanted |= {
                "detector": settings.detector,
                "confidence": settings.confidence,
                "nms": settings.nms,
                "min_boxes": 0,
                "max_boxes": settings.max_boxes,
                "frame_step": 1,
            }
        return {"boxes": Source(settings.boxes, wanted)}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        return FrameRequest(fps=cast(CommonsenseConfig, config).fps)

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        made = []
        for key in cast(CommonsenseConfig, config).outputs:
            shape, dimensions, dtype = _PARTS[key]
            name = cls.name if key == "features" else f"{cls.name}_{key}"
            made.append(Output(name, key, shape, dimensions, dtype))
        return tuple(made)

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        return VcRcnnNetwork(cast(CommonsenseConfig, config).depth)

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        cast(VcRcnnNetwork, network).initialise_untrained()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        cast(VcRcnnNetwork, network).load(checkpoints["vc_rcnn"])

    @classmethod
    def check_checkpoint(cls, role: str, checkpoint: Checkpoint) -> None:
        depth = 101 if any("layer3.22." in key for key in checkpoint.state) else 50
        VcRcnnNetwork(depth).load(checkpoint)
        load_causal(checkpoint)

    def sampler(self, info: MediaInfo) -> Sampler:
        settings = cast(CommonsenseConfig, self.spec.config)
        return SourceFrameSampler(self._events_of(info), is_exact=not settings.cache)

    def _events_of(self, info: MediaInfo) -> EventStarts:
        settings = cast(CommonsenseConfig, self.spec.config)
        if settings.events == "shots":
            return Shots(settings.shot_threshold)
        if settings.events == "file" and settings.events_file is not None:
            starts = read_events(settings.events_file)
            return GivenEvents(starts.get(Path(info.path).stem, ()))
        return WholeVideo()

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        del info
        return None if num_rows else "no_objects"

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        """The network's input (1, 3, H', W') of one frame, uint8 (1, H, W, 3) RGB."""
        settings = cast(CommonsenseConfig, self.spec.config)
        (frame,) = samples
        height, width = scaled_size(
            frame.shape[0], frame.shape[1], settings.shorter_edge, settings.longer_edge
        )
        scaled = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
        rgb = torch.from_numpy(np.asarray(scaled).copy()).to(self.device)  # (H', W', 3)
        image = rgb.flip(2).float() - rgb.new_tensor(MEAN_BGR, dtype=torch.float32)
        padded = image.new_zeros((3, _filled(height), _filled(width)))
        padded[:, :height, :width] = image.permute(2, 0, 1)
        return padded[None]

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """Rows of N source frames: those of each frame that uses it, one frame after the other."""
        made = [self._rows_of(sample) for sample in samples]
        rows = {}
        for output in self.spec.outputs:
            dtype = output.dtype or "float32"
            empty = np.zeros((0, *output.row_shape), dtype)
            rows[output.feature] = np.concatenate(
                [empty, *(np.asarray(m[cast(Key, output.key)], dtype) for m in made)]
            )
        counts = np.array([len(m["labels"]) for m in made], np.int64)
        contexts = [cast(_Computed, sample.context) for sample in samples]
        spans = [np.repeat(np.array(c.spans, np.float64), len(c.boxes), axis=0) for c in contexts]
        uses = np.array([len(c.numbers) for c in contexts], np.int64)
        return Inferred(rows, np.concatenate([np.zeros((0, 2)), *spans]), counts, uses)

    def _rows_of(self, sample: Sample) -> dict[Key, npt.NDArray[Any]]:
        computed = cast(_Computed, sample.context)
        settings = cast(CommonsenseConfig, self.spec.config)
        height, width = sample.data.shape[:2]
        most = np.array([width - 1, height - 1] * 2, np.float32)
        boxes = computed.boxes.clip(0, most)
        new_height, new_width = scaled_size(
            height, width, settings.shorter_edge, settings.longer_edge
        )
        ratio = np.array([new_width / width, new_height / height] * 2, np.float32)
        x = self.to_input(sample.data[None])
        found = self.run_network(x, torch.from_numpy(boxes * ratio).to(self.device))
        features = found["features"].float().cpu().numpy()  # (n, 1024)
        count, uses = len(boxes), len(computed.numbers)
        index = np.empty((uses, count, 3), np.int32)
        index[:, :, 0] = np.array(computed.numbers)[:, None]
        index[:, :, 1] = np.arange(count)
        index[:, :, 2] = computed.numbers[0]
        return {
            "features": np.tile(features, (uses, 1)),
            "boxes": np.tile(boxes, (uses, 1)),
            "labels": np.tile(computed.labels, uses),
            "index": index.reshape(-1, 3),
        }


def scaled_size(height: int, width: int, shorter_edge: int, longer_edge: int) -> tuple[int, int]:
    """(height, width) of a frame as VC R-CNN scales it, by the reference's integer rules."""
    short, long = min(height, width), max(height, width)
    edge = shorter_edge
    if long / short * edge > longer_edge:
        edge = max(1, round(longer_edge * short / long))
    other = max(1, int(edge * long / short))
    return (edge, other) if height <= width else (other, edge)


def _filled(edge: int) -> int:
    return -(-edge // _STRIDE) * _STRIDE
