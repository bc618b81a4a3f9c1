"""Opening a file with libavformat so that it can only be that file and a format we chose."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlpipe.extractors.errors import MediaError
from vlpipe.extractors.media.file_kind import format_refused, is_known_media, not_media
from vlpipe.extractors.media.limits import DecodeLimits, too_large

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

# Containers that hold everything in one file. Left out on purpose: playlists and scripts that name
# other files (hls, dash, concat, vobsub), images and image sequences, raw streams without time
# stamps. flv, asf and mpeg are there for collections of before 2012.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,ogg,wav,mp3,flac,aac"
PROTOCOLS = "file"


@contextmanager
def open_container(path: Path, head: bytes, limits: DecodeLimits) -> "Iterator[InputContainer]":
    """The opened container; raises MediaError when it cannot be opened or is not allowed."""
    import av

    options = {"format_whitelist": FORMATS, "protocol_whitelist": PROTOCOLS}
    if head.startswith(b"GIF8"):
        # Nothing has to be found out about a GIF, and trial decoding costs more than reading it.
        options["analyzeduration"] = "1"
    # Titles and comments in other encodings than UTF-8 are common and nobody reads them. PyAV 19
    # takes any bytes and no longer has the argument.
    takes_any_title = int(av.__version__.split(".")[0]) >= 19
    titles: dict[str, Any] = {} if takes_any_title else {"metadata_errors": "replace"}
    try:
        container = av.open(
            # `file:` and an absolute path: a name such as `a:b.mp4` is no protocol then.
            f"file:{path}",
            options={"max_pixels": str(limits.max_frame_pixels)},
            container_options=options,
            **titles,
        )
    except (av.FFmpegError, MemoryError) as error:
        raise _explain(path, head, error) from error
    try:
        yield container
    finally:
        container.close()


def _explain(path: Path, head: bytes, error: Exception) -> MediaError:
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return too_large(f"{path}: opening it needs more memory than allowed", "memory_bytes")
    reason = getattr(error, "strerror", None) or str(error)
    if is_known_media(head):
        return MediaError(
            "damaged",
            f"{path}: the container's headers are damaged or missing ({reason}); the file is "
            "probably cut off",
            hint="fetch the file again",
        )
    if number == errno.EINVAL:
        return format_refused(path, "is in a format that is not allowed")
    return not_media(path, f"no known media format ({reason})")


def _best(container: "InputContainer", kind: Literal["video", "audio"]) -> "Stream | None":
    # In a damaged transport stream the best one can be missing from the list of streams.
    with suppress(IndexError):
        return container.streams.best(kind)
    return None


def find_streams(container: "InputContainer") -> "tuple[VideoStream | None, AudioStream | None]":
    """The picture and sound streams that are read: the best ones, never a cover image."""
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [s for s in container.streams.video if not s.disposition & covers]
    video, audio = _best(container, "video"), _best(container, "audio")
    if video not in videos:
        video = videos[0] if videos else None
    # A stream whose codec is unknown to this build has no codec context.
    if video is not None and video.codec_context is None:
        video = None
    if audio is not None and audio.codec_context is None:
        audio = None
    return video, audio  # type: ignore[return-value]


def packets_of(
    container: "InputContainer", streams: "Sequence[VideoStream | AudioStream]"
) -> "Iterator[Packet[Any]]":
    """The packets of the streams, without the empty ones by which PyAV flushes decoders.

    A transport stream may announce further streams in the middle, on which PyAV's flushing at the
    end stumbles.
    """
    with suppress(IndexError):
        for packet in container.demux(*streams):
            if packet.size:
                yield packet
