"""Rows of a source that are in the store already: read back instead of computed again.

Boxes of months ago then serve an extractor that is new today. Only what the store holds without
rounding is read back, so that the reader's rows have the bits of a run that computes everything.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlpipe.extractors.extractor import Inferred
from vlpipe.extractors.graph import Node, with_sources
from vlpipe.extractors.network_batches import Made
from vlpipe.pipelines.extraction.batches import Batch
from vlpipe.pipelines.extraction.video_state import VideoState
from vlpipe.stores import FeatureDefinition, FeatureStore
from vlpipe.stores.status import VideoStatus

if TYPE_CHECKING:
    from vlpipe.extractors.samples import Sample

Rows = npt.NDArray[Any]


@dataclass(frozen=True)
class _Stored:
    """Where the rows of one source of one video are."""

    definitions: tuple[FeatureDefinition, ...]
    status: VideoStatus


@dataclass
class Replays:
    """What of a batch need not be computed."""

    store: FeatureStore
    found: Mapping[tuple[str, str], _Stored]
    _read: dict[tuple[str, str], dict[tuple[float, float], dict[str, Rows]]] = field(
        default_factory=dict
    )

    def has(self, video: VideoState, key: str) -> bool:
        """Whether that extractor's rows are stored, of the very file that is being decoded."""
        stored = self.found.get((video.task.id, key))
        return stored is not None and video.size_and_time == (
            stored.status.source_size,
            stored.status.source_mtime_ns,
        )

    def made(
        self, video: VideoState, key: str, samples: "Sequence[Sample]"
    ) -> Iterator[Made[VideoState]]:
        """What the network would make of the samples."""
        of_video = (video.task.id, key)
        if of_video not in self._read:
            self._read[of_video] = self._rows_by_span(*of_video)
        by_span = self._read[of_video]
        features = [definition.name for definition in self.found[of_video].definitions]
        for sample in samples:
            rows = by_span.get(sample.span) or by_span[_EMPTY]
            count = len(rows[features[0]])
            spans = np.tile(np.array(sample.span, np.float64), (count, 1))
            inferred = Inferred(rows, spans, np.array([count], np.int64))
            yield Made(video, key, [sample], inferred, 0.0)

    def _rows_by_span(self, video_id: str, key: str) -> dict[tuple[float, float], dict[str, Rows]]:
        rows: dict[str, Rows] = {}
        spans = np.zeros((0, 2))
        for definition in self.found[video_id, key].definitions:
            reader = self.store[f"{definition.name}@{definition.generation}"]
            rows[definition.name], spans = reader.read(video_id, with_spans=True)
        starts = np.flatnonzero(np.any(spans[1:] != spans[:-1], axis=1)) + 1
        edges = [0, *starts.tolist(), len(spans)]
        by_span = {_EMPTY: {name: values[:0] for name, values in rows.items()}}
        for first, last in itertools.pairwise(edges):
            if first < last:
                span = (float(spans[first, 0]), float(spans[first, 1]))
                by_span[span] = {name: values[first:last] for name, values in rows.items()}
        return by_span


_EMPTY = (-1.0, -1.0)


def find_replays(store: FeatureStore, batch: Batch, graph: Mapping[str, Node]) -> Replays:
    """The sources of the batch's extractors whose rows the store has.

    A source qualifies if all its rows keep the span of their sample (`Extractor.rows_keep_span`)
    and if what its readers want of it is stored without rounding.
    """
    found: dict[tuple[str, str], _Stored] = {}
    readers: dict[str, list[str]] = {}
    for task in batch.tasks:
        keys = with_sources(graph, task.extractors)
        for key in keys:
            if graph[key].sources and (key in task.extractors):
                for source in graph[key].sources.values():
                    if source not in task.extractors:
                        readers.setdefault(source, []).append(task.id)
    for source, ids in readers.items():
        definitions = _wanted_of(source, graph)
        is_lossless = all(d.dtype not in ("float16", "bfloat16") for d in definitions)
        if not (definitions and is_lossless and graph[source].spec.extractor.rows_keep_span):
            continue
        statuses = [store.status(definition, ids) for definition in definitions]
        for video_id in ids:
            standings = [of_feature[video_id] for of_feature in statuses]
            if all(s.standing == "stored" for s in standings):
                found[video_id, source] = _Stored(definitions, standings[0])
    return Replays(store, found)


def _wanted_of(source: str, graph: Mapping[str, Node]) -> tuple[FeatureDefinition, ...]:
    wanted = {
        definition.name: definition
        for node in graph.values()
        for role, key in node.sources.items()
        if key == source
        for definition in node.spec.sources[role].definitions()
    }
    return tuple(wanted.values())
