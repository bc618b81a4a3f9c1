"""The decoding side of a batch: threads that pull blocks from child processes and cut samples."""

import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from vlpipe.extractors.errors import MediaError
from vlpipe.extractors.graph import with_sources
from vlpipe.extractors.media import FrameRequest
from vlpipe.extractors.one_pass import VideoPass
from vlpipe.pipelines.extraction.batches import VideoTask
from vlpipe.pipelines.extraction.row_buffer import RowBuffer
from vlpipe.pipelines.extraction.video_state import HandedOver, Passed, Reason, Track, VideoState
from vlpipe.stores import FeatureDefinition
from vlpipe.stores.errors import EnvironmentLacks

if TYPE_CHECKING:
    from vlpipe.extractors.extractor import Extractor
    from vlpipe.extractors.graph import Node
    from vlpipe.extractors.media import DecodePool
    from vlpipe.extractors.samples import Sample

logger = logging.getLogger(__name__)

# Each message holds the samples of one block, so that what waits for the networks is bounded by
# this times the block size of the decoder.
_QUEUE_LENGTH = 4
_RETRY_S = 0.2

# Reasons that may lie with the machine and not with the file.
_MAY_PASS = {"timeout", "crashed", "unreadable", "missing"}

Message = HandedOver | Passed | VideoState


class _Aborted(Exception):
    """The batch was given up while a thread was at work."""


class _ThreadEnded:
    """Marks the end of one thread's messages."""


class Decoding:
    """Decodes the videos of a batch in `num_threads` threads; `messages` is what comes of it.

    stop: once set, no further video is begun.
    """

    def __init__(
        self,
        tasks: Sequence[VideoTask],
        graph: Mapping[str, "Node"],
        extractors: Mapping[str, "Extractor"],
        definitions: Mapping[str, Sequence[FeatureDefinition]],
        pool: "DecodePool",
        *,
        num_threads: int,
        stop: threading.Event,
    ) -> None:
        self._graph = graph
        self._extractors = extractors
        self._definitions = definitions
        self._pool = pool
        self._stop = stop
        self._aborted = threading.Event()
        self._tasks = queue.SimpleQueue[VideoTask]()
        for task in tasks:
            self._tasks.put(task)
        self._queue: queue.Queue[Message | BaseException | _ThreadEnded] = queue.Queue(
            _QUEUE_LENGTH
        )
        self._threads = [
            threading.Thread(target=self._work, name=f"decode-{n}", daemon=True)
            for n in range(min(num_threads, len(tasks)))
        ]

    @property
    def was_stopped(self) -> bool:
        """Whether videos were left that no thread began."""
        return not self._tasks.empty()

    def messages(self) -> Iterator[Message]:
        """Samples as they are cut, and each video after the last of its samples.

        Raises what is no single video's fault: no memory, no process, no disk.
        """
        for thread in self._threads:
            thread.start()
        running = len(self._threads)
        while running:
            message = self._queue.get()
            if isinstance(message, _ThreadEnded):
                running -= 1
            elif isinstance(message, BaseException):
                raise message
            else:
                yield message

    def abort(self) -> None:
        """Gives the batch up: kills the decoders and waits for the threads."""
        self._aborted.set()
        self._pool.close()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self) -> None:
        with suppress(_Aborted):
            while not self._stop.is_set():
                try:
                    task = self._tasks.get_nowait()
                except queue.Empty:
                    break
                self._put(self._decode(task))
            self._put(_ThreadEnded())

    def _decode(self, task: VideoTask) -> VideoState | BaseException:
        state = VideoState(task)
        started = time.monotonic()
        reason: Reason | None = None
        try:
            self._sample(state, task.extractors)
        except _Aborted:
            raise
        except MediaError as error:
            reason = Reason(error.kind, error.message, retry=error.kind in _MAY_PASS)
        except (EnvironmentLacks, OSError, MemoryError) as error:
            return error
        except Exception as error:  # the boundary of one video: its siblings go on
            if self._aborted.is_set():
                raise _Aborted from error
            logger.exception("%s: %s", task.id, task.path)
            reason = Reason("internal", f"{task.path}: {type(error).__name__}: {error}", retry=True)
        if reason is not None:
            state.failures |= dict.fromkeys(task.extractors, reason)
        state.decode_s = state.decode_s or time.monotonic() - started
        state.is_decoded = True
        return state

    def _sample(self, state: VideoState, names: Sequence[str]) -> None:
        try:
            self._sample_streams(state, names)
        except MediaError as error:
            sound_only = [n for n in names if not self._wants_frames(n)]
            if error.kind != "no_video" or not sound_only or len(sound_only) == len(names):
                raise
            # Sound without pictures: what needs frames fails, what needs sound goes on.
            lost = [n for n in names if n not in sound_only]
            state.failures |= dict.fromkeys(lost, Reason(error.kind, error.message))
            self._sample_streams(state, sound_only)

    def _wants_frames(self, name: str) -> bool:
        return any(
            isinstance(self._graph[key].spec.request, FrameRequest)
            for key in with_sources(self._graph, [name])
        )

    def _sample_streams(self, state: VideoState, names: Sequence[str]) -> None:
        nodes = [self._graph[key] for key in with_sources(self._graph, names)]
        wanted = {node.key: node.spec.request for node in nodes if node.spec.request is not None}
        requests = list(dict.fromkeys(wanted.values()))
        # Readers before their sources: a sampler gets frames before the rows made of them.
        readers = {key: requests.index(wanted[key]) for key in reversed(wanted)}
        # Before decoding: a file that is replaced meanwhile then looks changed to the next plan.
        with suppress(OSError):
            facts = state.task.path.stat()
            state.size_and_time = (facts.st_size, facts.st_mtime_ns)
        with self._pool.open(state.task.path, requests) as stream:
            state.info = stream.info
            state.tracks = {
                name: Track(
                    {d.name: RowBuffer(d.row_shape, d.dtype) for d in self._definitions[name]}
                )
                for name in names
            }
            state.on_way = video = VideoPass(nodes, self._extractors, stream.info)
            roots = video.roots
            for block in stream:
                for key, request in readers.items():
                    if request != block.request:
                        continue
                    if key in roots:
                        self._hand_over(state, key, video.push(key, block))
                    else:
                        self._put(Passed(state, key, block))
            for key in roots:
                self._hand_over(state, key, video.finish(key))
            state.decode_s = stream.summary.cpu_s
            state.num_frames_decoded = stream.summary.frames_decoded
            state.is_damaged = stream.summary.ratio < 1 or bool(stream.summary.warnings)

    def _hand_over(self, state: VideoState, key: str, samples: "Sequence[Sample]") -> None:
        if samples:
            self._put(HandedOver(state, key, samples))

    def _put(self, message: Message | BaseException | _ThreadEnded) -> None:
        while not self._aborted.is_set():
            try:
                self._queue.put(message, timeout=_RETRY_S)
            except queue.Full:
                continue
            return
        raise _Aborted
