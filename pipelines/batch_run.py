"""One batch from files to one commit: decoding, networks and writing overlap.

Decoding threads cut videos into samples; the calling thread fills network batches from samples
of all videos; finished videos go to the store's writer. The whole batch is committed, or nothing.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlpipe.pipelines.batches import Batch
from vlpipe.pipelines.decoding import Decoding
from vlpipe.pipelines.receipts import BatchReceipt, Failure, VideoReceipt
from vlpipe.pipelines.video_state import HandedOver, Reason, VideoState
from vlpipe.stores import FeatureDefinition, Features
from vlpipe.stores.errors import RowsRefused

if TYPE_CHECKING:
    from vlpipe.extractors.extractor import Extractor
    from vlpipe.extractors.media import DecodePool
    from vlpipe.extractors.samples import Sample
    from vlpipe.stores import FeatureStore
    from vlpipe.stores.writer import FeatureWriter

VideoDone = Callable[[str, tuple[Failure, ...]], None]

# Samples that wait for their network batch to fill, all groups together; frames that are not
# cropped differ in shape from video to video, and each shape is a group of its own.
_WAITING_BYTES = 256 * 2**20

# A file that is gone when its turn comes is no worse than one that was never there: it is
# reported, and the next run looks again.
_NOT_QUARANTINED = {"missing"}

Waiting = list[tuple[VideoState, "Sample"]]


class BatchRun:
    """The work on one batch; `run` is called once.

    num_decoders: videos decoded at a time, at most the pool's workers.
    on_video is called in the calling thread whenever a video is done, with its failures.
    stop: once set, no further video is begun; those in flight are finished and committed.
    is_lenient: videos that the decoder complained of are kept, and carry the note `damaged`.
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
        is_lenient: bool = False,
    ) -> None:
        self._batch = batch
        self._extractors = extractors
        self._definitions = definitions
        self._on_video = on_video
        self._restores_deleted = restores_deleted
        self._is_lenient = is_lenient
        self._decoding = Decoding(
            batch.tasks, extractors, definitions, pool, num_threads=num_decoders, stop=stop
        )
        self._waiting: dict[tuple[str, tuple[int, ...]], Waiting] = {}
        self._open: set[VideoState] = set()
        self._added: list[VideoReceipt] = []
        self._failed: list[Failure] = []
        self._stage_s = {"decode": 0.0, "network": 0.0, "write": 0.0}
        self._num_frames_decoded = 0

    def run(self, store: "FeatureStore", *, run_id: str) -> BatchReceipt:
        """The receipt of the committed batch.

        Raises what is no single video's fault (store, device, memory, processes); then nothing
        is committed.
        """
        started = time.monotonic()
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
                    if isinstance(message, VideoState):
                        self._open.add(message)
                        self._finish_complete([message], writer)
                    else:
                        self._take(message, writer)
                self._run_waiting(writer, most_bytes=0)
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

    def _take(self, message: HandedOver, writer: "FeatureWriter") -> None:
        name = message.extractor
        for sample in message.samples:
            group = (name, sample.data.shape)
            self._waiting.setdefault(group, []).append((message.video, sample))
            if len(self._waiting[group]) == self._extractors[name].batch_size:
                self._run_network(name, self._waiting.pop(group), writer)
        self._run_waiting(writer, most_bytes=_WAITING_BYTES)

    def _run_waiting(self, writer: "FeatureWriter", *, most_bytes: int) -> None:
        sizes = {
            group: sum(sample.data.nbytes for _, sample in waiting)
            for group, waiting in self._waiting.items()
        }
        while sum(sizes.values()) > most_bytes:
            largest = max(sizes, key=lambda group: sizes[group])
            del sizes[largest]
            self._run_network(largest[0], self._waiting.pop(largest), writer)

    def _run_network(self, name: str, taken: Waiting, writer: "FeatureWriter") -> None:
        taken = [(video, sample) for video, sample in taken if not video.is_finished]
        if not taken:
            return
        started = time.monotonic()
        made = self._extractors[name].infer([sample.data for _, sample in taken])
        seconds = time.monotonic() - started
        self._stage_s["network"] += seconds
        self._distribute(name, [video for video, _ in taken], made, seconds)
        self._finish_complete(dict.fromkeys(video for video, _ in taken), writer)

    def _distribute(
        self,
        name: str,
        videos: Sequence[VideoState],
        made: Mapping[str, npt.NDArray[Any]],
        seconds: float,
    ) -> None:
        """Hands each video its run of consecutive rows."""
        start = 0
        while start < len(videos):
            video = videos[start]
            stop = start
            while stop < len(videos) and videos[stop] is video:
                stop += 1
            track = video.tracks[name]
            for feature, rows in made.items():
                track.buffers[feature].append(rows[start:stop])
                if not track.buffers[feature].is_finite and name not in video.failures:
                    message = self._not_finite(name, feature, rows[start:stop])
                    video.failures[name] = Reason("not_finite", message)
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

    def _finish_complete(self, videos: Iterable[VideoState], writer: "FeatureWriter") -> None:
        for video in videos:
            if video in self._open and video.is_complete:
                self._open.remove(video)
                self._finish(video, writer)

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
            spans = np.array(track.spans, np.float64).reshape(-1, 2)
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
