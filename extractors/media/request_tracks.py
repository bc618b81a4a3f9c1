"""One request's side of a decode pass: which frames and samples it gets, gathered into blocks."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vlpipe.extractors.media.blocks import AudioBlock, FrameBlock
from vlpipe.extractors.media.limits import DecodeLimits
from vlpipe.extractors.media.packet_table import PacketTable
from vlpipe.extractors.media.read_audio import MonoPiece, MonoResampler
from vlpipe.extractors.media.requests import AudioRequest, FrameRequest
from vlpipe.extractors.media.resample_times import (
    RateResampler,
    equidistant,
    number_of_slots,
    round_to_slot,
    source_of_each_slot,
)
from vlpipe.extractors.media.source_frame import SourceFrame

# Half a minute of sound at 16 kHz, so that sound and pictures stay near each other in time.
_SAMPLES_PER_BLOCK = 480_000

Span = tuple[float, float]


class FrameTrack:
    """Chooses the source frames of one request and gathers its frames into blocks."""

    def __init__(
        self,
        index: int,
        request: FrameRequest,
        table: PacketTable,
        source_size: tuple[int, int],
        limits: DecodeLimits,
        block_bytes: int,
        emit: Callable[[FrameBlock], None],
        name: str,
    ) -> None:
        self.request = request
        self._index, self._table, self._emit = index, table, emit
        rate = request.rate
        self._resampler = None if rate is None else RateResampler(table.time_base, rate)
        self._kept = equidistant(self._num_before_selection(), request.max_frames)
        self._sources: NDArray[np.int64] | None = None
        self._first_slot = self._num_slots = 0
        self._num_sent = 0
        height, width = request.output_size(*source_size)
        limits.check_frame_size(f"{name}: after resize", height, width)
        if self._kept is None:
            limits.check_frame_count(name, self._num_before_selection())
        self._shape = (height, width, 3)
        capacity = max(1, block_bytes // (height * width * 3))
        self._capacity = min(capacity, max(1, self._num_kept()))
        self._frames: NDArray[np.uint8] | None = None
        self._spans: list[Span] = []

    def _num_before_selection(self) -> int:
        table, rate = self._table, self.request.rate
        if rate is None or not table.num_packets:
            return table.num_packets
        return number_of_slots(int(table.starts[0]), table.end, table.time_base, rate)

    def _num_kept(self) -> int:
        return self._num_before_selection() if self._kept is None else len(self._kept)

    def follow_table(self) -> NDArray[np.int64] | None:
        """int64, the source frames that are needed by the packet table; None for all.

        For readers whose pictures are exactly those of the table. From then on slots are looked up
        in it, so that such a reader may skip pictures.
        """
        table, rate = self._table, self.request.rate
        if rate is None:
            return self._kept
        self._sources = source_of_each_slot(table.starts, table.end, table.time_base, rate)
        self._first_slot = round_to_slot(int(table.starts[0]), table.time_base, rate)
        return self._sources if self._kept is None else self._sources[self._kept]

    def follow_stream(self) -> None:
        """Goes back to choosing slots by the time stamps of the pictures that come."""
        self._sources = None

    def take(self, frame: SourceFrame) -> list[Span]:
        """The spans, in seconds, for which this request shows a source frame; may be none."""
        rate, time_base = self.request.rate, self._table.time_base
        if rate is None:
            first = frame.index
            spans = [(float(frame.start * time_base), float(frame.end * time_base))]
        else:
            first, slots = self._slots(frame)
            spans = [(float(k / rate), float((k + 1) / rate)) for k in slots]
        if self._kept is None:
            return spans
        low, high = np.searchsorted(self._kept, (first, first + len(spans)))
        return [spans[k - first] for k in self._kept[low:high].tolist()]

    def _slots(self, frame: SourceFrame) -> tuple[int, range]:
        """Position in the sequence of the first slot that a source frame fills, and its slots."""
        if self._sources is not None:
            low, high = np.searchsorted(self._sources, (frame.index, frame.index + 1)).tolist()
            return low, range(self._first_slot + low, self._first_slot + high)
        assert self._resampler is not None
        first = self._num_slots
        slots = self._resampler.slots(frame.start, frame.end)
        self._num_slots += len(slots)
        return first, slots

    def add(self, frame: NDArray[np.uint8], spans: list[Span]) -> None:
        """Appends one finished frame once for every span."""
        for span in spans:
            if self._frames is None:
                self._frames = np.empty((self._capacity, *self._shape), np.uint8)
            self._frames[len(self._spans)] = frame
            self._spans.append(span)
            if len(self._spans) == self._capacity:
                self.flush()

    def flush(self) -> None:
        """Sends the frames gathered so far."""
        if self._frames is None or not self._spans:
            return
        count = len(self._spans)
        self._emit(
            FrameBlock(
                self._index,
                self._frames[:count],
                np.array(self._spans, np.float64),
                self._num_sent,
            )
        )
        self._num_sent += count
        self._spans = []


class SampleTrack:
    """Resamples sound for one request and gathers its samples into blocks."""

    def __init__(
        self,
        index: int,
        request: AudioRequest,
        limits: DecodeLimits,
        emit: Callable[[AudioBlock], None],
        name: str,
    ) -> None:
        self._index, self._rate, self._emit = index, request.sample_rate, emit
        self._limits, self._name = limits, name
        self._resampler = MonoResampler(request.sample_rate)
        self._start_s: float | None = None
        self._parts: list[NDArray[np.float32]] = []
        self._num_gathered = self._num_sent = 0
        self._capacity = min(_SAMPLES_PER_BLOCK, max(1, limits.block_bytes // 4))

    def add(self, piece: MonoPiece) -> None:
        """Takes the next piece of sound."""
        if self._start_s is None:
            self._start_s = piece.start_s
        self._gather(self._resampler.push(piece))

    def finish(self) -> None:
        """Sends the tail of the resampler and what was gathered."""
        self._gather(self._resampler.finish())
        self._flush()

    def _gather(self, samples: NDArray[np.float32]) -> None:
        if not len(samples):
            return
        self._parts.append(samples)
        self._num_gathered += len(samples)
        if self._num_gathered >= self._capacity:
            self._flush()

    def _flush(self) -> None:
        if not self._num_gathered:
            return
        samples = np.concatenate(self._parts)
        start_s = (self._start_s or 0.0) + self._num_sent / self._rate
        self._emit(AudioBlock(self._index, samples, start_s, self._num_sent))
        self._num_sent += len(samples)
        self._parts, self._num_gathered = [], 0
