"""Motion of objects: the map of a clip network averaged over the box of each object.

Paper: Attend What You Need: Motion-Appearance Synergistic Networks (Seo et al., ACL 2021), whose
code reads such features and does not make them; RoIAlign as in maskrcnn-benchmark. Sources, of the
same video and pass: `objects` (boxes) and a clip network (maps).

Data flow: map of the clip around a frame (C, T, 7, 7), mean over T -> (C, 7, 7); boxes of the frame
-> pixels of the clip network's input -> RoIAlign into 7x7 bins, not aligned to half pixels, as many
samples as a bin has cells, boxes at least a cell wide -> mean over the bins, `pooled` (C,) for each
box. C is 2048 of I3D-ResNet50, 1024 of I3D.

The clip network sees either the whole frame, squashed to a square, or the centre of the resized
frame (`whole_frame`). Boxes go the same way: over the size of the frame, times that of the resized
one, minus the margin that the crop leaves out, clipped to the crop. Resize and crop are in the
provenance, as the request of the clip network. `support` is the share of a box that it saw: 1 for
a box inside the crop, 0 for one outside, whose row is zeros.

Every frame of `objects` takes the clip whose middle is nearest to its own: with I3D-ResNet50, which
is asked for a clip around each of those frames, exactly its own.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vlpipe.extractors import i3d_resnet50
from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Inferred, Names, Output, Source
from vlpipe.extractors.media import FrameRequest, MediaInfo, MediaRequest
from vlpipe.extractors.networks import i3d as i3d_network
from vlpipe.extractors.precision import run_at
from vlpipe.extractors.regions.detector import UNKNOWN
from vlpipe.extractors.regions.mapping import map_boxes, share_inside
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler, SourceRows
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

# Clip network: key of its map, and its channels. A cell is 32 pixels of the input in both.
_MAPS = {
    "i3d_resnet50": ("layer4", i3d_resnet50.WIDTH),
    "i3d_rgb": ("mixed_5c", i3d_network.WIDTH),
}

# So many boxes go together, always: 26 MB of bins for 2048 channels.
_BOXES_AT_ONCE = 64

Map = npt.NDArray[np.float32]


class ObjectsMotionConfig(ExtractorConfig):
    """Which maps and which boxes; `objects` and the clip network have settings of their own.

    motion: the clip network.
    whole_frame: it sees the whole frame, so that every box has cells; else the centre that its
        own `resize` and `crop` leave.
    fps, frame_step: of the frames whose objects count, and of the clips of I3D-ResNet50.
    boxes_per_frame: None makes a row for each object, in the order of the rows of `objects`. With a
        number n each frame makes one row (n, C), and `objects` is asked for exactly n.
    outputs: `pooled` is the feature `objects_motion`, `support` is `objects_motion_support`.
    """

    motion: Literal["i3d_resnet50", "i3d_rgb"] = "i3d_resnet50"
    whole_frame: bool = True
    fps: float | None = Field(default=6.0, gt=0)
    frame_step: PositiveInt = 1
    boxes_per_frame: PositiveInt | None = None
    outputs: Names[Literal["pooled", "support"]] = Field(default=("pooled",), min_length=1)


@dataclass(frozen=True, slots=True)
class FrameBoxes:
    """The boxes of a frame on the input of the clip network.

    boxes: float32 (n, 4) pixels, clipped. support: float32 (n,), 0 where a place holds no object.
    """

    boxes: npt.NDArray[np.float32]
    support: npt.NDArray[np.float32]


class RegionMotion(nn.Module):
    """Map (1, C, h, w) and boxes (N, 4) in pixels of its input -> dict of `pooled` (N, C)."""

    def forward(self, x: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        numbered = torch.cat([boxes.new_zeros((len(boxes), 1)), boxes], dim=1)  # (N, 5)
        return {"pooled": i3d_resnet50.pool_boxes(x[:, :, None], numbered)}


class NearestMapSampler:
    """A sample for each frame of `objects`: map float32 (C, h, w), its span, `FrameBoxes`.

    Holds the maps from the one before the oldest frame that still waits.
    request: of the clip network. size: (height, width) of the video.
    """

    def __init__(
        self, key: str, channels: int, request: FrameRequest, size: tuple[int, int]
    ) -> None:
        self._key, self._channels, self._request, self._size = key, channels, request, size
        self._frames: deque[tuple[tuple[float, float], FrameBoxes]] = deque()
        self._maps: deque[tuple[float, Map]] = deque()

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, SourceRows):
            raise TypeError(f"expected rows of a source, got {type(block).__name__}")
        if block.source == "objects":
            self._frames.append((block.span, self._place(block)))
        else:
            for values, span in zip(block.rows[self._key], block.spans, strict=True):
                self._maps.append((_middle(span), values.mean(axis=1, dtype=np.float32)))
        return self._match(is_end=False)

    def finish(self) -> Sequence[Sample]:
        return self._match(is_end=True)

    def _place(self, block: SourceRows) -> FrameBoxes:
        spatial = block.rows["spatial"].reshape(-1, 6)[:, :4].astype(np.float64)
        is_object = block.rows["index"].reshape(-1, 2)[:, 1] != UNKNOWN
        mapped = map_boxes(spatial, self._size, self._request)
        height, width = self._request.output_size(*self._size)
        support = share_inside(mapped, (height, width)) * is_object
        clipped = mapped.clip(0, [width, height, width, height])
        return FrameBoxes(clipped.astype(np.float32), support.astype(np.float32))

    def _match(self, *, is_end: bool) -> list[Sample]:
        samples = []
        while self._frames:
            span, boxes = self._frames[0]
            at = _middle(span)
            while len(self._maps) > 1 and abs(self._maps[1][0] - at) < abs(self._maps[0][0] - at):
                self._maps.popleft()
            # Middles rise: once a map lies behind the frame, none that follows is nearer.
            if not is_end and not (self._maps and self._maps[-1][0] >= at):
                break
            if self._maps:
                values = self._maps[0][1]
            else:
                # No clip at all: nothing moves that anyone saw.
                values = np.zeros((self._channels, 1, 1), np.float32)
                boxes = FrameBoxes(boxes.boxes, np.zeros_like(boxes.support))
            samples.append(Sample(values, span, boxes))
            self._frames.popleft()
        return samples


@register("objects_motion")
class ObjectsMotion(Extractor):
    """Motion of objects, (rows, C) or (rows, n, C), in the order of `objects`."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = ObjectsMotionConfig
    batch_size = 4
    gflop_per_sample: ClassVar[float] = 0.1
    description: ClassVar[str] = "motion of objects: a 2048-d row per box of the I3D-ResNet50 map"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {}

    @classmethod
    def sources(cls, config: ExtractorConfig) -> Mapping[str, Source]:
        settings = cast(ObjectsMotionConfig, config)
        objects: dict[str, Any] = {
            "fps": settings.fps,
            "frame_step": settings.frame_step,
            "outputs": ("spatial", "index"),
        }
        if settings.boxes_per_frame is not None:
            objects |= dict.fromkeys(("min_boxes", "max_boxes"), settings.boxes_per_frame)
        clips: dict[str, Any] = {
            "whole_frame": settings.whole_frame,
            "outputs": (_MAPS[settings.motion][0],),
        }
        if settings.motion == "i3d_resnet50":
            clips |= {"fps": settings.fps, "anchor_step": settings.frame_step}
        return {"objects": Source("objects", objects), "motion": Source(settings.motion, clips)}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest | None:
        del config
        return None

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(ObjectsMotionConfig, config)
        width = _MAPS[settings.motion][1]
        axis: tuple[int, ...] = ()
        name: tuple[str, ...] = ()
        if settings.boxes_per_frame is not None:
            axis, name = (settings.boxes_per_frame,), ("object",)
        declared = {
            "pooled": Output(cls.name, "pooled", (*axis, width), (*name, "channel")),
            "support": Output(f"{cls.name}_support", "support", axis, name, "float32"),
        }
        return tuple(declared[key] for key in settings.outputs)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        return super().samples_per_second(config) / cast(ObjectsMotionConfig, config).frame_step

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        del config
        return RegionMotion()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        del network, checkpoints  # it has no weights

    def sampler(self, info: MediaInfo) -> Sampler:
        key, channels = _MAPS[cast(ObjectsMotionConfig, self.spec.config).motion]
        request = cast(FrameRequest, self.spec.sources["motion"].request)
        assert info.video is not None  # the sources have asked for frames
        return NearestMapSampler(key, channels, request, (info.video.height, info.video.width))

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        """`no_objects` for frames without any, where every object is a row."""
        has_axis = cast(ObjectsMotionConfig, self.spec.config).boxes_per_frame is not None
        return super().note(info, num_rows) if num_rows or has_axis else "no_objects"

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(samples).to(self.device)  # (B, C, h, w) float32

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """The rows of N frames, each of which is pooled alone."""
        has_axis = cast(ObjectsMotionConfig, self.spec.config).boxes_per_frame is not None
        rows: dict[str, list[npt.NDArray[np.float32]]] = {
            o.feature: [np.zeros((0, *o.row_shape), np.float32)] for o in self.spec.outputs
        }
        counts = []
        for sample in samples:
            made = {"pooled": self._pool(sample), "support": sample.context.support}
            for output in self.spec.outputs:
                values = made[output.key]
                rows[output.feature].append(values[None] if has_axis else values)
            counts.append(1 if has_axis else len(sample.context.boxes))
        spans = np.array([sample.span for sample in samples], np.float64).reshape(-1, 2)
        return Inferred(
            {feature: np.concatenate(parts) for feature, parts in rows.items()},
            spans.repeat(counts, axis=0),
            np.array(counts, np.int64),
        )

    def _pool(self, sample: Sample) -> npt.NDArray[np.float32]:
        """float32 (n, C) of the n boxes of a frame."""
        frame = cast(FrameBoxes, sample.context)
        x = self.to_input(sample.data[None])
        pooled = np.zeros((len(frame.boxes), x.shape[1]), np.float32)
        for start in range(0, len(frame.boxes), _BOXES_AT_ONCE):
            part = frame.boxes[start : start + _BOXES_AT_ONCE]
            boxes = torch.zeros((_BOXES_AT_ONCE, 4))
            boxes[: len(part)] = torch.from_numpy(part)
            with torch.inference_mode(), run_at(self.spec.precision, self.device):
                found = self.network(x, boxes.to(self.device))["pooled"]
            pooled[start : start + len(part)] = found[: len(part)].float().cpu().numpy()
        pooled[frame.support == 0] = 0
        return pooled


def _middle(span: Sequence[float] | npt.NDArray[np.float64]) -> float:
    return float(span[0] + span[1]) / 2
