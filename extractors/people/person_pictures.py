"""Pictures of tracked persons, and the ResNet that looks at them: of `body_parts`, `track_crops`.

A sampler reads the frames beside the rows of `person_tracks`, cuts boxes out and keeps few of them,
so that a video's frames need not be.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vlpipe.extractors.extractor import ExtractorConfig, Source
from vlpipe.extractors.inputs.frame_normalisation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    normalise_frames,
)
from vlpipe.extractors.media import FrameBlock, FrameRequest, MediaRequest
from vlpipe.extractors.people.rows import Span
from vlpipe.extractors.people.track_rows import TrackExtractor
from vlpipe.extractors.people.track_summaries import TrackSummaries
from vlpipe.extractors.registry import find_extractor
from vlpipe.extractors.samples import Block, Sample, SourceRows
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

Points = npt.NDArray[np.float32]


class PersonPicturesConfig(ExtractorConfig):
    """fps: frames a second, as in `person_tracks`. network: of torchvision.

    crop: pixels of the edges that pictures of persons are scaled to, whatever their shape.
    """

    fps: float | None = Field(default=24.0, gt=0)
    network: str
    crop: PositiveInt = 224


class PersonPicturesExtractor(TrackExtractor):
    """Base of the extractors that show pictures of persons to one of the ResNets in `networks`."""

    networks: ClassVar[tuple[str, ...]]
    # torchvision's checkpoints come with the scale of whole frames before their centre crop; the
    # picture of a person is scaled to the size of that crop at once.
    foreign_settings: ClassVar[frozenset[str]] = frozenset({"resize"})

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {n: find_extractor(n).published_checkpoints()[n] for n in cls.networks}

    @classmethod
    def required_roles(cls, config: ExtractorConfig) -> tuple[str, ...]:
        return (cast(PersonPicturesConfig, config).network,)

    @classmethod
    def sources(cls, config: ExtractorConfig) -> Mapping[str, Source]:
        fps = cast(PersonPicturesConfig, config).fps
        return {"tracks": Source("person_tracks", {"fps": fps})}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        return FrameRequest(fps=cast(PersonPicturesConfig, config).fps)

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        resnet = find_extractor(cast(PersonPicturesConfig, config).network)
        return resnet.build_network(resnet.Config())

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        find_extractor(cls.networks[0]).initialise_untrained(network)

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        for role, checkpoint in checkpoints.items():
            find_extractor(role).load(network, {role: checkpoint})

    @classmethod
    def check_checkpoint(cls, role: str, checkpoint: Checkpoint) -> None:
        find_extractor(role).check_checkpoint(role, checkpoint)

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        images = torch.from_numpy(samples).to(self.device)  # (B, crop, crop, 3) uint8
        return normalise_frames(images, IMAGENET_MEAN, IMAGENET_STD)  # (B, 3, crop, crop)


class PersonPicturesSampler(ABC):
    """Base of samplers that look at each frame beside its tracks, and hand out samples at the end.

    summaries: of the tracks so far.
    """

    def __init__(self) -> None:
        # Frames wait for their tracks, as many as the detector's batch and the tracker hold back.
        self._frames: deque[tuple[Span, npt.NDArray[np.uint8]]] = deque()
        self._tracks: deque[SourceRows] = deque()
        self.summaries = TrackSummaries()

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
            (span, frame), tracks = self._frames.popleft(), self._tracks.popleft()
            assert span == tracks.span, f"frame at {span}, tracks at {tracks.span}"
            self.look(frame, tracks.rows, self.summaries.add(tracks))
        return []

    @abstractmethod
    def look(
        self,
        frame: npt.NDArray[np.uint8],
        rows: Mapping[str, npt.NDArray[Any]],
        largest: Sequence[int],
    ) -> None:
        """Takes what it needs of a frame [H, W, 3].

        rows: of `person_tracks` in this frame. largest: those of them whose box is the largest of
            its track so far.
        """

    @abstractmethod
    def finish(self) -> Sequence[Sample]:
        """A sample a track."""


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
