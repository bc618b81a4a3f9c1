"""Vectors of body parts: what ResNet sees at the key points of a track's largest box.

Stage 2.5 of CiSIN (Yu et al., ECCV 2020; code: yj-yu/CiSIN). Reads `person_tracks` and the same
frames.

Data flow: the largest box of each track, cut at whole pixels and scaled to 224 x 224 ->
(M, 3, 224, 224), normalised -> the last map of ResNet (M, 2048, 7, 7) -> its vector at the cell
of each key point, cell = floor(6.99 x place in the box): `parts` (M, 17, 2048), `visible`
(M, 17), `keypoints` (M, 17, 3) as x, y in the box, 0 to 1, and confidence, `track` (M).

A key point is visible if its confidence exceeds 0.3 and it lies within the box; invisible ones
have zeros for a vector. x counts columns and y rows: the published code takes its first number for
the row.

CiSIN trains this ResNet on. For that `outputs=parts,image` keeps the picture as well.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vlpipe.extractors.extractor import (
    Extractor,
    ExtractorConfig,
    Inferred,
    Names,
    Output,
    Source,
)
from vlpipe.extractors.inputs.frame_normalisation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    normalise_frames,
)
from vlpipe.extractors.media import FrameBlock, FrameRequest, MediaInfo, MediaRequest
from vlpipe.extractors.people.detectors import NUM_KEYPOINTS
from vlpipe.extractors.people.rows import MadeRows, Span, gather_rows
from vlpipe.extractors.person_track_table import TrackSummaries
from vlpipe.extractors.registry import find_extractor, register
from vlpipe.extractors.samples import Block, Sample, Sampler, SourceRows
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

_WIDTH = 2048
_NETWORKS = ("resnet50", "resnet101", "resnet152")

Points = npt.NDArray[np.float32]


class BodyPartsConfig(ExtractorConfig):
    """Which network, and what counts as visible.

    fps: frames a second, as in `person_tracks`.
    network: of torchvision; resnet50 in CiSIN.
    crop: pixels of the edges of the picture of a person.
    min_confidence: above which a key point is visible.
    outputs: `parts` are the features named after the extractor, `image` adds `body_parts_image`.
    """

    fps: float | None = Field(default=24.0, gt=0)
    network: Literal["resnet50", "resnet101", "resnet152"] = "resnet50"
    crop: PositiveInt = 224
    min_confidence: float = Field(default=0.3, ge=0, le=1)
    outputs: Names[Literal["parts", "image"]] = Field(default=("parts",), min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_resize(cls, values: object) -> object:
        # torchvision's checkpoints come with the scale of whole frames before their centre crop;
        # the picture of a person is scaled to the size of that crop at once.
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if key != "resize"}
        return values


@register("body_parts")
class BodyParts(Extractor):
    """Vectors at key points; all outputs share the row index (track)."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = BodyPartsConfig
    batch_size = 8
    gflop_per_sample: ClassVar[float] = 8.2
    description: ClassVar[str] = "ResNet vectors at the key points of person tracks: a row a track"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {n: find_extractor(n).published_checkpoints()[n] for n in _NETWORKS}

    @classmethod
    def required_roles(cls, config: ExtractorConfig) -> tuple[str, ...]:
        return (cast(BodyPartsConfig, config).network,)

    @classmethod
    def sources(cls, config: ExtractorConfig) -> Mapping[str, Source]:
        return {"tracks": Source("person_tracks", {"fps": cast(BodyPartsConfig, config).fps})}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        return FrameRequest(fps=cast(BodyPartsConfig, config).fps)

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(BodyPartsConfig, config)
        keypoints = ((NUM_KEYPOINTS, 3), ("keypoint", "x_y_confidence"), "float32")
        declared = {
            "parts": (
                Output(cls.name, "parts", (NUM_KEYPOINTS, _WIDTH), ("keypoint", "channel")),
                Output(f"{cls.name}_visible", "visible", (NUM_KEYPOINTS,), ("keypoint",), "uint8"),
                Output(f"{cls.name}_keypoints", "keypoints", *keypoints),
                Output(f"{cls.name}_id", "track", (), (), "int32"),
            ),
            "image": (
                Output(
                    f"{cls.name}_image",
                    "image",
                    (settings.crop, settings.crop, 3),
                    ("y", "x", "rgb"),
                    "uint8",
                ),
            ),
        }
        return tuple(output for name in settings.outputs for output in declared[name])

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        del config
        return 0.1

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        name = cast(BodyPartsConfig, config).network
        resnet = find_extractor(name)
        return resnet.build_network(resnet.Config())

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        find_extractor(_NETWORKS[0]).initialise_untrained(network)

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        for role, checkpoint in checkpoints.items():
            find_extractor(role).load(network, {role: checkpoint})

    @classmethod
    def check_checkpoint(cls, role: str, checkpoint: Checkpoint) -> None:
        find_extractor(role).check_checkpoint(role, checkpoint)

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        del info
        return "no_persons" if num_rows == 0 else None

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        return _PersonSampler(cast(BodyPartsConfig, self.spec.config).crop)

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        images = torch.from_numpy(samples).to(self.device)  # (B, 224, 224, 3) uint8
        return normalise_frames(images, IMAGENET_MEAN, IMAGENET_STD)  # (B, 3, 224, 224)

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """One row a person; see `Extractor.infer`."""
        made: list[MadeRows] = []
        for start in range(0, len(samples), self.batch_size):
            part = list(samples[start : start + self.batch_size])
            filled = part + [part[-1]] * (self.batch_size - len(part))
            maps = self.run_network(self.to_input(np.stack([s.data for s in filled])))["res5c"]
            made += [self._rows_of(s, m) for s, m in zip(part, maps.float().cpu(), strict=False)]
        return gather_rows(self, made)

    def _rows_of(self, sample: Sample, res5c: Tensor) -> MadeRows:
        person = cast(_Person, sample.context)
        settings = cast(BodyPartsConfig, self.spec.config)
        visible = find_visible(person.keypoints, settings.min_confidence)
        parts = vectors_at(res5c.numpy(), person.keypoints) * visible[:, None]
        rows: dict[str, npt.NDArray[Any]] = {
            "parts": parts[None],
            "visible": visible[None].astype(np.uint8),
            "keypoints": person.keypoints[None],
            "track": np.array([person.track], np.int32),
            "image": sample.data[None],
        }
        return MadeRows(rows, np.array([sample.span], np.float64))


def cut_person(
    frame: npt.NDArray[np.uint8], box: npt.NDArray[np.float32], keypoints: Points, edge: int
) -> tuple[npt.NDArray[np.uint8], Points]:
    """The picture uint8 [edge, edge, 3] of a box [4] in a frame [H, W, 3], and its key points.

    keypoints: float32 [17, 3], x and y in pixels of the frame; given back as shares of the box,
    0 to 1 within it. The box is cut at whole pixels as in CiSIN's code, at least one of each edge,
    and scaled by Pillow's bilinear filter.
    """
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = box.astype(np.float64)
    left, top = min(max(int(x1), 0), width - 1), min(max(int(y1), 0), height - 1)
    across = min(max(int(x2 - x1), 1), width - left)
    down = min(max(int(y2 - y1), 1), height - top)
    cut = Image.fromarray(np.ascontiguousarray(frame[top : top + down, left : left + across]))
    picture = np.asarray(cut.resize((edge, edge), Image.Resampling.BILINEAR))
    places = keypoints.astype(np.float32)
    places[:, :2] = (keypoints[:, :2] - (left, top)) / (across, down)
    return picture, places


def find_visible(keypoints: Points, min_confidence: float) -> npt.NDArray[np.bool_]:
    """bool [17]: key points [17, 3] as shares of the box that are sure enough and within it."""
    places = keypoints[:, :2]
    return np.asarray(
        (keypoints[:, 2] > min_confidence) & ((places >= 0) & (places <= 1)).all(axis=1)
    )


def cells_of(places: npt.NDArray[np.floating], num_cells: int) -> npt.NDArray[np.int64]:
    """int64, the cell 0 .. num_cells - 1 of places 0 .. 1 along an edge: floor(6.99 p) of 7.

    Places outside are taken to the nearest cell.
    """
    cells = np.floor((num_cells - 0.01) * np.asarray(places, np.float64))
    return np.clip(cells, 0, num_cells - 1).astype(np.int64)


def vectors_at(res5c: npt.NDArray[np.float32], keypoints: Points) -> npt.NDArray[np.float32]:
    """float32 [17, C]: the vectors of a map [C, rows, columns] at key points [17, 3]."""
    rows = cells_of(keypoints[:, 1], res5c.shape[1])
    columns = cells_of(keypoints[:, 0], res5c.shape[2])
    return np.ascontiguousarray(res5c[:, rows, columns].T)


@dataclass(frozen=True, slots=True)
class _Person:
    track: int
    keypoints: Points


class _PersonSampler:
    """At the end of the video one sample a track: the picture of its largest box."""

    def __init__(self, edge: int) -> None:
        self._edge = edge
        # Frames wait for their tracks, as many as the detector's batch and the tracker hold back.
        self._frames: deque[tuple[Span, npt.NDArray[np.uint8]]] = deque()
        self._tracks: deque[SourceRows] = deque()
        self._summaries = TrackSummaries()
        self._pictures: dict[int, tuple[npt.NDArray[np.uint8], Points]] = {}

    def push(self, block: Block) -> Sequence[Sample]:
        if isinstance(block, FrameBlock):
            for frame, (start, end) in zip(block.frames, block.spans.tolist(), strict=True):
                self._frames.append(((start, end), frame))
        elif isinstance(block, SourceRows):
            self._tracks.append(block)
        else:
            raise TypeError(f"expected frames and tracks, got {type(block).__name__}")
        while self._frames and self._tracks:
            # Both come once a frame, in order.
            self._look(*self._frames.popleft(), self._tracks.popleft())
        return []

    def _look(self, span: Span, frame: npt.NDArray[np.uint8], tracks: SourceRows) -> None:
        assert span == tracks.span, f"frame at {span}, tracks at {tracks.span}"
        rows = tracks.rows
        for row in self._summaries.add(tracks):
            self._pictures[int(rows["track"][row])] = cut_person(
                frame, rows["boxes"][row], rows["keypoints"][row], self._edge
            )

    def finish(self) -> Sequence[Sample]:
        samples = []
        for track, summary in self._summaries.by_id().items():
            picture, keypoints = self._pictures[track]
            samples.append(Sample(picture, summary.span, _Person(track, keypoints)))
        return samples
