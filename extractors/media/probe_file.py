"""Probing one file inside the child: hash, headers, packet table, first picture, decoder."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlpipe.extractors.errors import MediaError
from vlpipe.extractors.media import read_with_decord
from vlpipe.extractors.media.decoder_log import DecoderLog
from vlpipe.extractors.media.file_kind import check_file, not_media, refuse_by_content
from vlpipe.extractors.media.gif_structure import read_gif_structure
from vlpipe.extractors.media.info import AudioStream, DecoderName, MediaInfo, VideoStream
from vlpipe.extractors.media.limits import DecodeLimits
from vlpipe.extractors.media.open_container import find_streams, open_container
from vlpipe.extractors.media.packet_table import PacketSpan, PacketTable, read_packets
from vlpipe.extractors.media.read_with_pyav import PyavReader
from vlpipe.extractors.media.rgb_conversion import is_turned, orientation_of
from vlpipe.extractors.media.source_frame import DecodeFault
from vlpipe.extractors.media.tolerance import DecoderChoice, Tolerance
from vlpipe.extractors.media.truncation import find_truncation

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream as AvAudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream as AvVideoStream


@dataclass(frozen=True, slots=True)
class ProbedFile:
    """A file whose headers and packet table are known.

    table: None for a file without pictures, or whose pictures cannot be decoded at all.
    faults: what is wrong with the file as far as can be told without decoding it.
    num_expected: pictures that must come out of decoding: those of the packet table, or what the
        headers of a file promise that turns out to be cut off.
    sound_fault: why there is no sound although the file has a stream for it.
    """

    path: Path
    head: bytes
    info: MediaInfo
    table: PacketTable | None
    faults: tuple[str, ...]
    num_expected: int
    sound_fault: str | None


@contextmanager
def opened(
    path: Path, head: bytes, limits: DecodeLimits
) -> "Iterator[tuple[InputContainer, AvVideoStream | None, AvAudioStream | None]]":
    """A fresh container and its streams, positioned at the start."""
    with open_container(path, head, limits) as container:
        yield container, *find_streams(container)


def probe_file(
    path: Path,
    limits: DecodeLimits,
    tolerance: Tolerance,
    decoder: DecoderChoice,
    log: DecoderLog,
) -> ProbedFile:
    """What the file holds; decodes one picture to learn size, orientation and pixel format.

    Lenient decoding is PyAV's: decord fills gaps with the picture before, so that nobody could
    count what is missing. Raises MediaError; a file with faults is not refused here.
    """
    num_bytes, head = check_file(path)
    refuse_by_content(path, head)
    with opened(path, head, limits) as (container, video, audio):
        if video is None and audio is None:
            raise not_media(path, "holds neither pictures nor sound that can be decoded")
        if video is not None:
            limits.check_frame_size(
                str(path), video.codec_context.height, video.codec_context.width
            )
        declared_s = (container.duration or 0) / 1e6
        limits.check_whole(str(path), 0, 0, declared_s)
        container_name = container.format.name
        # What is said of the headers is often harmless, of packets never. Matroska's headers and
        # packets are elements alike.
        if not container_name.startswith("matroska"):
            log.forget(container_name)
        table, span = read_packets(container, video, audio, limits, str(path))
        faults = _faults_of(path, head, container_name, table, log)
        num_expected = _num_expected(container, video, table, is_cut=bool(faults))
        if faults and table is not None:
            held = f"it holds {table.num_packets} of {num_expected} pictures"
            faults = (*faults[:-1], f"{faults[-1]}; {held}")
        video_info = decoder_name = None
        if video is not None and table is not None:
            video_info, decoder_name = _probe_pictures(
                path, head, limits, table, faults, decoder if tolerance == "strict" else "pyav", log
            )
        sound_fault = None
        if audio is None and container.streams.audio:
            sound_fault = "sound: there is a stream, but its headers or its codec cannot be read"
        audio_info = None if audio is None or span is None else _describe_sound(audio, span)
        info = MediaInfo(
            path=str(path),
            container=container_name,
            duration_s=_duration(table, span, declared_s),
            num_bytes=num_bytes,
            sha256=_sha256(path),
            video=video_info,
            audio=audio_info,
            decoder=decoder_name or "pyav",
        )
    if table is not None and video_info is not None:
        pixels = video_info.width * video_info.height
        limits.check_whole(str(path), table.num_packets, pixels, info.duration_s)
    return ProbedFile(path, head, info, table, faults, num_expected, sound_fault)


def _probe_pictures(
    path: Path,
    head: bytes,
    limits: DecodeLimits,
    table: PacketTable,
    faults: tuple[str, ...],
    choice: DecoderChoice,
    log: DecoderLog,
) -> tuple[VideoStream, DecoderName]:
    with opened(path, head, limits) as (container, stream, _):
        assert stream is not None
        reader = PyavReader(container, stream, limits, str(path), log, strict=False)
        frame = next(reader.decoded(), None)
        if frame is None:
            raise MediaError(
                "damaged",
                f"{path}: none of {table.num_packets} pictures can be decoded"
                + "".join(f"; {fault}" for fault in (*faults, *reader.faults)[:2]),
                hint="fetch the file again",
            )
        is_exact = read_with_decord.is_exact_for(
            path, container, stream, table, frame, is_turned=is_turned(frame)
        )
        if choice == "decord" and not is_exact:
            raise MediaError(
                "format_refused",
                f"{path}: decord does not read this file exactly",
                hint='use decoder="auto"',
            )
        name: DecoderName = "decord" if is_exact and choice != "pyav" else "pyav"
        return _describe_pictures(stream, frame, table), name


def _num_expected(
    container: "InputContainer",
    video: "AvVideoStream | None",
    table: PacketTable | None,
    *,
    is_cut: bool,
) -> int:
    if video is None or table is None:
        return 0
    if not is_cut:
        return table.num_expected
    promised = video.frames
    if not promised and container.duration and video.average_rate:
        promised = round(container.duration / 1e6 * float(video.average_rate))
    return max(promised, table.num_expected)


def _describe_pictures(
    stream: "AvVideoStream", frame: "av.VideoFrame", table: PacketTable
) -> VideoStream:
    turned = orientation_of(frame).degrees in (90, 270)
    start = int(table.starts[0]) if table.num_packets else 0
    return VideoStream(
        width=frame.height if turned else frame.width,
        height=frame.width if turned else frame.height,
        rotation=orientation_of(frame).degrees,
        average_fps=round(table.average_fps, 6),
        num_frames=table.num_packets,
        is_variable_rate=not table.is_constant_rate,
        codec=stream.codec_context.name,
        pixel_format=frame.format.name,
        start_s=float(start * table.time_base),
        duration_s=float((table.end - start) * table.time_base),
    )


def _describe_sound(stream: "AvAudioStream", span: PacketSpan) -> AudioStream:
    return AudioStream(
        sample_rate=stream.codec_context.sample_rate,
        channels=stream.codec_context.channels,
        codec=stream.codec_context.name,
        start_s=span.start_s,
        duration_s=max(0.0, span.end_s - span.start_s),
    )


def _duration(table: PacketTable | None, span: PacketSpan | None, declared_s: float) -> float:
    ends = [0.0 if table is None else float(table.end * table.time_base)]
    ends.append(0.0 if span is None else span.end_s)
    return max(ends) or declared_s


def _faults_of(
    path: Path, head: bytes, container: str, table: PacketTable | None, log: DecoderLog
) -> tuple[str, ...]:
    faults = []
    if table is not None and table.fault is not None:
        faults.append(table.fault)
    if container == "gif" and table is not None:
        gif = read_gif_structure(path)
        if gif.is_cut:
            faults.append(f"the GIF is cut off after {gif.num_images} whole pictures")
    if (line := log.first_from(container)) is not None:
        faults.append(f"reading packets: {line}")
    if (cut := find_truncation(path, head)) is not None:
        faults.append(cut)
    return tuple(faults)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(path: Path, fault: DecodeFault, probed: ProbedFile) -> MediaError:
    """The error for a file whose decoding failed part of the way, with found and expected."""
    found = ""
    if fault.num_decoded is not None:
        found = f"; {fault.num_decoded} of {probed.num_expected} pictures were decoded before that"
    return MediaError(
        "damaged",
        f"{path}: {fault.reason}{found}",
        hint='fetch the file again, or use tolerance="lenient" to take what can be decoded',
    )
