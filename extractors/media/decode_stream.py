"""The parent's side of decoding one file: an iterator of checked blocks."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlpipe.extractors.errors import MEDIA_ERROR_KINDS, MediaError
from vlpipe.extractors.media import wire
from vlpipe.extractors.media.blocks import AudioBlock, DecodeSummary, FrameBlock
from vlpipe.extractors.media.child_process import ChildProcess
from vlpipe.extractors.media.info import MediaInfo
from vlpipe.extractors.media.limits import DecodeLimits
from vlpipe.extractors.media.requests import AudioRequest, FrameRequest, MediaRequest

P = ParamSpec("P")
R = TypeVar("R")

_STOP_S = 2.0
_MAX_SAMPLES_PER_BLOCK = 8 << 20
_SIGXCPU, _SIGABRT = -24, -6


class DecodeStream:
    """The blocks of one file, and `info` before the first and `summary` after the last of them.

    A context manager and an iterator, for one thread. Leaving it early stops the child's work.
    Every error of the file, also in the middle, is a MediaError; the stream is finished then.
    """

    def __init__(
        self,
        child: ChildProcess,
        job: dict[str, Any],
        requests: Sequence[MediaRequest],
        limits: DecodeLimits,
        num_bytes: int,
        give_back: Callable[[ChildProcess], None],
    ) -> None:
        self._child, self._give_back = child, give_back
        self._job, self._requests, self._limits = job, requests, limits
        self._num_bytes = num_bytes
        self._clock = wire.Clock(limits.wall_s(num_bytes))
        self._budget_s = self._clock.left_s
        self._next = [0] * len(requests)
        self._summary: DecodeSummary | None = None
        self._is_finished = False
        try:
            child.wait_ready()
        except BaseException:
            self._finish()
            raise
        self.info = self._read_info()

    @property
    def path(self) -> Path:
        return Path(self._job["path"])

    @property
    def summary(self) -> DecodeSummary:
        """What decoding came to; known after the last block."""
        if self._summary is None:
            raise RuntimeError("DecodeStream.summary is known after the last block")
        return self._summary

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[FrameBlock | AudioBlock]:
        return self

    def __next__(self) -> FrameBlock | AudioBlock:
        if self._is_finished:
            raise StopIteration
        header, num_bytes = self._receive()
        if header["kind"] in ("frames", "audio"):
            return self._guarded(self._read_block, header, num_bytes)
        if header["kind"] == "done":
            self._summary = self._guarded(DecodeSummary.from_json, header["summary"])
            self._finish()
            raise StopIteration
        raise self._broken(f"message {header['kind']!r}")

    def close(self) -> None:
        """Ends the stream: the child is told to stop, or replaced if it does not listen."""
        if self._is_finished:
            return
        try:
            self._child.send({"op": "stop", "job": self._job["job"]})
            self._clock = wire.Clock(_STOP_S)
            self._skip_rest()
        except (wire.WireClosed, wire.WireTimeout, wire.WireDamaged):
            self._child.kill()
        self._finish()

    def _skip_rest(self) -> None:
        while True:
            header, num_bytes = wire.receive_header(self._child.from_child, self._clock)
            scratch = memoryview(bytearray(min(num_bytes, 1 << 20)))
            while num_bytes:
                part = scratch[: min(num_bytes, len(scratch))]
                wire.receive_into(self._child.from_child, part, self._clock)
                num_bytes -= len(part)
            if header.get("kind") in ("done", "stopped", "error"):
                return

    def _read_info(self) -> MediaInfo:
        try:
            self._child.send(self._job)
        except wire.WireClosed:
            raise self._crashed() from None
        header, _ = self._receive()
        if header["kind"] != "info":
            raise self._broken(f"message {header['kind']!r} before the info")
        info = self._guarded(MediaInfo.from_json, header["info"])
        budget_s = self._limits.wall_s(self._num_bytes, info.duration_s)
        self._clock.left_s += budget_s - self._budget_s
        self._budget_s = budget_s
        if self._job["op"] == "probe":
            self._finish()
        return info

    def _receive(self) -> tuple[dict[str, Any], int]:
        try:
            header, num_bytes = wire.receive_header(self._child.from_child, self._clock)
        except wire.WireClosed:
            raise self._crashed() from None
        except wire.WireTimeout:
            raise self._timed_out() from None
        except wire.WireDamaged as error:
            raise self._broken(str(error)) from None
        if header.get("job") != self._job["job"] or not isinstance(header.get("kind"), str):
            raise self._broken("message of another job")
        if header["kind"] == "error":
            self._finish()
            kind, hint = header.get("error"), header.get("hint")
            raise MediaError(
                kind if kind in MEDIA_ERROR_KINDS else "crashed",
                str(header.get("message")),
                hint=hint if isinstance(hint, str) else None,
            )
        return header, num_bytes

    def _guarded(self, make: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `make` returns; the child is not trusted, so whatever fails there is its fault."""
        try:
            return make(*args, **kwargs)
        except wire.WireClosed:
            raise self._crashed() from None
        except wire.WireTimeout:
            raise self._timed_out() from None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise self._broken(f"{type(error).__name__}: {error}") from None

    def _read_block(self, header: dict[str, Any], num_bytes: int) -> FrameBlock | AudioBlock:
        index, first = int(header["request"]), int(header["first"])
        request = self._requests[index]
        if first != self._next[index]:
            raise ValueError(f"block starts at {first}, expected {self._next[index]}")
        if header["kind"] == "frames":
            return self._read_frames(header, index, request, num_bytes)
        count, start_s = int(header["samples"]), float(header["start_s"])
        if not isinstance(request, AudioRequest) or not 0 < count <= _MAX_SAMPLES_PER_BLOCK:
            raise ValueError(f"{count} samples")
        samples = np.empty(count, np.float32)
        self._fill(num_bytes, samples)
        self._next[index] += count
        return AudioBlock(index, samples, start_s, first)

    def _read_frames(
        self, header: dict[str, Any], index: int, request: MediaRequest, num_bytes: int
    ) -> FrameBlock:
        video, limits = self.info.video, self._limits
        if not isinstance(request, FrameRequest) or video is None:
            raise ValueError("frames that nobody asked for")
        count, height, width, channels = (int(n) for n in header["shape"])
        if (height, width) != request.output_size(video.height, video.width) or channels != 3:
            raise ValueError(f"frames of shape {header['shape']}")
        limits.check_frame_size(str(self.path), height, width)
        if not 1 <= count <= max(1, limits.block_bytes // (height * width * 3)):
            raise ValueError(f"{count} frames in a block")
        first = self._next[index]
        limits.check_frame_count(str(self.path), first + count)
        spans = np.empty((count, 2), np.float64)
        frames = np.empty((count, height, width, 3), np.uint8)
        self._fill(num_bytes, spans, frames)
        if not np.isfinite(spans).all():
            raise ValueError("time stamps are not finite")
        self._next[index] += count
        return FrameBlock(index, frames, spans, first)

    def _fill(self, num_bytes: int, *arrays: NDArray[Any]) -> None:
        if num_bytes != sum(array.nbytes for array in arrays):
            raise ValueError(f"{num_bytes} bytes of payload")
        for array in arrays:
            wire.receive_into(self._child.from_child, array.data.cast("B"), self._clock)

    def _crashed(self) -> MediaError:
        self._child.wait_end()
        ending, code = self._child.ending(), self._child.returncode
        self._finish()
        if code == _SIGXCPU:
            return self._timed_out()
        hint = "the file is probably damaged; fetch it again or leave it out"
        if code == _SIGABRT:
            hint += "; raising DecodeLimits.memory_bytes can also help"
        return MediaError(
            "crashed", f"{self.path}: the decoding process {ending} on this file", hint=hint
        )

    def _timed_out(self) -> MediaError:
        self._child.kill()
        self._finish()
        return MediaError(
            "timeout",
            f"{self.path}: decoding took more than {self._budget_s:.1f} s and was ended",
            hint="leave the file out, or raise DecodeLimits.min_wall_s and wall_per_media_s",
        )

    def _broken(self, reason: str) -> MediaError:
        self._child.kill()
        self._finish()
        return MediaError(
            "crashed",
            f"{self.path}: the decoding process sent what is not a valid answer ({reason})",
            hint="the file is probably damaged; fetch it again or leave it out",
        )

    def _finish(self) -> None:
        if not self._is_finished:
            self._is_finished = True
            self._give_back(self._child)
