"""From the features of one video to its events: proposals, suppression, a sentence for each.

A video whose rows do not fit into memory at once is looked at in parts that overlap by half, as the
published networks do with those that are longer than what they were trained on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from vlpipe.models import Model, ModelConfig
from vlpipe.models.proposals import suppress, video_proposals
from vlpipe.models.tasks.dense_captioning import DenseCaptioning, DescribedVideo
from vlpipe.pipelines.captioning.events import ConfidentEvent
from vlpipe.stores import FeatureReader, Features
from vlpipe.stores.errors import UsageError

_PART_BYTES = 256 << 20  # of rows as float32, which a part, or a batch of its events, may take
_SHORTEST_PART_S = 30.0

Window = tuple[float, float]
"""Start and end in seconds."""


@dataclass(frozen=True, slots=True)
class EventChoice:
    """Which of the proposed events are told.

    most: so many of a video, the most confident; None: as many as in the run's evaluation.
    suppress_from: tIoU with a more confident one from which on an event is dropped; None: none is.
    least_confidence: of those that are told.
    """

    most: int | None = None
    suppress_from: float | None = 0.4
    least_confidence: float = 0.0

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise UsageError(f"{self.most} proposals cannot be told; expected 1 or more")
        if self.suppress_from is not None and not 0 < self.suppress_from <= 1:
            raise UsageError(f"suppression from tIoU {self.suppress_from}; expected above 0 to 1")
        if not 0 <= self.least_confidence <= 1:
            raise UsageError(f"least confidence {self.least_confidence}; expected 0 to 1")


@dataclass(frozen=True)
class Teller:
    """A trained network and its task, ready to tell videos; model: on `device`, in evaluation."""

    model: Model
    config: ModelConfig
    task: DenseCaptioning
    device: torch.device
    part_bytes: int = _PART_BYTES

    @torch.inference_mode()
    def tell(
        self,
        readers: Mapping[str, FeatureReader],
        video_id: str,
        duration_s: float,
        choice: EventChoice,
    ) -> list[ConfidentEvent]:
        """The events of a video, the most confident first; possibly none.

        readers: by slot of the model. Raises VlpipeError if rows are missing or damaged.
        """
        rows = _VideoRows.of(self.model, readers, video_id, duration_s)
        most = choice.most or self.task.settings.proposals
        windows = windows_of(duration_s, self.part_bytes / max(rows.bytes_per_s, 1.0))
        found = []
        for window in windows:
            inputs = self._inputs(rows, window)
            if inputs is None:
                continue
            predictions = self.model(**inputs)["predictions"][0].float().cpu()
            length_s = window[1] - window[0]
            part = video_proposals(predictions, length_s, most=most, suppress_from=None)
            found.append(part + part.new_tensor([window[0], window[0], 0.0]))
        best = torch.cat(found)
        best = best[best[:, 2].argsort(descending=True, stable=True)][:most]
        best = suppress(best[best[:, 2] >= choice.least_confidence], choice.suppress_from).double()
        sentences = self._sentences(rows, windows, best[:, :2])
        return [
            ConfidentEvent(round(start, 2), round(end, 2), sentence, round(confidence, 4))
            for (start, end, confidence), sentence in zip(best.tolist(), sentences, strict=True)
        ]

    def _sentences(self, rows: "_VideoRows", windows: Sequence[Window], spans: Tensor) -> list[str]:
        """One for each span (N, 2), from the window in whose middle it lies most."""
        told = [""] * len(spans)
        edges = spans.new_tensor(list(windows))  # (W, 2)
        room = torch.minimum(spans[:, None, 0] - edges[:, 0], edges[:, 1] - spans[:, None, 1])
        home = room.argmax(dim=1) if len(spans) else spans.new_zeros(0)
        for number, window in enumerate(windows):
            places = (home == number).nonzero()[:, 0]
            inputs = self._inputs(rows, window) if len(places) else None
            if inputs is None:
                continue
            for some in _batches(spans, places, self.part_bytes / max(rows.bytes_per_s, 1.0)):
                events = torch.cat(
                    [spans.new_zeros(len(some), 1), spans[some] - window[0]], dim=1
                ).to(self.device)
                said = self.task.write(self.model, inputs, events)
                for place, sentence in zip(some.tolist(), said, strict=True):
                    told[place] = sentence
        return told

    def _inputs(self, rows: "_VideoRows", window: Window) -> dict[str, Tensor] | None:
        """What the network takes of a window; None where it has nothing to look at."""
        features = rows.inside(window)
        if features is None:
            return None
        example = DescribedVideo(rows.video_id, window[1] - window[0])
        prepared = self.model.prepare(self.config, features)
        return self.task.collate([(example, [prepared])]).to(self.device).inputs


@dataclass(frozen=True)
class _VideoRows:
    """Where the rows of one video are; they are read a window at a time.

    readers: of the slots of which the video has rows. required: slots that a window must have.
    """

    readers: dict[str, FeatureReader]
    spans: dict[str, np.ndarray[tuple[int, int], np.dtype[np.float64]]]
    required: frozenset[str]
    video_id: str
    duration_s: float

    @classmethod
    def of(
        cls,
        model: Model,
        readers: Mapping[str, FeatureReader],
        video_id: str,
        duration_s: float,
    ) -> "_VideoRows":
        spans = {slot: reader.read_spans(video_id) for slot, reader in readers.items()}
        required = frozenset(slot for slot in readers if not model.slots[slot].is_optional)
        for slot in required:
            if not len(spans[slot]):
                raise UsageError(
                    f"video {video_id!r} has no rows of {readers[slot].name}, which the network "
                    "cannot do without"
                )
        present = {slot: reader for slot, reader in readers.items() if len(spans[slot])}
        return cls(present, spans, required, video_id, duration_s)

    @property
    def bytes_per_s(self) -> float:
        """Of all rows as float32."""
        numbers = sum(
            len(self.spans[slot]) * prod(reader.info.row_shape)
            for slot, reader in self.readers.items()
        )
        return 4 * numbers / self.duration_s

    def inside(self, window: Window) -> dict[str, Features] | None:
        """The rows whose middle is in the window, by slot, with times from its start; None if a
        required slot has none. Of the whole video all rows."""
        is_whole = window == (0.0, self.duration_s)
        found: dict[str, Features] = {}
        for slot, reader in self.readers.items():
            middles = self.spans[slot].mean(axis=1)
            first, end = (0, len(middles)) if is_whole else np.searchsorted(middles, window)
            if first < end:
                chosen = slice(int(first), int(end))
                rows = reader.read(self.video_id, rows=chosen)
                found[slot] = Features(rows, self.spans[slot][chosen] - window[0])
        return found if self.required <= found.keys() else None


def windows_of(duration_s: float, longest_s: float) -> list[Window]:
    """The whole, or windows of up to longest_s, each half of it after the one before."""
    if duration_s <= longest_s:
        return [(0.0, duration_s)]
    longest_s = max(longest_s, _SHORTEST_PART_S)
    starts = np.arange(0.0, max(duration_s - longest_s / 2, longest_s / 4), longest_s / 2)
    return [(float(start), min(float(start) + longest_s, duration_s)) for start in starts]


def _batches(spans: Tensor, places: Tensor, seconds: float) -> Iterator[Tensor]:
    """The places, parted so that events of a batch, padded to the longest, last `seconds` at most,
    or one by one."""
    lengths = (spans[:, 1] - spans[:, 0])[places]
    waiting = places[lengths.argsort(descending=True)]
    while len(waiting):
        longest_s = float(spans[waiting[0], 1] - spans[waiting[0], 0])
        count = max(1, int(seconds / max(longest_s, 1e-6)))
        yield waiting[:count]
        waiting = waiting[count:]
