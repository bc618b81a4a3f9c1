"""The packet table of a stream: what a file promises, read by demuxing without decoding."""

from array import array
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlpipe.extractors.media.limits import DecodeLimits
from vlpipe.extractors.media.open_container import packets_of

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream


@dataclass(frozen=True, slots=True)
class PacketTable:
    """The packets of one stream that are to be shown, in display order.

    starts: int64 [N] ticks of `time_base` from the start of the file.
    is_key: bool [N].
    end: ticks at which the last one ends.
    num_leading: packets displayed before the first key frame, which need not decode (open GOP).
    has_open_gops: pictures refer across a later key frame, so that seeking to it loses them.
    num_discarded: packets that the container marks as not to be shown (edit lists).
    is_exact: every packet had its own time stamp.
    fault: why reading stopped early, None if it did not.
    stored_starts: int64 [N], the time stamps in the file where `starts` differ from them (GIF).
    """

    time_base: Fraction
    starts: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    end: int
    num_leading: int
    has_open_gops: bool
    num_discarded: int
    is_exact: bool
    fault: str | None
    stored_starts: NDArray[np.int64] | None = None

    @property
    def is_retimed(self) -> bool:
        return self.stored_starts is not None

    def retimed(self, start: int) -> int:
        """The tick of `starts` for a time stamp of the file."""
        if self.stored_starts is None:
            return start
        index = int(np.searchsorted(self.stored_starts, start, side="right")) - 1
        return int(self.starts[max(index, 0)])

    @property
    def num_packets(self) -> int:
        return len(self.starts)

    @property
    def num_expected(self) -> int:
        """Packets that must decode to a picture."""
        return self.num_packets - self.num_leading

    @property
    def is_constant_rate(self) -> bool:
        """Whether all steps are equal, up to the rounding of the time base."""
        steps = np.diff(self.starts)
        return len(steps) == 0 or bool(steps.min() > 0 and steps.max() - steps.min() <= 1)

    @property
    def average_fps(self) -> float:
        if not self.num_packets:
            return 0.0
        seconds = float((self.end - int(self.starts[0])) * self.time_base)
        return self.num_packets / seconds if seconds > 0 else 0.0


# Hundredths of a second. ffmpeg 5 and browsers show pictures with less than the minimum for the
# default; later releases of ffmpeg do so for a delay of 0 only. Published features come from the
# older rule, and results must not depend on the release.
_GIF_MIN_DELAY, _GIF_DEFAULT_DELAY = 2, 10
_MPEG4_PICTURE = b"\x00\x00\x01\xb6"


class _TableBuilder:
    def __init__(self, stream: "Stream") -> None:
        assert stream.time_base is not None
        self.time_base = stream.time_base
        self.codec = stream.codec_context.name
        self.starts, self.ends = array("q"), array("q")
        self.is_key = array("b")
        self.first_key: int | None = None
        self.num_discarded = 0
        self.is_exact = True
        self.num_packed = 0

    def add(self, packet: "Packet[Any]", offset: int) -> None:
        start = packet.pts if packet.pts is not None else packet.dts
        if packet.pts is None:
            self.is_exact = False
        if packet.is_discard:
            self.num_discarded += 1
            return
        if start is None or not self._shows_picture(packet):
            return
        if packet.is_keyframe and self.first_key is None:
            self.first_key = len(self.starts)
        self.starts.append(start - offset)
        self.ends.append(start - offset + (packet.duration or 0))
        self.is_key.append(packet.is_keyframe)

    def _shows_picture(self, packet: "Packet[Any]") -> bool:
        if self.codec == "vp8":
            # Bit 4 of the first byte is show_frame: alternate reference frames are not displayed.
            return bool((memoryview(packet)[0] >> 4) & 1)
        if self.codec != "mpeg4":
            return True
        # Xvid packs two pictures into one packet and puts a place holder of at most 7 bytes where
        # the second one belongs; elsewhere such a packet means that nothing new is shown.
        if packet.size <= 7:
            self.num_packed -= 1
            return self.num_packed >= 0
        self.num_packed = max(0, self.num_packed) + bytes(packet).count(_MPEG4_PICTURE) - 1
        return True

    def build(self, fault: str | None) -> PacketTable:
        starts = np.frombuffer(self.starts, np.int64) if self.starts else np.zeros(0, np.int64)
        order = np.argsort(starts, kind="stable")
        ends = np.frombuffer(self.ends, np.int64) if self.ends else np.zeros(0, np.int64)
        ordered = starts[order]
        end = int(ends.max()) if len(ends) else 0
        if len(ordered) and end <= ordered[-1]:
            # Without durations the last packet lasts as long as the one before it.
            end = int(ordered[-1]) + (int(ordered[-1] - ordered[-2]) if len(ordered) > 1 else 1)
        stored_starts = None
        if self.codec == "gif" and len(ordered):
            delays = np.diff(np.append(ordered, end))
            if delays.min() < _GIF_MIN_DELAY:
                delays[delays < _GIF_MIN_DELAY] = _GIF_DEFAULT_DELAY
                stored_starts, times = ordered, np.cumsum(np.append(ordered[0], delays))
                ordered, end = times[:-1], int(times[-1])
        return PacketTable(
            stored_starts=stored_starts,
            time_base=self.time_base,
            starts=ordered,
            is_key=np.frombuffer(self.is_key, np.bool_)[order] if self.is_key else order > 0,
            end=end,
            num_leading=self._num_leading(starts),
            has_open_gops=self._has_open_gops(starts),
            num_discarded=self.num_discarded,
            is_exact=self.is_exact and bool(np.all(np.diff(ordered) > 0)),
            fault=fault,
        )

    def _has_open_gops(self, starts: NDArray[np.int64]) -> bool:
        # In the order of decoding: does anything after a key frame come before it on screen?
        keys = np.flatnonzero(np.array(self.is_key, np.bool_))
        if not len(keys):
            return False
        key_of_each = np.searchsorted(keys, np.arange(len(starts)), side="right") - 1
        return bool(np.any((key_of_each >= 0) & (starts < starts[keys][key_of_each])))

    def _num_leading(self, starts: NDArray[np.int64]) -> int:
        if self.first_key is None:
            return 0
        before = np.arange(len(starts)) < self.first_key
        return int(np.sum(before | (starts < starts[self.first_key])))


@dataclass(slots=True)
class PacketSpan:
    """First start and last end of a stream's packets, in ticks from the start of the file."""

    time_base: Fraction
    start: int | None = None
    end: int = 0

    def add(self, packet: "Packet[Any]", offset: int) -> None:
        if packet.pts is None or packet.is_discard:
            return
        if self.start is None:
            self.start = self.end = packet.pts - offset
        self.start = min(self.start, packet.pts - offset)
        self.end = max(self.end, packet.pts - offset + (packet.duration or 0))

    @property
    def start_s(self) -> float:
        return float((self.start or 0) * self.time_base)

    @property
    def end_s(self) -> float:
        return float(self.end * self.time_base)


def read_packets(
    container: "InputContainer",
    video: "VideoStream | None",
    audio: "AudioStream | None",
    limits: DecodeLimits,
    name: str,
) -> tuple[PacketTable | None, PacketSpan | None]:
    """The table of the pictures and the span of the sound; reads the file once, from its start."""
    import av

    streams = [stream for stream in (video, audio) if stream is not None]
    offsets = {stream.index: start_ticks(container, stream) for stream in streams}
    builder = None if video is None else _TableBuilder(video)
    span = None if audio is None else PacketSpan(audio.time_base or Fraction(1))
    fault: str | None = None
    num_packets = 0
    try:
        for packet in packets_of(container, streams):
            if packet.is_corrupt and fault is None and container.format.name != "mpegts":
                # Recordings of broadcasts begin with such packets and are whole nevertheless.
                fault = f"packet {num_packets} is cut off or damaged"
            offset = offsets[packet.stream.index]
            if video is not None and builder is not None and packet.stream.index == video.index:
                builder.add(packet, offset)
                num_packets += 1
                limits.check_frame_count(name, num_packets)
            elif span is not None:
                span.add(packet, offset)
    except av.FFmpegError as error:
        fault = f"reading stops after {num_packets} packets of pictures: {error.strerror}"
    return (None if builder is None else builder.build(fault)), span


def start_ticks(container: "InputContainer", stream: "Stream") -> int:
    """The start of the file in ticks of the stream, rounded as ffmpeg does."""
    import av

    if container.start_time is None or stream.time_base is None:
        return 0
    return round_half_away(Fraction(container.start_time, av.time_base) / stream.time_base)


def round_half_away(value: Fraction) -> int:
    """The nearest integer, halves away from zero."""
    nearest = (2 * abs(value.numerator) + value.denominator) // (2 * value.denominator)
    return nearest if value >= 0 else -nearest
