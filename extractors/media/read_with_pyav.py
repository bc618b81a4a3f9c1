"""Pictures of a file in display order, decoded by PyAV (libavcodec)."""

import errno
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from vlpipe.extractors.media.decoder_log import DecoderLog
from vlpipe.extractors.media.limits import DecodeLimits
from vlpipe.extractors.media.open_container import packets_of
from vlpipe.extractors.media.packet_table import PacketTable, start_ticks
from vlpipe.extractors.media.rgb_conversion import RgbConverter
from vlpipe.extractors.media.source_frame import DecodeFault, SourceFrame

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream


def prepare_decoder(stream: "VideoStream | AudioStream", *, strict: bool, threads: int) -> None:
    """Sets the decoder of a freshly opened stream up; before its first packet."""
    context = stream.codec_context
    context.thread_count = threads
    context.thread_type = "NONE" if threads == 1 else "AUTO"
    if strict:
        context.options = {**context.options, "err_detect": "crccheck+explode"}


# How libavcodec words it when RLIMIT_AS leaves no room for another picture.
_OUT_OF_MEMORY = "get_buffer() failed"


class PyavReader:
    """Decodes one video stream from its first packet to its last.

    Packets of the lead-in, which are not shown (edit lists) or precede the first key frame on
    screen (open GOP), may fail: a clip cut out of another one is not damaged.
    faults: what went wrong, in words; with `strict` the first one raises DecodeFault instead.
    """

    def __init__(
        self,
        container: "InputContainer",
        stream: "VideoStream",
        limits: DecodeLimits,
        name: str,
        log: DecoderLog,
        table: PacketTable | None = None,
        *,
        strict: bool,
        threads: int = 1,
    ) -> None:
        self._container, self._stream = container, stream
        self._limits, self._name, self._strict = limits, name, strict
        self._log, self._table = log, table
        self._log_sources = (stream.codec_context.name, container.format.name)
        self._first_key: int | None = None
        self.faults: list[str] = []
        self.num_decoded = 0
        prepare_decoder(stream, strict=strict, threads=threads)
        stream.codec_context.options = {
            **stream.codec_context.options,
            "max_pixels": str(limits.max_frame_pixels),
        }

    def decoded(self) -> "Iterator[av.VideoFrame]":
        """The frames as they leave the decoder."""
        import av

        self._log.forget(*self._log_sources)
        try:
            for packet in packets_of(self._container, [self._stream]):
                yield from self._checked(self._decode(packet))
        except av.FFmpegError as error:
            self._fail(f"reading stops: {error.strerror}")
        yield from self._checked(self._decode(None))

    def _decode(self, packet: "Packet[Any] | None") -> "list[av.VideoFrame]":
        import av

        frames: list[av.VideoFrame] = []
        fault: str | None = None
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.EOFError:
            pass
        except av.FFmpegError as error:
            if error.errno == errno.ENOMEM:
                raise MemoryError from error
            fault = f"{self._stream.codec_context.name}: {error.strerror}"
        if packet is not None and self._is_lead_in(packet):
            self._log.forget(*self._log_sources)
            return frames
        # Errors that libavcodec conceals (LZW codes of a GIF) or demuxers skip over (Matroska).
        fault = self._log.first_from(*self._log_sources) or fault
        if fault is not None and _OUT_OF_MEMORY in fault:
            raise MemoryError
        if fault is not None:
            self._fail(fault)
        return frames

    def _is_lead_in(self, packet: "Packet[Any]") -> bool:
        if self._first_key is None and packet.is_keyframe:
            self._first_key = packet.pts
        if packet.is_discard or self._first_key is None:
            return True
        return packet.pts is not None and packet.pts < self._first_key

    def _checked(self, frames: "list[av.VideoFrame]") -> "Iterator[av.VideoFrame]":
        for frame in frames:
            self._limits.check_frame_size(self._name, frame.height, frame.width)
            self._limits.check_frame_count(self._name, self.num_decoded + 1)
            if frame.is_corrupt:
                self._fail("a picture is marked as corrupt")
            self.num_decoded += 1
            yield frame

    def _fail(self, reason: str) -> None:
        if self._strict:
            raise DecodeFault(reason, self.num_decoded)
        if reason not in self.faults:
            self.faults.append(reason)

    def frames(self) -> Iterator[SourceFrame]:
        """The pictures in display order; each ends where the next one starts."""
        converter = RgbConverter()
        offset = start_ticks(self._container, self._stream)
        held: av.VideoFrame | None = None
        start = step = 0
        for index, frame in enumerate(self.decoded()):
            time = frame.pts if frame.pts is not None else frame.dts
            # Without a time stamp a picture follows the one before it.
            next_start = time - offset if time is not None else start + step
            if self._table is not None:
                next_start = self._table.retimed(next_start)
            if held is not None:
                # Time stamps that run backwards leave a picture without time on screen.
                next_start = max(start, next_start)
                step = next_start - start
                yield _source_frame(index - 1, start, next_start, held, converter)
            held, start = frame, next_start
        if held is not None:
            end = start + _last_duration(held, step, self._stream)
            if self._table is not None and self._table.is_retimed:
                end = max(end, self._table.end)
            yield _source_frame(self.num_decoded - 1, start, end, held, converter)


def _source_frame(
    index: int, start: int, end: int, frame: "av.VideoFrame", converter: RgbConverter
) -> SourceFrame:
    return SourceFrame(index, start, end, lambda: converter.to_rgb(frame))


def _last_duration(frame: "av.VideoFrame", last_step: int, stream: "VideoStream") -> int:
    """Ticks for which the last picture is shown, as the ffmpeg program estimates it."""
    duration = int(frame.duration or 0)
    # Demuxers make up a duration of one tick.
    if duration > 0 and not (duration == 1 and last_step > 2):
        return duration
    if last_step > 0:
        return last_step
    rate = stream.average_rate
    with suppress(ZeroDivisionError, TypeError):
        if rate and stream.time_base:
            return max(1, round(1 / (rate * stream.time_base)))
    return 1
