"""Pictures of a file in display order, decoded by PyAV (libavcodec)."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlpipe.extractors.media.limits import DecodeLimits
from vlpipe.extractors.media.packet_table import start_ticks
from vlpipe.extractors.media.rotation import Orientation, orientation_of_matrix
from vlpipe.extractors.media.source_frame import DecodeFault, SourceFrame

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.filter import Graph
    from av.packet import Packet
    from av.video.stream import VideoStream


class RgbConverter:
    """Makes upright RGB of decoded frames, with the very filter graph of the ffmpeg program.

    `format=rgb24` behind libavfilter's automatic scaler (bicubic chroma, the frame's own colour
    matrix and range, BT.601 where the file names none): equal to `ffmpeg -pix_fmt rgb24`. Alpha is
    dropped; a GIF's transparent pixels are white.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._input: tuple[object, ...] | None = None
        # Of the first frame, as stored; later frames of another size are scaled to it.
        self._size: tuple[int, int] | None = None
        self._orientation = Orientation()

    def to_rgb(self, frame: "av.VideoFrame") -> NDArray[np.uint8]:
        """uint8 [H, W, 3], upright."""
        if self._size is None:
            self._size = (frame.width, frame.height)
            # Once only: a frame whose side data was looked at is held until the garbage collector
            # comes, and hundreds of frames gather before it does.
            self._orientation = orientation_of(frame)
        described = (
            frame.width,
            frame.height,
            frame.format.name,
            int(frame.colorspace),
            int(frame.color_range),
        )
        if described != self._input or self._graph is None:
            self._graph, self._input = self._build(*described), described
        self._graph.vpush(frame)
        converted = self._graph.vpull()
        return self._orientation.apply(np.asarray(converted.to_ndarray(), np.uint8))

    def _build(
        self, width: int, height: int, pixel_format: str, colorspace: int, color_range: int
    ) -> "Graph":
        from av.filter import Graph

        graph = Graph()
        graph.threads = 1
        source = graph.add(
            "buffer",
            f"video_size={width}x{height}:pix_fmt={pixel_format}:time_base=1/1000000"
            f":colorspace={colorspace}:range={color_range}",
        )
        last = source
        assert self._size is not None
        if (width, height) != self._size:
            scale = graph.add("scale", f"{self._size[0]}:{self._size[1]}:flags=bicubic")
            last.link_to(scale)
            last = scale
        rgb, sink = graph.add("format", "pix_fmts=rgb24"), graph.add("buffersink")
        last.link_to(rgb)
        rgb.link_to(sink)
        graph.configure()
        return graph


def orientation_of(frame: "av.VideoFrame") -> Orientation:
    """How a decoded frame is to be turned, from its display matrix."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    return Orientation() if matrix is None else orientation_of_matrix(bytes(matrix))


def is_turned(frame: "av.VideoFrame") -> bool:
    """Whether the frame carries a display matrix that changes it."""
    return orientation_of(frame) != Orientation()


def prepare_decoder(stream: "VideoStream | AudioStream", *, strict: bool, threads: int) -> None:
    """Sets the decoder of a freshly opened stream up; before its first packet."""
    context = stream.codec_context
    context.thread_count = threads
    context.thread_type = "NONE" if threads == 1 else "AUTO"
    if strict:
        context.options = {**context.options, "err_detect": "crccheck+explode"}


class PyavReader:
    """Decodes one video stream from its first packet to its last.

    faults: what went wrong, in words; with `strict` the first one raises DecodeFault instead.
    """

    def __init__(
        self,
        container: "InputContainer",
        stream: "VideoStream",
        limits: DecodeLimits,
        name: str,
        *,
        strict: bool,
        threads: int = 1,
    ) -> None:
        self._container, self._stream = container, stream
        self._limits, self._name, self._strict = limits, name, strict
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

        try:
            for packet in self._container.demux(self._stream):
                yield from self._decode(packet)
        except av.FFmpegError as error:
            self._fail(f"reading stops: {error.strerror}")
            yield from self._decode(None)

    def _decode(self, packet: "Packet[VideoStream] | None") -> "Iterator[av.VideoFrame]":
        import av

        try:
            frames = self._stream.codec_context.decode(packet)
        except av.EOFError:
            return
        except av.FFmpegError as error:
            self._fail(f"{self._stream.codec_context.name}: {error.strerror}")
            return
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
            if held is not None:
                # Time stamps that run backwards leave a picture without time on screen.
                next_start = max(start, next_start)
                step = next_start - start
                yield _source_frame(index - 1, start, next_start, held, converter)
            held, start = frame, next_start
        if held is not None:
            end = start + _last_duration(held, step, self._stream)
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
