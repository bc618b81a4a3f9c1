"""One video on its way through a batch: what each extractor has made of it so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vlpipe.pipelines.extraction.batches import VideoTask
from vlpipe.pipelines.extraction.row_buffer import RowBuffer

if TYPE_CHECKING:
    from vlpipe.extractors.media import MediaInfo
    from vlpipe.extractors.one_pass import VideoPass
    from vlpipe.extractors.samples import Block, Sample


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an extractor has no rows of a video."""

    kind: str
    message: str
    retry: bool = False


@dataclass
class Track:
    """The rows that one extractor made, for the store."""

    buffers: dict[str, RowBuffer]
    spans: list[npt.NDArray[np.float64]] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        return sum(map(len, self.spans))


@dataclass(eq=False)
class VideoState:
    """One video of the batch.

    on_way: its samplers, once it could be opened. tracks: of the extractors that it is to be
    stored of. size_and_time: bytes and time of change of the file before it was decoded.
    is_decoded: nothing more comes of the decoder. is_damaged: the decoder complained. is_finished:
    stored or failed; rows that still come are dropped.
    """

    task: VideoTask
    tracks: dict[str, Track] = field(default_factory=dict)
    on_way: "VideoPass | None" = None
    info: "MediaInfo | None" = None
    size_and_time: tuple[int, int] | None = None
    decode_s: float = 0.0
    network_s: float = 0.0
    num_frames_decoded: int = 0
    is_damaged: bool = False
    failures: dict[str, Reason] = field(default_factory=dict)
    is_decoded: bool = False
    is_finished: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every row that is due has come."""
        return self.is_decoded and (self.on_way is None or self.on_way.is_complete)

    def fail(self, key: str, reason: Reason) -> None:
        """Gives up the extractor of that key and all that read its rows; the first reason holds."""
        for lost in self.on_way.give_up(key) if self.on_way else [key]:
            self.failures.setdefault(lost, reason)

    def close(self) -> None:
        """Gives back what the rows take."""
        self.is_finished = True
        self.on_way = None
        for track in self.tracks.values():
            for buffer in track.buffers.values():
                buffer.close()


@dataclass(frozen=True, slots=True)
class HandedOver:
    """Samples of one video for the network of the extractor of that key."""

    video: VideoState
    key: str
    samples: "Sequence[Sample]"


@dataclass(frozen=True, slots=True)
class Passed:
    """A block of one video for a sampler that reads rows of other extractors as well."""

    video: VideoState
    key: str
    block: "Block"
