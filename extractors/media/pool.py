"""A pool of child processes that probe and decode media files under limits."""

import itertools
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vlpipe.extractors.errors import MediaError
from vlpipe.extractors.media.child_process import ChildProcess
from vlpipe.extractors.media.decode_stream import DecodeStream
from vlpipe.extractors.media.file_kind import check_file, media_path
from vlpipe.extractors.media.info import MediaInfo
from vlpipe.extractors.media.limits import DecodeLimits
from vlpipe.extractors.media.requests import MediaRequest, request_to_json
from vlpipe.extractors.media.tolerance import DecoderChoice, Tolerance

# Decoders lose a little memory with every file; a fresh child costs a third of a second.
_JOBS_PER_CHILD = 500


class DecodePool:
    """`workers` children, each of which decodes one file at a time; started when first needed.

    workers: how many files can be open at once; `open` and `probe` wait for a free child.
    limits: what one file may cost; a file that exceeds it is a MediaError and costs no other.
    tolerance: `strict` refuses a file whose decoder reports an error or that yields fewer
        pictures than its headers promise; `lenient` takes what there is and counts the rest.
    decoder: `auto` chooses by file: decord where it is exact, else PyAV. Both give equal bits.
    threads: of each decoder; they do not change the bits of an undamaged file.
    Use it as a context manager, or call `close`. Safe to use from several threads.
    """

    def __init__(
        self,
        workers: int = 1,
        limits: DecodeLimits | None = None,
        tolerance: Tolerance = "strict",
        decoder: DecoderChoice = "auto",
        threads: int = 1,
    ) -> None:
        if workers < 1 or threads < 1:
            raise ValueError(
                f"DecodePool: {workers} workers, {threads} threads; expected 1 or more"
            )
        if tolerance not in ("strict", "lenient") or decoder not in ("auto", "pyav", "decord"):
            raise ValueError(f"DecodePool: tolerance {tolerance!r}, decoder {decoder!r}")
        if decoder == "decord" and tolerance == "lenient":
            raise ValueError("DecodePool: decord cannot count what it could not decode")
        self.limits = limits or DecodeLimits()
        self._settings = {"tolerance": tolerance, "decoder": decoder, "threads": threads}
        self._free = threading.Semaphore(workers)
        self._lock = threading.Lock()
        self._idle: list[ChildProcess] = []
        self._all: set[ChildProcess] = set()
        self._job_numbers = itertools.count()
        self._is_closed = False
        # A pool that nobody closes still takes its children along.
        self._finalizer = weakref.finalize(self, _close_all, self._all)

    def probe(self, path: str | os.PathLike[str]) -> MediaInfo:
        """What the file holds; decodes a single picture of it. Raises MediaError."""
        return self._start("probe", media_path(path), ()).info

    def open(self, path: str | os.PathLike[str], requests: Sequence[MediaRequest]) -> DecodeStream:
        """The stream of blocks that serves all requests from one decoding. Raises MediaError.

        A request for audio of a file without sound gets no block; a request for frames of a file
        without pictures is an error of kind `no_video`.
        """
        return self._start("decode", media_path(path), tuple(requests))

    def _start(self, op: str, path: Path, requests: tuple[MediaRequest, ...]) -> DecodeStream:
        # Here too, for a clear answer without a child.
        num_bytes, _ = check_file(path)
        job: dict[str, Any] = {
            "op": op,
            "job": next(self._job_numbers),
            "path": str(path),
            "limits": self.limits.to_json(),
            "requests": [request_to_json(request) for request in requests],
            **self._settings,
        }
        child = self._take()
        is_fresh = child.num_jobs == 0
        try:
            return DecodeStream(child, job, requests, self.limits, num_bytes, self._give_back)
        except MediaError as error:
            if error.kind != "crashed" or is_fresh:
                raise
        # A child that had been idle may have died of something else than this file.
        return DecodeStream(self._take(), job, requests, self.limits, num_bytes, self._give_back)

    def _take(self) -> ChildProcess:
        self._free.acquire()
        try:
            with self._lock:
                return self._idle_or_new_child()
        except BaseException:
            self._free.release()
            raise

    def _idle_or_new_child(self) -> ChildProcess:
        if self._is_closed:
            raise RuntimeError("DecodePool is closed")
        while self._idle:
            child = self._idle.pop()
            if child.is_alive():
                return child
            self._drop(child)
        child = ChildProcess(self.limits.memory_bytes)
        self._all.add(child)
        return child

    def _give_back(self, child: ChildProcess) -> None:
        with self._lock:
            child.num_jobs += 1
            if self._is_closed or child.num_jobs >= _JOBS_PER_CHILD or not child.is_alive():
                self._drop(child)
            else:
                self._idle.append(child)
        self._free.release()

    def _drop(self, child: ChildProcess) -> None:
        child.close()
        self._all.discard(child)

    def close(self) -> None:
        """Ends all children; streams that are still open fail."""
        with self._lock:
            self._is_closed = True
            self._idle.clear()
            self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _close_all(children: set[ChildProcess]) -> None:
    while children:
        children.pop().close()


@contextmanager
def decode(
    path: str | os.PathLike[str],
    requests: Sequence[MediaRequest],
    limits: DecodeLimits | None = None,
    tolerance: Tolerance = "strict",
    decoder: DecoderChoice = "auto",
) -> Iterator[DecodeStream]:
    """The stream of one file, from a child of its own; for many files use a DecodePool."""
    with DecodePool(1, limits, tolerance, decoder) as pool, pool.open(path, requests) as stream:
        yield stream
