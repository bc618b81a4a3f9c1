"""Pictures of a file in display order, decoded by decord, for files where it is exact.

decord counts, seeks and converts exactly only for some files; `is_exact_for` says for which. There
its pictures are equal, bit for bit, to those of PyAV (tests/extractors/media/test_decoders.py), so
that features do not depend on the decoder. It is used where it skips: a request for a few frames of
a long video then decodes only what leads up to them. Reading all frames, it is no faster than PyAV,
and it decodes ahead of a slow consumer without bound (1.3 GB for 20 s of 1080p).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlpipe.extractors.media.decoder_log import DecoderLog
from vlpipe.extractors.media.packet_table import PacketTable
from vlpipe.extractors.media.source_frame import DecodeFault, SourceFrame

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

_CONTAINERS = ("mov,mp4", "matroska")
# decord carries the ffmpeg libraries of 2018: other codecs and pixel formats are converted
# differently there, or were decoded with since-corrected errors.
_CODECS = ("h264",)
_PIXEL_FORMATS = ("yuv420p",)
# Seeking pays when it spares at least half of the pictures.
_SPARSE_SHARE = 0.5


def is_exact_for(
    path: Path,
    container: "InputContainer",
    stream: "VideoStream",
    table: PacketTable,
    first: "av.VideoFrame",
    *,
    is_turned: bool,
) -> bool:
    """Whether decord reads this file exactly; depends on the file alone, never on requests."""
    return (
        _is_utf8(path)
        and container.format.name.startswith(_CONTAINERS)
        and len(container.streams.video) == 1
        and stream.codec_context.name in _CODECS
        and first.format.name in _PIXEL_FORMATS
        and not is_turned
        and first.width == stream.codec_context.width
        and first.height == stream.codec_context.height
        and first.width % 2 == 0
        and first.height % 2 == 0
        and table.fault is None
        and table.is_exact
        and table.is_constant_rate
        and table.num_packets > 1
        and table.num_leading == 0
        and not table.has_open_gops
        and table.num_discarded == 0
        and int(table.starts[0]) == 0
        and bool(table.is_key[0])
    )


class DecordReader:
    """Decodes the wanted pictures of a file that `is_exact_for` accepted.

    wanted: indices in display order, ascending; None for all.
    sources: names under which the demuxer and the decoder write to the log.
    Raises DecodeFault when decord counts differently from the packet table or reports an error.
    """

    def __init__(
        self,
        path: Path,
        table: PacketTable,
        log: DecoderLog,
        wanted: NDArray[np.int64] | None,
        sources: tuple[str, ...],
        *,
        threads: int = 1,
    ) -> None:
        import decord

        decord.logging.set_level(decord.logging.ERROR)
        log.forget(*sources)
        self._table, self._log, self._sources = table, log, sources
        self.num_decoded = 0
        try:
            self._reader: Any = decord.VideoReader(str(path), num_threads=threads)
            times = self._reader.get_frame_timestamp(range(len(self._reader)))[:, 0]
        except (decord.DECORDError, RuntimeError) as error:
            raise DecodeFault(f"decord: {_first_line(error)}", 0) from error
        self._wanted = wanted
        promised = table.starts * float(table.time_base)
        if len(times) != len(promised) or np.abs(times - promised).max() > 1e-3:
            raise DecodeFault(
                f"decord counts {len(times)} pictures, the packet table {len(promised)}", 0
            )

    def frames(self) -> Iterator[SourceFrame]:
        """The wanted pictures in display order."""
        import decord

        table = self._table
        ends = np.append(table.starts[1:], table.end)
        at = 0
        for index in range(table.num_packets) if self._wanted is None else self._wanted.tolist():
            try:
                if index != at:
                    self._reader.seek_accurate(index)
                picture = self._reader.next().asnumpy()
            except (decord.DECORDError, RuntimeError, StopIteration) as error:
                raise DecodeFault(f"decord: {_first_line(error)}", self.num_decoded) from error
            at = index + 1
            self.num_decoded += 1
            self._check_log()
            yield _source_frame(index, int(table.starts[index]), int(ends[index]), picture)
        self._check_log()

    def _check_log(self) -> None:
        # decord replaces what it cannot decode by the picture before and only says so here.
        if (line := self._log.first_from(*self._sources)) is not None:
            raise DecodeFault(f"decord: {line}", self.num_decoded)


def _is_utf8(path: Path) -> bool:
    # decord takes names as UTF-8 only.
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _source_frame(index: int, start: int, end: int, picture: NDArray[np.uint8]) -> SourceFrame:
    return SourceFrame(index, start, end, lambda: picture)


def is_sparse(table: PacketTable, wanted: NDArray[np.int64] | None) -> bool:
    """Whether seeking to the wanted pictures spares at least half of the decoding.

    Each is decoded from its key frame on, or from the one wanted before it.
    """
    if wanted is None:
        return False
    keys = np.flatnonzero(table.is_key)
    key = keys[np.searchsorted(keys, wanted, side="right") - 1]
    before = np.concatenate(([-1], wanted[:-1]))
    cost = int(np.sum(wanted - np.maximum(key - 1, before)))
    return cost < _SPARSE_SHARE * table.num_packets


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
