"""Batches of videos: the unit of work, cut so that adding videos does not reshuffle the rest."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from vlpipe.pipelines.extraction.shards import HASH_BITS, hash_of
from vlpipe.stores.features import canonical_json

# One commit holds at most so many videos: the store's own rule for the size of a part.
MAX_VIDEOS = 256


class VideoTask(BaseModel):
    """One video and the extractors that it still lacks.

    replaced: those of them that have rows of an earlier file, which are to be superseded.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    path: Path
    extractors: tuple[str, ...]
    estimated_s: float
    replaced: tuple[str, ...] = ()


class Batch(BaseModel):
    """Videos that are decoded, computed and committed together.

    id: 16 hex digits, equal for equal work.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    tasks: tuple[VideoTask, ...]

    @property
    def estimated_s(self) -> float:
        return sum(task.estimated_s for task in self.tasks)

    def halves(self) -> tuple["Batch", "Batch"]:
        """Two batches of half its videos each; it must have two or more."""
        middle = len(self.tasks) // 2
        first, second = self.tasks[:middle], self.tasks[middle:]
        return (
            Batch(id=_batch_id(first, [self.id]), tasks=first),
            Batch(id=_batch_id(second, [self.id]), tasks=second),
        )


def cut_batches(
    tasks: Iterable[VideoTask], *, seconds: float, identity: Sequence[str]
) -> list[Batch]:
    """Batches of about `seconds` of estimated work and at most 256 videos.

    identity: what else names the work (dataset and feature generations).

    Videos are placed by the hash of their id, and a range of hashes is halved for as long as it
    is too much work for one batch. A new video can therefore split the batch it falls into, and
    leaves all others as they were, ids included.
    """
    keyed = sorted((hash_of(task.id), task) for task in tasks if task.extractors)
    batches: list[Batch] = []
    stack = [(keyed, 0)]
    while stack:
        group, depth = stack.pop()
        if not group:
            continue
        work = sum(task.estimated_s for _, task in group)
        is_divisible = len(group) > 1 and depth < HASH_BITS
        if is_divisible and (work > seconds or len(group) > MAX_VIDEOS):
            bit = 1 << (HASH_BITS - 1 - depth)
            low = [pair for pair in group if not pair[0] & bit]
            stack += [([pair for pair in group if pair[0] & bit], depth + 1), (low, depth + 1)]
        else:
            chosen = tuple(task for _, task in group)
            batches.append(Batch(id=_batch_id(chosen, identity), tasks=chosen))
    return batches


def _batch_id(tasks: Sequence[VideoTask], identity: Sequence[str]) -> str:
    work = [list(identity), sorted([task.id, *task.extractors] for task in tasks)]
    return hashlib.sha256(canonical_json(work).encode()).hexdigest()[:16]
