"""The limits under which one file is decoded, and what happens in the child to hold them."""

import ctypes
import math
import os
import resource
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Self

from vlpipe.extractors.errors import MediaError

GIB = 1 << 30

_CLONE_NEWUSER = 0x1000_0000
_CLONE_NEWNET = 0x4000_0000
_PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one file may cost. A file that goes beyond is refused; the next one is not affected.

    min_wall_s, wall_per_media_s: the parent waits for the child at most
        max(min_wall_s, wall_per_media_s x duration) seconds, not counting the time in which the
        consumer is busy, plus the time to read the file at `min_read_bytes_per_s`.
    memory_bytes: address space of the child (RLIMIT_AS); 0.35 GiB of it is libraries, and 8K video
        needs 1.3 GiB.
    max_frame_pixels: of one frame, as stored and as requested; the default admits 8K video.
    max_frames: source frames, and frames of one request.
    max_total_pixels: source frames x pixels; the default admits two hours of 4K at 60 fps.
    max_duration_s: from the first to the last time stamp.
    block_bytes: frames and samples held for all requests together before they are handed on. The
        parent holds one block, the child one for each request plus the decoder's own frames.
    """

    min_wall_s: float = 30.0
    wall_per_media_s: float = 4.0
    min_read_bytes_per_s: float = 20e6
    memory_bytes: int = 2 * GIB
    max_frame_pixels: int = 8192 * 4320
    max_frames: int = 2_592_000
    max_total_pixels: int = 4_000_000_000_000
    max_duration_s: float = 86_400.0
    block_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"DecodeLimits.{name} is {value}; expected more than 0")

    def wall_s(self, num_bytes: int, duration_s: float = 0.0) -> float:
        """Seconds that the parent waits for a file of that size and duration."""
        return (
            max(self.min_wall_s, self.wall_per_media_s * min(duration_s, self.max_duration_s))
            + num_bytes / self.min_read_bytes_per_s
        )

    def check_frame_size(self, name: str, height: int, width: int) -> None:
        """Raises MediaError `too_large` when a frame has more pixels than allowed."""
        if height * width > self.max_frame_pixels:
            raise too_large(
                f"{name}: frames of {width} x {height} pixels; at most "
                f"{self.max_frame_pixels:,} pixels are allowed",
                "max_frame_pixels",
            )

    def check_frame_count(self, name: str, num_frames: int) -> None:
        """Raises MediaError `too_large` when there are more frames than allowed."""
        if num_frames > self.max_frames:
            raise too_large(
                f"{name}: more than {self.max_frames:,} frames are needed from this file",
                "max_frames",
            )

    def check_whole(self, name: str, num_frames: int, frame_pixels: int, duration_s: float) -> None:
        """Raises MediaError `too_large` when the whole video would unpack to too much."""
        self.check_frame_count(name, num_frames)
        if num_frames * frame_pixels > self.max_total_pixels:
            raise too_large(
                f"{name}: {num_frames:,} frames of {frame_pixels:,} pixels; at most "
                f"{self.max_total_pixels:,} pixels in all are allowed",
                "max_total_pixels",
            )
        if duration_s > self.max_duration_s:
            raise too_large(
                f"{name}: {duration_s:,.0f} s long; at most {self.max_duration_s:,.0f} s are "
                "allowed",
                "max_duration_s",
            )

    def to_json(self) -> dict[str, Any]:
        """The limits as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The limits that `to_json` described."""
        return cls(**fields)


def too_large(message: str, field: str) -> MediaError:
    """A MediaError of kind `too_large` whose hint names the limit."""
    return MediaError(
        "too_large",
        message,
        hint=f"leave the file out, or raise DecodeLimits.{field} if you trust it",
    )


def confine_process() -> None:
    """Gives up, for this process, what decoding does not need: network, files, core dumps."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Without the right to do so (no privileges, no user name spaces) decoding goes on: the
    # protocol whitelist already keeps ffmpeg to files.
    if libc.unshare(_CLONE_NEWNET) != 0 and os.geteuid() != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _lower(resource.RLIMIT_NOFILE, 64)


def limit_memory(num_bytes: int) -> None:
    """Bounds the address space of this process."""
    _lower(resource.RLIMIT_AS, num_bytes)


def limit_cpu(seconds: float) -> None:
    """Lets the kernel end this process after so many more seconds of processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(limit, (value, hard))


def signal_name(returncode: int | None) -> str:
    """How a process ended, in words, from its return code."""
    if returncode is None:
        return "went silent"
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"was ended by signal {-returncode}"
