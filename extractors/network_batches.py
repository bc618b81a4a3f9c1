"""Samples of many videos, gathered until they fill a network's batch."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vlpipe.extractors.extractor import Extractor, Inferred
from vlpipe.extractors.samples import Sample

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Made(Generic[V_co]):
    """The rows of consecutive samples of one video. seconds: its share of the network's time."""

    video: V_co
    key: str
    samples: Sequence[Sample]
    inferred: Inferred
    seconds: float


class NetworkBatches(Generic[V]):
    """Runs each network whenever as many samples of one shape wait as it takes in a batch.

    extractors: by key, sources before their readers. most_bytes: samples that may wait, all
    together; frames that are not cropped differ in shape from video to video, and each shape is
    gathered by itself. is_wanted: whether rows of that video and key are still of use.
    """

    def __init__(
        self,
        extractors: Mapping[str, Extractor],
        *,
        most_bytes: int,
        is_wanted: Callable[[V, str], bool],
    ) -> None:
        self._extractors = extractors
        self._most_bytes = most_bytes
        self._is_wanted = is_wanted
        self._waiting: dict[tuple[str, tuple[int, ...]], list[tuple[V, Sample]]] = {}
        self._num_bytes = 0

    def add(self, video: V, key: str, samples: Sequence[Sample]) -> Iterator[Made[V]]:
        """Takes samples in; gives what the batches made that became full."""
        for sample in samples:
            group = (key, sample.data.shape)
            # Rows of a video are made in the order of its samples, whatever their shapes.
            earlier = self._other_group_of(video, group)
            if earlier is not None:
                yield from self._run(earlier)
            self._waiting.setdefault(group, []).append((video, sample))
            self._num_bytes += sample.data.nbytes
            if len(self._waiting[group]) == self._extractors[key].batch_size:
                yield from self._run(group)
        while self._num_bytes > self._most_bytes:
            yield from self._run(max(self._waiting, key=self._bytes_of))

    def flush(self) -> Iterator[Made[V]]:
        """Gives what one batch made that is not full; nothing when no sample waits.

        Sources come before their readers, which may be given samples by what is made here.
        """
        for key in self._extractors:
            group = next((g for g in self._waiting if g[0] == key), None)
            if group is not None:
                yield from self._run(group)
                return

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def _other_group_of(
        self, video: V, group: tuple[str, tuple[int, ...]]
    ) -> tuple[str, tuple[int, ...]] | None:
        """The group of that key and another shape in which samples of the video wait."""
        for other, waiting in self._waiting.items():
            if other[0] == group[0] and other != group and any(v is video for v, _ in waiting):
                return other
        return None

    def _bytes_of(self, group: tuple[str, tuple[int, ...]]) -> int:
        return sum(sample.data.nbytes for _, sample in self._waiting[group])

    def _run(self, group: tuple[str, tuple[int, ...]]) -> Iterator[Made[V]]:
        self._num_bytes -= self._bytes_of(group)
        key = group[0]
        taken = [(v, s) for v, s in self._waiting.pop(group) if self._is_wanted(v, key)]
        if not taken:
            return
        started = time.monotonic()
        inferred = self._extractors[key].infer([sample for _, sample in taken])
        share = (time.monotonic() - started) / len(taken)
        first = 0
        while first < len(taken):
            video = taken[first][0]
            last = first
            while last < len(taken) and taken[last][0] is video:
                last += 1
            samples = [sample for _, sample in taken[first:last]]
            part = inferred.of_samples(first, last)
            yield Made(video, key, samples, part, share * (last - first))
            first = last
