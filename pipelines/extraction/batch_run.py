"""One batch from files to one commit: decoding, networks and writing overlap.

Decoding threads cut videos into samples; the calling thread fills network batches from samples
of all videos; finished videos go to the store's writer. The whole batch is committed, or nothing.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlpipe.extractors.network_batches import Made, NetworkBatches
from vlpipe.extractors.one_pass import Handed, VideoPass
from vlpipe.pipelines.extraction.batches import Batch
from vlpipe.pipelines.extraction.decoding import Decoding, Message
from vlpipe.pipelines.extraction.receipts import BatchReceipt, Failure, Reuse, VideoReceipt
from vlpipe.pipelines.extraction.replay import find_replays
from vlpipe.pipelines.extraction.video_state import HandedOver, Reason, VideoState
from vlpipe.stores import FeatureDefinition, Features
from vlpipe.stores.errors import RowsRefused

if TYPE_CHECKING:
    from vlpipe.extractors.extractor import Extractor
    from vlpipe.extractors.graph import Node
    from vlpipe.extractors.media import DecodePool
    from vlpipe.extractors.samples import Sample
    from vlpipe.stores import FeatureStore
    from vlpipe.stores.writer import FeatureWriter

logger = logging.getLogger(__name__)

VideoDone = Callable[[str, tuple[Failure, ...]], None]

# Samples that wait for their network's batch to fill.
_WAITING_BYTES = 256 * 2**20

# A file that is gone when its turn comes is no worse than one that was never there: it is
# reported, and the next run looks again.
_NOT_QUARANTINED = {"missing"}

Waiting = tuple[VideoState, str, "Sequence[Sample]"]
"""Samples of a video, and the key of the extractor whose network is to see them."""


class BatchRun:
    """The work on one batch; `run` is called once.

    graph, extractors: all that the batch needs, sources before their readers, by key.
    definitions: of the features of each extractor that the job asks for, by its name.
    num_decoders: videos decoded at a time, at most the pool's workers.
    on_video is called in the calling thread whenever a video is done, with its failures.
    stop: once set, no further video is begun; those in flight are finished and committed.
    is_lenient: videos that the decoder complained of are kept, and carry the note `damaged`.
    """

    def __init__(
        self,
        batch: Batch,
        graph: Mapping[str, "Node"],
        extractors: Mapping[str, "Extractor"],
        definitions: Mapping[str, Sequence[FeatureDefinition]],
        pool: "DecodePool",
        *,
        num_decoders: int,
        on_video: VideoDone,
        stop: threading.Event,
        restores_deleted: bool = False,
        is_lenient: bool = False,
    ) -> None:
        self._batch = batch
        self._graph = graph
        self._extractors = extractors
        self._definitions = definitions
        self._on_video = on_video
        self._restores_deleted = restores_deleted
        self._is_lenient = is_lenient
        self._decoding = Decoding(
            batch.tasks, graph, extractors, definitions, pool, num_threads=num_decoders, stop=stop
        )
        self._batches = NetworkBatches[VideoState](
            extractors, most_bytes=_WAITING_BYTES, is_wanted=_is_wanted
        )
        self._open: set[VideoState] = set()
        self._added: list[VideoReceipt] = []
        self._failed: list[Failure] = []
        self._stage_s = {"decode": 0.0, "network": 0.0, "write": 0.0}
        self._num_frames_decoded = 0
        self._num_computed = Counter[str]()
        self._num_used = Counter[str]()

    def run(self, store: "FeatureStore", *, run_id: str) -> BatchReceipt:
        """The receipt of the committed batch.

        Raises what is no single video's fault (store, device, memory, processes); then nothing
        is committed.
        """
        started = time.monotonic()
        self._replays = find_replays(store, self._batch, self._graph)
        is_replacing = any(task.replaced for task in self._batch.tasks)
        with store.writer(
            [d for definitions in self._definitions_in_use() for d in definitions],
            batch=self._batch.id,
            run=run_id,
            mode="replace" if is_replacing else "keep",
            restore=self._restores_deleted,
        ) as writer:
            try:
                for message in self._decoding.messages():
                    self._run(self._take(message, writer), writer)
                while not self._batches.is_empty:
                    self._run(self._take_rows(self._batches.flush(), writer), writer)
            except BaseException:
                self._decoding.abort()
                raise
            assert not self._open, sorted(video.task.id for video in self._open)
            began_commit = time.monotonic()
        self._stage_s["write"] += time.monotonic() - began_commit
        # Where nothing of ours was left to commit, the version is that of another writer's entry.
        ours = writer.receipt.version if writer.receipt.added else None
        stored, kept, gone = self._settle(store, ours)
        return BatchReceipt(
            batch=self._batch.id,
            version=writer.receipt.version,
            stored=stored,
            kept=kept,
            deleted=gone,
            failed=tuple(self._failed),
            num_bytes=writer.receipt.bytes,
            stage_s=self._stage_s,
            wall_s=time.monotonic() - started,
            num_frames_decoded=self._num_frames_decoded,
            reuse={
                key: Reuse(computed=count, used=self._num_used[key])
                for key, count in self._num_computed.items()
            },
            was_interrupted=self._decoding.was_stopped,
        )

    def _definitions_in_use(self) -> Iterable[Sequence[FeatureDefinition]]:
        wanted = {name for task in self._batch.tasks for name in task.extractors}
        return (self._definitions[name] for name in self._extractors if name in wanted)

    def _settle(
        self, store: "FeatureStore", version: int | None
    ) -> tuple[tuple[VideoReceipt, ...], tuple[str, ...], tuple[str, ...]]:
        """What was added, split into what is ours now, was another writer's, and was deleted.

        version: of our commit, None when there was none.
        """
        found = {
            d.name: store.status(d, [video.id for video in self._added])
            for definitions in self._definitions_in_use()
            for d in definitions
        }
        stored, kept, gone = [], [], []
        for video in self._added:
            standings = [found[feature][video.id] for feature in video.rows]
            if any(s.standing == "stored" and s.version == version for s in standings):
                stored.append(video)
            elif all(s.standing == "stored" for s in standings):
                kept.append(video.id)
            else:
                gone.append(video.id)
        return tuple(stored), tuple(kept), tuple(gone)

    def _take(self, message: Message, writer: "FeatureWriter") -> Iterator[Waiting]:
        """The samples that a message of the decoding side brings."""
        if isinstance(message, VideoState):
            self._open.add(message)
            if message.failures.keys() >= message.tracks.keys():
                message.on_way = None
            yield from self._settle_video(message, writer)
        elif isinstance(message, HandedOver):
            yield message.video, message.key, message.samples
        else:
            video, key, block = message.video, message.key, message.block
            yield from _advance(video, lambda way: [(key, way.push(key, block))])

    def _run(self, handed: Iterable[Waiting], writer: "FeatureWriter") -> None:
        """Fills the networks' batches, also with what their rows lead to."""
        waiting = deque(handed)
        while waiting:
            video, key, samples = waiting.popleft()
            if self._replays.has(video, key):
                made = self._replays.made(video, key, samples)
            else:
                made = self._batches.add(video, key, samples)
            waiting.extend(self._take_rows(made, writer))

    def _take_rows(
        self, made: Iterable[Made[VideoState]], writer: "FeatureWriter"
    ) -> Iterator[Waiting]:
        """Keeps rows for the store; the samples that they lead to."""
        for result in made:
            video = result.video
            self._stage_s["network"] += result.seconds
            video.network_s += result.seconds
            if result.inferred.uses is not None:
                self._num_computed[result.key] += len(result.inferred.uses)
                self._num_used[result.key] += int(result.inferred.uses.sum())
            reason = self._keep(result)
            if reason is not None:
                video.fail(result.key, reason)
            yield from _advance(video, partial(VideoPass.take, made=result))
            yield from self._settle_video(video, writer)

    def _keep(self, made: Made[VideoState]) -> Reason | None:
        """Adds rows to what is stored of the video; the reason why they cannot be."""
        track = made.video.tracks.get(made.key)
        if track is not None:
            track.spans.append(made.inferred.spans)
        for feature, rows in made.inferred.rows.items():
            buffer = track.buffers.get(feature) if track is not None else None
            if buffer is not None:
                buffer.append(rows)
            is_finite = buffer.is_finite if buffer is not None else np.isfinite(rows).all()
            if not is_finite:
                return Reason("not_finite", self._not_finite(made.key, feature, rows))
        return None

    def _settle_video(self, video: VideoState, writer: "FeatureWriter") -> Iterator[Waiting]:
        """After the last block of a video: ends its samplers one by one, and then the video."""
        if not video.is_decoded or video not in self._open:
            return
        yield from _advance(video, VideoPass.close_ready)
        if video.is_complete:
            self._open.remove(video)
            self._finish(video, writer)

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

    def _finish(self, video: VideoState, writer: "FeatureWriter") -> None:
        started = time.monotonic()
        self._stage_s["decode"] += video.decode_s
        self._num_frames_decoded += video.num_frames_decoded
        self._add(video, writer)
        failed = self._fail(video, writer)
        video.close()
        self._failed += failed
        self._stage_s["write"] += time.monotonic() - started
        self._on_video(video.task.id, tuple(failed))

    def _add(self, video: VideoState, writer: "FeatureWriter") -> None:
        num_rows: dict[str, int] = {}
        notes: dict[str, str] = {}
        size, mtime_ns = video.size_and_time or (None, None)
        for name, track in video.tracks.items():
            if name in video.failures or video.info is None:
                continue
            spans = np.concatenate([np.zeros((0, 2)), *track.spans])
            note = self._extractors[name].note(video.info, len(spans))
            if self._is_lenient and video.is_damaged:
                note = "damaged"
            try:
                writer.add(
                    video.task.id,
                    {f: Features(buffer.rows(), spans) for f, buffer in track.buffers.items()},
                    source=video.info.sha256,
                    seconds=video.decode_s + video.network_s,
                    source_size=size,
                    source_mtime_ns=mtime_ns,
                    note=note,
                )
            except RowsRefused as error:
                video.failures[name] = Reason("refused", f"{video.task.path}: {error.message}")
                continue
            num_rows |= dict.fromkeys(track.buffers, len(spans))
            notes |= dict.fromkeys(track.buffers, note) if note else {}
        if num_rows and video.info is not None:
            self._added.append(
                VideoReceipt(
                    id=video.task.id,
                    rows=num_rows,
                    media_s=video.info.duration_s,
                    notes=notes,
                    replaced=bool(set(video.task.replaced) & set(video.tracks)),
                )
            )

    def _fail(self, video: VideoState, writer: "FeatureWriter") -> list[Failure]:
        """Quarantines what failed, one entry a reason."""
        lost: dict[Reason, list[str]] = {}
        for name, reason in video.failures.items():
            lost.setdefault(reason, []).append(name)
        failed: list[Failure] = []
        for reason, names in lost.items():
            features = tuple(d.name for name in names for d in self._definitions[name])
            message = reason.message
            if set(names) & set(video.task.replaced):
                message += "; the rows of the file that was there before are kept"
            if reason.kind not in _NOT_QUARANTINED:
                writer.fail(video.task.id, features, reason.kind, message, retry=reason.retry)
            failed.append(
                Failure(id=video.task.id, features=features, kind=reason.kind, message=message)
            )
        return failed


def _is_wanted(video: VideoState, key: str) -> bool:
    return video.on_way is not None and key not in video.failures


def _advance(video: VideoState, step: Callable[[VideoPass], Iterable[Handed]]) -> Iterator[Waiting]:
    """The samples that a step of the video leads to; what goes wrong is that video's fault."""
    if video.on_way is None:
        return
    try:
        handed = list(step(video.on_way))
    except Exception as error:  # the boundary of one video: its siblings go on
        logger.exception("%s: %s", video.task.id, video.task.path)
        message = f"{video.task.path}: {type(error).__name__}: {error}"
        video.failures |= dict.fromkeys(
            video.task.extractors, Reason("internal", message, retry=True)
        )
        video.on_way = None
        return
    for key, samples in handed:
        yield video, key, samples
