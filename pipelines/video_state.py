"""One video on its way through a batch: what each extractor has made of it so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vlpipe.pipelines.batches import VideoTask
from vlpipe.pipelines.row_buffer import RowBuffer

if TYPE_CHECKING:
    from vlpipe.extractors.media import MediaInfo
    from vlpipe.extractors.samples import Sample, Sampler


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an extractor has no rows of a video."""

    kind: str
    message: str
    retry: bool = False


@dataclass
class Track:
    """The samples and rows of one extractor: a row is due for every span."""

    sampler: "Sampler"
    buffers: dict[str, RowBuffer]
    spans: list[tuple[float, float]] = field(default_factory=list)
    num_rows: int = 0

    @property
    def is_complete(self) -> bool:
        return self.num_rows == len(self.spans)


@dataclass(eq=False)
class VideoState:
    """One video of the batch.

    size_and_time: bytes and time of change of the file before it was decoded. is_decoded: all
    samples were handed over. is_damaged: the decoder complained. is_finished: stored or failed;
    rows that still come are dropped.
    """

    task: VideoTask
    tracks: dict[str, Track] = field(default_factory=dict)
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
        return self.is_decoded and all(
            name in self.failures or track.is_complete for name, track in self.tracks.items()
        )

    def close(self) -> None:
        """Gives back what the rows take."""
        self.is_finished = True
        for track in self.tracks.values():
            for buffer in track.buffers.values():
                buffer.close()


@dataclass(frozen=True, slots=True)
class HandedOver:
    """Samples of one video for one extractor, on their way to its network."""

    video: VideoState
    extractor: str
    samples: "Sequence[Sample]"
