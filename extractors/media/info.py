"""What a media file holds, as found by reading its headers and its packet table."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

DecoderName = Literal["decord", "pyav"]


@dataclass(frozen=True, slots=True)
class VideoStream:
    """The pictures of a file.

    width, height: as displayed, after rotation; pixels, not corrected for their aspect.
    rotation: degrees clockwise by which stored pictures are turned: 0, 90, 180 or 270.
    average_fps: frames per second over the whole stream, 0.0 for a single frame without a rate.
    num_frames: pictures that the packet table promises.
    is_variable_rate: whether neighbouring time stamps differ by more than rounding.
    start_s, duration_s: of the first picture after the start of the file, and of all pictures.
    """

    width: int
    height: int
    rotation: int
    average_fps: float
    num_frames: int | None
    is_variable_rate: bool
    codec: str
    pixel_format: str
    start_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class AudioStream:
    """The sound of a file. start_s counts from the start of the file."""

    sample_rate: int
    channels: int
    codec: str
    start_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """A media file: its container, streams, hash and the decoder that reads its pictures.

    duration_s: from the first to the last time stamp of pictures and sound.
    sha256: of the file's bytes, in hexadecimal.
    decoder: "decord" where decord reads this file exactly, so that it may skip to sparse frames;
        else "pyav". Depends on the file and the pool's settings alone, never on requests.
    """

    path: str
    container: str
    duration_s: float
    num_bytes: int
    sha256: str
    video: VideoStream | None
    audio: AudioStream | None
    decoder: DecoderName

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The MediaInfo that `to_json` described."""
        video, audio = fields["video"], fields["audio"]
        return cls(
            **{
                **fields,
                "video": None if video is None else VideoStream(**video),
                "audio": None if audio is None else AudioStream(**audio),
            }
        )
