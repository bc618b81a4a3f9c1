"""One batch from files to one commit: decoding, networks and writing overlap.

Decoding threads pull time-stamped blocks from child processes and cut them into samples; the
calling thread fills network batches from samples of all videos; finished videos go to the
store's writer. Either the whole batch is committed or nothing of it.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlpipe.extractors.errors import MediaError
from vlpipe.pipelines.batches import Batch, VideoTask
from vlpipe.pipelines.receipts import BatchReceipt, Failure, VideoReceipt
from vlpipe.pipelines.row_buffer import RowBuffer
from vlpipe.stores import FeatureDefinition, Features

if TYPE_CHECKING:
    from vlpipe.extractors.extractor import Extractor, Sample, Sampler
    from vlpipe.extractors.media import DecodePool, MediaInfo
    from vlpipe.stores import FeatureStore
    from vlpipe.stores.writer import FeatureWriter

logger = logging.getLogger(__name__)

# Messages between the decoding threads and the networks; each holds one block's samples, so that
# what waits is bounded by this times the block size of the decoder.
_QUEUE_LENGTH = 4
_POLL_S = 0.2

VideoDone = Callable[[str, tuple[Failure, ...]], None]


@dataclass
class _Track:
    """What one extractor has made of one video so far."""

    sampler: "Sampler"
    buffers: dict[str, RowBuffer]
    spans: list[tuple[float, float]] = field(default_factory=list)
    num_rows: int = 0
    failure: tuple[str, str] | None = None

    @property
    def is_complete(self) -> bool:
        return self.failure is not None or self.num_rows == len(self.spans)


@dataclass(eq=False)
class _VideoState:
    """One video of the batch on its way through the stages."""

    task: VideoTask
    tracks: dict[str, _Track] = field(default_factory=dict)
    info: "MediaInfo | None" = None
    size_and_time: tuple[int, int] | None = None
    decode_s: float = 0.0
    network_s: float = 0.0
    num_frames_decoded: int = 0
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    is_decoded: bool = False


@dataclass(frozen=True, slots=True)
class _Samples:
    video: _VideoState
    extractor: str
    samples: Sequence["Sample"]


class _Aborted(Exception):
    """The batch was given up while a decoding thread was at work."""


class BatchRun:
    """The work on one batch; `run` is called once.

    num_decoders: videos decoded at a time, at most the pool's workers.
    on_video is called in the calling thread whenever a video is done, with its failures.
    stop: once set, no further video is begun; those in flight are finished and committed.
    """

    def __init__(
        self,
        batch: Batch,
        extractors: Mapping[str, "Extractor"],
        definitions: Mapping[str, Sequence[FeatureDefinition]],
        pool: "DecodePool",
        *,
        num_decoders: int,
        on_video: VideoDone,
        stop: threading.Event,
        restores_deleted: bool = False,
    ) -> None:
        self._batch = batch
        self._extractors = extractors
        self._definitions = definitions
        self._pool = pool
        self._num_decoders = num_decoders
        self._on_video = on_video
        self._stop = stop
        self._abort = threading.Event()
        self._messages: queue.Queue[_Samples | _VideoState] = queue.Queue(_QUEUE_LENGTH)
        self._tasks = queue.SimpleQueue[VideoTask]()
        self._restores = restores_deleted
        # By extractor and shape: a network takes samples of one shape at a time, and frames that
        # are not cropped differ in shape from video to video.
        self._waiting: dict[tuple[str, tuple[int, ...]], list[tuple[_VideoState, Sample]]] = {}
        self._open: dict[str, _VideoState] = {}
        self._stored: list[VideoReceipt] = []
        self._failed: list[Failure] = []
        self._stage_s = {"decode": 0.0, "network": 0.0, "write": 0.0}
        self._num_frames_decoded = 0

    def run(self, store: "FeatureStore", *, run_id: str) -> BatchReceipt:
        """The receipt of the committed batch.

        Raises what is no single video's fault (store, device, memory); then nothing is committed.
        """
        started = time.monotonic()
        for task in self._batch.tasks:
            self._tasks.put(task)
        threads = [
            threading.Thread(target=self._decode_videos, name=f"decode-{n}", daemon=True)
            for n in range(min(self._num_decoders, len(self._batch.tasks)))
        ]
        wanted = {name for task in self._batch.tasks for name in task.extractors}
        definitions = [d for name in self._extractors if name in wanted
                       for d in self._definitions[name]]  # fmt: skip
        is_replacing = any(task.replace for task in self._batch.tasks)
        try:
            with store.writer(
                definitions,
                batch=self._batch.id,
                run=run_id,
                mode="replace" if is_replacing else "keep",
                restore=self._restores,
            ) as writer:
                for thread in threads:
                    thread.start()
                self._consume(threads, writer)
                began_commit = time.monotonic()
            self._stage_s["write"] += time.monotonic() - began_commit
        finally:
            self._abort.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        return BatchReceipt(
            batch=self._batch.id,
            version=writer.receipt.version,
            stored=tuple(self._stored),
            failed=tuple(self._failed),
            num_bytes=writer.receipt.bytes,
            stage_s=self._stage_s,
            wall_s=time.monotonic() - started,
            num_frames_decoded=self._num_frames_decoded,
            was_interrupted=not self._tasks.empty(),
        )

    # --- decoding threads ---------------------------------------------------------------------

    def _decode_videos(self) -> None:
        while not self._stop.is_set() and not self._abort.is_set():
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                return
            state = _VideoState(task)
            started = time.monotonic()
            try:
                self._decode(state, task.extractors)
            except _Aborted:
                return
            except MediaError as error:
                state.failures |= dict.fromkeys(task.extractors, (error.kind, error.message))
            except Exception as error:  # the boundary of one video: its siblings go on
                logger.exception("%s: %s", task.id, task.path)
                message = f"{type(error).__name__}: {error}"
                state.failures |= dict.fromkeys(task.extractors, ("internal", message))
            state.decode_s = state.decode_s or time.monotonic() - started
            state.is_decoded = True
            try:
                self._put(state)
            except _Aborted:
                return

    def _decode(self, state: _VideoState, names: Sequence[str]) -> None:
        try:
            self._sample(state, names)
        except MediaError as error:
            sound_only = [n for n in names if not _wants_frames(self._extractors[n])]
            if error.kind != "no_video" or not sound_only or len(sound_only) == len(names):
                raise
            # Sound without pictures: what needs frames fails, what needs sound goes on.
            lost = [n for n in names if n not in sound_only]
            state.failures |= dict.fromkeys(lost, (error.kind, error.message))
            self._sample(state, sound_only)

    def _sample(self, state: _VideoState, names: Sequence[str]) -> None:
        requests = list(dict.fromkeys(self._extractors[n].spec.request for n in names))
        readers = {n: requests.index(self._extractors[n].spec.request) for n in names}
        # Before decoding: a file that is replaced meanwhile then looks changed to the next plan.
        with suppress(OSError):
            facts = state.task.path.stat()
            state.size_and_time = (facts.st_size, facts.st_mtime_ns)
        with self._pool.open(state.task.path, requests) as stream:
            state.info = stream.info
            for name in names:
                extractor = self._extractors[name]
                state.tracks[name] = _Track(
                    extractor.sampler(stream.info),
                    {d.name: RowBuffer(d.row_shape, d.dtype) for d in self._definitions[name]},
                )
            for block in stream:
                for name, request in readers.items():
                    if request == block.request:
                        self._hand_over(state, name, state.tracks[name].sampler.push(block))
            for name in names:
                self._hand_over(state, name, state.tracks[name].sampler.finish())
            state.decode_s = stream.summary.cpu_s
            state.num_frames_decoded = stream.summary.frames_decoded

    def _hand_over(self, state: _VideoState, name: str, samples: Sequence["Sample"]) -> None:
        if samples:
            state.tracks[name].spans += [sample.span for sample in samples]
            self._put(_Samples(state, name, samples))

    def _put(self, message: "_Samples | _VideoState") -> None:
        while not self._abort.is_set():
            try:
                self._messages.put(message, timeout=_POLL_S)
            except queue.Full:
                continue
            return
        raise _Aborted

    # --- networks and writing, in the calling thread --------------------------------------------

    def _consume(self, threads: Sequence[threading.Thread], writer: "FeatureWriter") -> None:
        while True:
            try:
                message = self._messages.get(timeout=_POLL_S)
            except queue.Empty:
                if not any(thread.is_alive() for thread in threads) and self._messages.empty():
                    break
                continue
            if isinstance(message, _VideoState):
                self._open[message.task.id] = message
                self._finish_complete([message], writer)
            else:
                name = message.extractor
                for sample in message.samples:
                    group = (name, sample.data.shape)
                    self._waiting.setdefault(group, []).append((message.video, sample))
                    if len(self._waiting[group]) == self._extractors[name].batch_size:
                        self._run_network(name, self._waiting.pop(group), writer)
        for name, shape in sorted(self._waiting):
            self._run_network(name, self._waiting.pop((name, shape)), writer)
        assert not self._open, f"videos left unfinished: {sorted(self._open)}"

    def _run_network(
        self, name: str, taken: "Sequence[tuple[_VideoState, Sample]]", writer: "FeatureWriter"
    ) -> None:
        started = time.monotonic()
        made = self._extractors[name].infer([sample.data for _, sample in taken])
        seconds = time.monotonic() - started
        self._stage_s["network"] += seconds
        self._distribute(name, [video for video, _ in taken], made, seconds)
        self._finish_complete(dict.fromkeys(video for video, _ in taken), writer)

    def _distribute(
        self,
        name: str,
        videos: Sequence[_VideoState],
        made: Mapping[str, npt.NDArray[Any]],
        seconds: float,
    ) -> None:
        start = 0
        while start < len(videos):
            video = videos[start]
            stop = start
            while stop < len(videos) and videos[stop] is video:
                stop += 1
            track = video.tracks[name]
            for feature, rows in made.items():
                track.buffers[feature].append(rows[start:stop])
                if not track.buffers[feature].is_finite and track.failure is None:
                    track.failure = (
                        "not_finite",
                        self._not_finite(name, feature, rows[start:stop]),
                    )
            track.num_rows += stop - start
            video.network_s += seconds * (stop - start) / len(videos)
            start = stop

    def _not_finite(self, name: str, feature: str, rows: npt.NDArray[Any]) -> str:
        spec = self._extractors[name].spec
        if np.isfinite(rows).all():
            return (
                f"{feature}: a value of {np.abs(rows).max():g} does not fit {spec.store_dtype}; "
                "extract with --store-dtype float32"
            )
        return (
            f"{name} at {spec.precision} gave NaN or infinite values in {feature}; extract with "
            "--precision fp32, or check the checkpoint"
        )

    def _finish_complete(self, videos: Iterable[_VideoState], writer: "FeatureWriter") -> None:
        for video in videos:
            is_complete = video.is_decoded and all(
                name in video.failures or track.is_complete for name, track in video.tracks.items()
            )
            if is_complete and self._open.pop(video.task.id, None) is not None:
                self._finish(video, writer)

    def _finish(self, video: _VideoState, writer: "FeatureWriter") -> None:
        started = time.monotonic()
        self._stage_s["decode"] += video.decode_s
        self._num_frames_decoded += video.num_frames_decoded
        failures = dict(video.failures)
        for name, track in video.tracks.items():
            if name not in failures and track.failure is not None:
                failures[name] = track.failure
        lost: dict[tuple[str, str], list[str]] = {}
        for name, reason in failures.items():
            lost.setdefault(reason, []).extend(d.name for d in self._definitions[name])
        failed = [
            Failure(id=video.task.id, features=tuple(features), kind=kind, message=message)
            for (kind, message), features in lost.items()
        ]
        for failure in failed:
            writer.fail(failure.id, failure.features, failure.kind, failure.message)
        self._add(video, [n for n in video.tracks if n not in failures], writer)
        for track in video.tracks.values():
            for buffer in track.buffers.values():
                buffer.close()
        self._failed += failed
        self._stage_s["write"] += time.monotonic() - started
        self._on_video(video.task.id, tuple(failed))

    def _add(self, video: _VideoState, names: Sequence[str], writer: "FeatureWriter") -> None:
        if not names:
            return
        info = video.info
        assert info is not None
        size, mtime_ns = video.size_and_time or (None, None)
        num_rows: dict[str, int] = {}
        notes: dict[str, str] = {}
        for name in names:
            track = video.tracks[name]
            spans = np.array(track.spans, np.float64).reshape(-1, 2)
            note = self._extractors[name].note(info, len(spans))
            writer.add(
                video.task.id,
                {f: Features(buffer.rows(), spans) for f, buffer in track.buffers.items()},
                source=info.sha256,
                seconds=video.decode_s + video.network_s,
                source_size=size,
                source_mtime_ns=mtime_ns,
                note=note,
            )
            num_rows |= dict.fromkeys(track.buffers, len(spans))
            notes |= dict.fromkeys(track.buffers, note) if note else {}
        self._stored.append(
            VideoReceipt(id=video.task.id, rows=num_rows, media_s=info.duration_s, notes=notes)
        )


def _wants_frames(extractor: "Extractor") -> bool:
    from vlpipe.extractors.media import FrameRequest

    return isinstance(extractor.spec.request, FrameRequest)
