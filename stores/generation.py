"""The live videos of one feature generation at one version of the store."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.part import Part

if TYPE_CHECKING:
    from vlpipe.stores.manifest import Manifest


class VideoRow(NamedTuple):
    """Where the rows of a video are, and what is known about them."""

    part: Part
    row_start: int
    row_size: int
    crc32c: int
    spans_crc32c: int
    source: str | None  # first 16 bytes of the SHA-256 of the media file, hex
    seconds: float | None  # time it took to make
    source_size: int | None  # bytes
    source_mtime_ns: int | None
    note: str | None
    version: int  # of the entry that added it


# Plain tuples while folding: naming their fields would cost more than the folding itself.
RawVideoRow = tuple[
    Part, int, int, int, int, str | None, float | None, int | None, int | None, str | None, int
]

# part, row_start, row_size, crc32c, spans_crc32c; and the number in the manifest, -1 outside it
Location = tuple[Part, int, int, int, int, int]


class GenerationState:
    """Live videos: the manifest of a checkpoint, and over it what changed since."""

    def __init__(
        self, definition: FeatureDefinition, generation: str, manifest: "Manifest | None" = None
    ) -> None:
        self.definition = definition
        self.generation = generation
        self.manifest = manifest
        self.changes: dict[str, RawVideoRow | None] = {}  # None: no longer live

    @property
    def key(self) -> tuple[str, str]:
        return self.definition.name, self.generation

    def copy(self) -> "GenerationState":
        other = GenerationState(self.definition, self.generation, self.manifest)
        other.changes = self.changes.copy()
        return other

    # only while folding

    def put(self, rows: Iterable[tuple[str, RawVideoRow]]) -> None:
        self.changes.update(rows)

    def mask(self, video_ids: Iterable[str]) -> None:
        self.changes.update(dict.fromkeys(video_ids))

    def move(
        self, video_ids: list[str], row_starts: list[int], part: Part, removed: set[str]
    ) -> None:
        """Videos of the removed parts lie in another part now, from these rows on."""
        raws = self._raws(video_ids)
        for video_id, row_start, raw in zip(video_ids, row_starts, raws, strict=True):
            if raw is not None and raw[0].id in removed:
                self.changes[video_id] = (part, row_start, *raw[2:])

    # afterwards

    def find(self, video_id: str) -> VideoRow | None:
        if video_id in self.changes:
            raw = self.changes[video_id]
            return None if raw is None else VideoRow._make(raw)
        if self.manifest is None:
            return None
        index = self.manifest.find(video_id)
        return None if index < 0 else self.manifest.row(index)

    def locate(self, video_id: str) -> Location | None:
        """Where the rows are; faster than `find`."""
        if video_id in self.changes:
            raw = self.changes[video_id]
            return None if raw is None else (*raw[:5], -1)
        if self.manifest is None:
            return None
        index = self.manifest.find(video_id)
        return None if index < 0 else self.manifest.location(index)

    def first_missing(self, video_ids: Sequence[str]) -> str | None:
        """The first id that is not live; None when all are."""
        is_below = [False] * len(video_ids)
        if self.manifest is not None:
            is_below = (self.manifest.positions(video_ids) >= 0).tolist()
        for video_id, is_live in zip(video_ids, is_below, strict=True):
            if self.changes[video_id] is None if video_id in self.changes else not is_live:
                return video_id
        return None

    def find_many(self, video_ids: list[str]) -> list[VideoRow | None]:
        """One answer for each id, in order."""
        return [
            raw if raw is None or isinstance(raw, VideoRow) else VideoRow._make(raw)
            for raw in self._raws(video_ids)
        ]

    def rows(self) -> Iterator[tuple[str, VideoRow]]:
        """All live videos, in no order."""
        if self.manifest is not None:
            for video_id, row in self.manifest.items():
                if video_id not in self.changes:
                    yield video_id, row
        for video_id, raw in self.changes.items():
            if raw is not None:
                yield video_id, VideoRow._make(raw)

    def video_ids(self) -> list[str]:
        """Ids of all live videos, sorted."""
        ids = [video_id for video_id, raw in self.changes.items() if raw is not None]
        if self.manifest is not None:
            below = self.manifest.video_ids()
            ids += [i for i in below if i not in self.changes] if self.changes else below
        ids.sort()
        return ids

    def parts_of(self, video_ids: list[str]) -> list[Part | None]:
        """The part that each video lies in; None for those that are not live."""
        found: list[Part | None] = [None] * len(video_ids)
        manifest = self.manifest
        if manifest is not None:
            positions = manifest.positions(video_ids)
            hits = np.flatnonzero(positions >= 0)
            numbers = manifest.part_numbers[positions[hits]]
            for hit, number in zip(hits.tolist(), numbers.tolist(), strict=True):
                found[hit] = manifest.parts[number]
        changes = self.changes
        if changes:
            for number, video_id in enumerate(video_ids):
                if video_id in changes:
                    raw = changes[video_id]
                    found[number] = None if raw is None else raw[0]
        return found

    def live_by_part(self) -> Iterator[tuple[Part, int, int]]:
        """Each part with live videos (some twice): the numbers of its live videos and rows."""
        manifest = self.manifest
        if manifest is not None:
            is_live = self.is_live_below()
            numbers = manifest.part_numbers[is_live]
            videos = np.bincount(numbers)
            rows = np.bincount(numbers, manifest.row_sizes[is_live])
            for number in np.flatnonzero(videos).tolist():
                yield manifest.parts[number], int(videos[number]), int(rows[number])
        for raw in self.changes.values():
            if raw is not None:
                yield raw[0], 1, raw[2]

    def is_live_below(self) -> npt.NDArray[np.bool_]:
        """[N] whether each row of the manifest still holds."""
        manifest = self.manifest
        is_live = np.ones(0 if manifest is None else len(manifest), bool)
        if manifest is not None:
            covered = manifest.positions(list(self.changes))
            is_live[covered[covered >= 0]] = False
        return is_live

    @cached_property
    def counts(self) -> tuple[int, int]:
        """Number of live videos, and of their rows."""
        added = [raw for raw in self.changes.values() if raw is not None]
        num_videos, num_rows = len(added), sum(raw[2] for raw in added)
        if self.manifest is not None:
            covered = self.manifest.positions(list(self.changes))
            covered = covered[covered >= 0]
            num_videos += len(self.manifest) - len(covered)
            num_rows += self.manifest.num_rows - int(self.manifest.row_sizes[covered].sum())
        return num_videos, num_rows

    # below

    def _raws(self, video_ids: list[str]) -> list[RawVideoRow | None]:
        """One answer for each id, in order."""
        changes = self.changes
        if self.manifest is None:
            return list(map(changes.get, video_ids))
        found: list[RawVideoRow | None] = list(self.manifest.rows(video_ids))
        if changes:
            for number, video_id in enumerate(video_ids):
                if video_id in changes:
                    found[number] = changes[video_id]
        return found
