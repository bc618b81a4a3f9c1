"""One video on its way through the extractors of a pass: samplers wired to the rows they read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vlpipe.extractors.extractor import Extractor
from vlpipe.extractors.graph import Node
from vlpipe.extractors.media import MediaInfo
from vlpipe.extractors.network_batches import Made
from vlpipe.extractors.samples import Block, Sample, Sampler, SourceRows

Handed = tuple[str, Sequence[Sample]]
"""Samples, and the key of the extractor whose network is to see them."""


@dataclass
class _Lane:
    """One extractor's share of the video.

    The two counters are kept apart because a decoding thread counts what it hands over while the
    thread that runs the networks counts what comes back.
    """

    sampler: Sampler
    readers: list[tuple[str, str]]
    num_handed: int = 0
    num_back: int = 0
    is_closed: bool = False
    is_given_up: bool = False

    @property
    def is_complete(self) -> bool:
        return self.is_given_up or (self.is_closed and self.num_handed == self.num_back)


class VideoPass:
    """Samplers of one video; every sample that a call returns is due back through `take`.

    nodes: sources before their readers. Samplers without sources (`roots`) may be fed by a
    decoding thread, and all others by the one thread that calls `take` and `close_ready`.
    """

    def __init__(
        self, nodes: Sequence[Node], extractors: Mapping[str, Extractor], info: MediaInfo
    ) -> None:
        self._nodes = {node.key: node for node in nodes}
        self._extractors = extractors
        self._lanes = {key: _Lane(extractors[key].sampler(info), []) for key in self._nodes}
        for node in nodes:
            for role, source in node.sources.items():
                self._lanes[source].readers.append((node.key, role))

    @property
    def roots(self) -> list[str]:
        """Keys of the extractors that read media alone."""
        return [key for key, node in self._nodes.items() if not node.sources]

    def push(self, key: str, block: Block) -> Sequence[Sample]:
        """The samples that a block completes."""
        lane = self._lanes[key]
        if lane.is_given_up:
            return ()
        samples = lane.sampler.push(block)
        lane.num_handed += len(samples)
        return samples

    def finish(self, key: str) -> Sequence[Sample]:
        """The samples that the end of all that it reads completes."""
        lane = self._lanes[key]
        samples = () if lane.is_given_up else lane.sampler.finish()
        lane.num_handed += len(samples)
        lane.is_closed = True
        return samples

    def take(self, made: "Made[object]") -> Iterator[Handed]:
        """Counts rows as come back, and hands them to their readers."""
        lane = self._lanes[made.key]
        lane.num_back += len(made.samples)
        if not lane.readers:
            return
        keys = {output.feature: output.key for output in self._extractors[made.key].spec.outputs}
        first = 0
        for sample, count in zip(made.samples, made.inferred.counts.tolist(), strict=True):
            rows = {keys[f]: r[first : first + count] for f, r in made.inferred.rows.items()}
            spans = made.inferred.spans[first : first + count]
            first += count
            for reader, role in lane.readers:
                samples = self.push(reader, SourceRows(role, rows, spans, sample.span))
                if samples:
                    yield reader, samples

    def close_ready(self) -> Iterator[Handed]:
        """After the end of the media: finishes every reader whose sources are complete."""
        for key, node in self._nodes.items():
            is_due = node.sources and not self._lanes[key].is_closed
            if is_due and all(self._lanes[s].is_complete for s in node.sources.values()):
                yield key, self.finish(key)

    def give_up(self, key: str) -> list[str]:
        """Expects no more rows of that extractor, nor of those that read it; returns their keys."""
        given_up = [key]
        self._lanes[key].is_given_up = True
        for reader, _ in self._lanes[key].readers:
            if not self._lanes[reader].is_given_up:
                given_up += self.give_up(reader)
        return given_up

    @property
    def is_complete(self) -> bool:
        """Whether all rows that are due have come."""
        return all(lane.is_complete for lane in self._lanes.values())
