"""Decoding one file inside the child: one pass, every request served from it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlpipe.extractors.errors import MediaError
from vlpipe.extractors.media.blocks import AudioBlock, FrameBlock
from vlpipe.extractors.media.decoder_log import DecoderLog
from vlpipe.extractors.media.frame_transform import FrameScaler
from vlpipe.extractors.media.info import DecoderName
from vlpipe.extractors.media.limits import DecodeLimits
from vlpipe.extractors.media.probe_file import ProbedFile, damaged, opened
from vlpipe.extractors.media.read_audio import AudioReader, MonoPiece
from vlpipe.extractors.media.read_with_decord import DecordReader, is_sparse
from vlpipe.extractors.media.read_with_pyav import PyavReader
from vlpipe.extractors.media.request_tracks import FrameTrack, SampleTrack
from vlpipe.extractors.media.requests import AudioRequest, FrameRequest, MediaRequest
from vlpipe.extractors.media.source_frame import DecodeFault, SourceFrame
from vlpipe.extractors.media.tolerance import DecoderChoice, Tolerance

Emit = Callable[[FrameBlock | AudioBlock], None]


class Stopped(Exception):
    """The parent does not want the rest."""


@dataclass(slots=True)
class DecodeCounts:
    """What one pass came to; becomes a DecodeSummary."""

    frames_decoded: int = 0
    frames_scaled: int = 0
    samples_decoded: int = 0
    is_sparse: bool = False
    decoder: DecoderName = "pyav"
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """One file, what is wanted from it, and how faults are taken."""

    probed: ProbedFile
    requests: Sequence[MediaRequest]
    limits: DecodeLimits
    tolerance: Tolerance
    decoder: DecoderChoice
    threads: int
    log: DecoderLog

    @property
    def is_strict(self) -> bool:
        return self.tolerance == "strict"


def decode_file(job: DecodeJob, emit: Emit, should_stop: Callable[[], bool]) -> DecodeCounts:
    """Sends every block of every request to `emit`; raises MediaError, or Stopped."""
    probed, counts = job.probed, DecodeCounts()
    wants_frames = any(isinstance(r, FrameRequest) for r in job.requests)
    wants_sound = any(isinstance(r, AudioRequest) for r in job.requests)
    if wants_frames and probed.info.video is None:
        raise MediaError(
            "no_video",
            f"{probed.path}: holds sound but no pictures; frames were asked for",
            hint="leave the file out, or ask for audio features only",
        )
    if probed.faults and job.is_strict:
        raise damaged(probed.path, DecodeFault("; ".join(probed.faults)), probed)
    counts.warnings += probed.faults
    if wants_sound and probed.sound_fault is not None:
        if job.is_strict:
            raise damaged(probed.path, DecodeFault(probed.sound_fault), probed)
        counts.warnings.append(probed.sound_fault)
    try:
        with ExitStack() as stack:
            video = _FramePass(job, emit, counts, stack) if wants_frames else None
            sound = (
                _SoundPass(job, emit, counts, stack) if wants_sound and probed.info.audio else None
            )
            _interleave([part for part in (video, sound) if part is not None], should_stop)
            for part in (video, sound):
                if part is not None:
                    part.finish()
    except DecodeFault as fault:
        raise damaged(probed.path, fault, probed) from fault
    counts.warnings += [line for line in job.log.lines if line not in counts.warnings]
    return counts


def _interleave(parts: "list[_FramePass | _SoundPass]", should_stop: Callable[[], bool]) -> None:
    """Steps the part that is behind, so that blocks come roughly in the order of time."""
    active = list(parts)
    while active:
        if should_stop():
            raise Stopped
        behind = min(active, key=lambda part: part.time_s)
        if not behind.step():
            active.remove(behind)


class _FramePass:
    """Pulls pictures from a decoder and hands each to the tracks of all frame requests."""

    def __init__(self, job: DecodeJob, emit: Emit, counts: DecodeCounts, stack: ExitStack) -> None:
        assert job.probed.table is not None
        self._job, self._counts = job, counts
        self.time_s = -np.inf
        self._scaler = FrameScaler()
        video = job.probed.info.video
        assert video is not None
        wanted = [
            (index, request)
            for index, request in enumerate(job.requests)
            if isinstance(request, FrameRequest)
        ]
        self._tracks = [
            FrameTrack(
                index,
                request,
                job.probed.table,
                (video.height, video.width),
                job.limits,
                job.limits.block_bytes // len(wanted),
                emit,
                str(job.probed.path),
            )
            for index, request in wanted
        ]
        self._log_sources = (video.codec, job.probed.info.container)
        self._reader = self._open_reader(stack)
        self._frames: Iterator[SourceFrame] = self._reader.frames()

    def _open_reader(self, stack: ExitStack) -> PyavReader | DecordReader:
        job, probed = self._job, self._job.probed
        assert probed.table is not None
        if probed.info.decoder == "decord":
            wanted = self._wanted()
            self._counts.is_sparse = is_sparse(probed.table, wanted)
            if self._counts.is_sparse or job.decoder == "decord":
                self._counts.decoder = "decord"
                return DecordReader(
                    probed.path,
                    probed.table,
                    job.log,
                    wanted,
                    self._log_sources,
                    threads=job.threads,
                )
            for track in self._tracks:
                track.follow_stream()
        container, stream, _ = stack.enter_context(opened(probed.path, probed.head, job.limits))
        assert stream is not None
        return PyavReader(
            container,
            stream,
            job.limits,
            str(probed.path),
            job.log,
            probed.table,
            strict=job.is_strict,
            threads=job.threads,
        )

    def _wanted(self) -> NDArray[np.int64] | None:
        """The source frames that any request uses, None for all."""
        parts = [track.follow_table() for track in self._tracks]
        if any(part is None for part in parts):
            return None
        return np.unique(np.concatenate([part for part in parts if part is not None]))

    def step(self) -> bool:
        """Takes one picture; False after the last."""
        frame = next(self._frames, None)
        if frame is None:
            return False
        assert self._job.probed.table is not None
        self.time_s = float(frame.start * self._job.probed.table.time_base)
        slots = [(track, track.take(frame)) for track in self._tracks]
        if any(slot for _, slot in slots):
            self._scaler.start(frame.to_rgb())
            for track, slot in slots:
                if slot:
                    track.add(self._scaler.get(track.request), slot)
        return True

    def finish(self) -> None:
        """Sends what is left and, when strict, refuses a video that lost pictures."""
        reader, counts = self._reader, self._counts
        counts.frames_decoded = reader.num_decoded
        counts.frames_scaled = self._scaler.num_scaled
        expected = self._job.probed.num_expected
        if isinstance(reader, PyavReader):
            counts.warnings += reader.faults
        if reader.num_decoded < expected and isinstance(reader, PyavReader):
            reason = f"{expected - reader.num_decoded} of {expected} pictures are missing"
            if self._job.is_strict:
                raise DecodeFault(reason, reader.num_decoded)
            counts.warnings.append(reason)
        for track in self._tracks:
            track.flush()


class _SoundPass:
    """Pulls sound from a decoder and hands it to the tracks of all audio requests."""

    def __init__(self, job: DecodeJob, emit: Emit, counts: DecodeCounts, stack: ExitStack) -> None:
        self._counts = counts
        self.time_s = -np.inf
        container, _, stream = stack.enter_context(
            opened(job.probed.path, job.probed.head, job.limits)
        )
        assert stream is not None
        self._reader = AudioReader(container, stream, job.log, strict=job.is_strict)
        self._pieces: Iterator[MonoPiece] = self._reader.pieces()
        self._tracks = [
            SampleTrack(index, request, job.limits, emit, str(job.probed.path))
            for index, request in enumerate(job.requests)
            if isinstance(request, AudioRequest)
        ]

    def step(self) -> bool:
        """Takes one piece of sound; False after the last."""
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self.time_s = piece.start_s
        for track in self._tracks:
            track.add(piece)
        return True

    def finish(self) -> None:
        """Sends what is left."""
        self._counts.samples_decoded = self._reader.num_samples
        self._reader.check_found_any()
        self._counts.warnings += self._reader.faults
        for track in self._tracks:
            track.finish()
