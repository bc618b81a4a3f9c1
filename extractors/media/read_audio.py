"""Sound of a file as mono float32 at a chosen rate, decoded and resampled piece by piece."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlpipe.extractors.media.decoder_log import DecoderLog
from vlpipe.extractors.media.open_container import packets_of
from vlpipe.extractors.media.packet_table import start_ticks
from vlpipe.extractors.media.read_with_pyav import prepare_decoder
from vlpipe.extractors.media.source_frame import DecodeFault

if TYPE_CHECKING:
    import av
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

# The largest value below 1 of 16-bit sound, to which the references saturate.
_MAX_SAMPLE = np.float32(32767 / 32768)


# Sound that was cut out of a longer stream starts with packets that refer to what was before.
_NUM_LEAD_IN = 2
# MPEG audio decoders report tags between packets and missing bit reservoirs as errors and go on.
_TALKATIVE = ("mp3", "mp2", "mp1")


@dataclass(frozen=True, slots=True, eq=False)
class MonoPiece:
    """samples: float32 [S] at the source's rate; start_s: of its first sample in the file."""

    samples: NDArray[np.float32]
    sample_rate: int
    start_s: float


class AudioReader:
    """Decodes one audio stream to mono: the mean over all channels, also of 5.1.

    Gaps between time stamps are closed, as the references do: samples simply follow each other.
    faults: what went wrong, in words; with `strict` the first one raises DecodeFault instead.
    """

    def __init__(
        self, container: "InputContainer", stream: "AudioStream", log: DecoderLog, *, strict: bool
    ) -> None:
        self._log = log
        self._container, self._stream, self._strict = container, stream, strict
        self.faults: list[str] = []
        self.num_samples = 0
        prepare_decoder(stream, strict=strict, threads=1)

    def pieces(self) -> Iterator[MonoPiece]:
        """The sound in order."""
        offset = start_ticks(self._container, self._stream)
        time_base = self._stream.time_base or Fraction(1, 1)
        start_s: float | None = None
        for frame in self._decoded():
            samples = _to_mono(frame)
            if start_s is None:
                ticks = frame.pts if frame.pts is not None else offset
                start_s = float((ticks - offset) * time_base)
            at_s = start_s + self.num_samples / frame.sample_rate
            self.num_samples += len(samples)
            yield MonoPiece(samples, frame.sample_rate, at_s)

    def _decoded(self) -> "Iterator[av.AudioFrame]":
        import av

        self._log.forget(self._stream.codec_context.name)
        try:
            for number, packet in enumerate(packets_of(self._container, [self._stream])):
                yield from self._decode(packet, is_lead_in=number < _NUM_LEAD_IN)
        except av.FFmpegError as error:
            self._fail(f"reading stops: {error.strerror}")
        yield from self._decode(None, is_lead_in=False)

    def _decode(self, packet: "Packet[Any] | None", *, is_lead_in: bool) -> "list[av.AudioFrame]":
        import av

        name = self._stream.codec_context.name
        frames: list[av.AudioFrame] = []
        fault: str | None = None
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.EOFError:
            pass
        except av.FFmpegError as error:
            fault = f"{name}: {error.strerror}"
        # Parsers drop what they cannot make out and only say so here (FLAC).
        fault = self._log.first_from(name) or fault
        if fault is not None and name.startswith(_TALKATIVE):
            self._note(fault)
        elif fault is not None and not is_lead_in:
            self._fail(fault)
        return frames

    def check_found_any(self) -> None:
        """To be called at the end: sound that is there must have given samples."""
        if self.num_samples == 0:
            self._fail("no samples can be decoded")

    def _fail(self, reason: str) -> None:
        if self._strict:
            raise DecodeFault(f"sound: {reason}, after {self.num_samples} samples")
        self._note(reason)

    def _note(self, reason: str) -> None:
        if f"sound: {reason}" not in self.faults:
            self.faults.append(f"sound: {reason}")


def _to_mono(frame: "av.AudioFrame") -> NDArray[np.float32]:
    """float32 [S], the mean over channels of samples in [-1, 1)."""
    raw = frame.to_ndarray()
    if frame.format.is_packed:
        raw = raw.reshape(-1, frame.layout.nb_channels).T
    samples: NDArray[np.float64] = raw.astype(np.float64)
    if raw.dtype == np.uint8:
        samples = (samples - 128) / 128
    elif raw.dtype.kind == "i":
        samples /= 2.0 ** (8 * raw.dtype.itemsize - 1)
    # Lossy codecs overshoot full scale, and floating-point files may hold anything.
    samples = np.clip(np.nan_to_num(samples, nan=0.0), -1.0, _MAX_SAMPLE)
    return np.asarray(samples.mean(axis=0), np.float32)


class MonoResampler:
    """Resamples mono pieces to one rate with ffmpeg's swr; the result is in [-1, 1)."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._source_rate: int | None = None
        self._resampler: AudioResampler | None = None

    def push(self, piece: MonoPiece) -> NDArray[np.float32]:
        """float32 [S] that has become ready with this piece, possibly empty."""
        import av
        from av.audio.resampler import AudioResampler

        ready: list[av.AudioFrame] = []
        if self._resampler is None or piece.sample_rate != self._source_rate:
            ready += self._flush()
            self._resampler = AudioResampler("flt", "mono", self._rate)
            self._source_rate = piece.sample_rate
        frame = av.AudioFrame.from_ndarray(piece.samples[None], format="flt", layout="mono")
        frame.sample_rate = piece.sample_rate
        return _joined(ready + self._resampler.resample(frame))

    def finish(self) -> NDArray[np.float32]:
        """The tail that the filter still held."""
        return _joined(self._flush())

    def _flush(self) -> "list[av.AudioFrame]":
        return [] if self._resampler is None else self._resampler.resample(None)


def _joined(frames: "list[av.AudioFrame]") -> NDArray[np.float32]:
    parts = [frame.to_ndarray()[0] for frame in frames]
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return np.clip(samples, np.float32(-1), _MAX_SAMPLE).astype(np.float32, copy=False)
