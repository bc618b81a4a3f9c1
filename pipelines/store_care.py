"""What a store needs now and then: a look at every byte, compaction, and removal of garbage."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import StoreDamaged


class StoreCareJob(BaseModel):
    """How a store is cared for.

    repair: mend what can be mended; videos with damaged rows become missing, so that extraction
        makes them again. Otherwise a damaged store is left as it is found.
    keep_days: older versions stay readable so long. grace_hours: younger files are left alone; with
        less than 24 no writer may be at work.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    store: str
    repair: bool = False
    keep_days: float = Field(default=7.0, ge=0)
    grace_hours: float = Field(default=24.0, ge=0)


@dataclass(frozen=True)
class StoreCareReport:
    """What was found and done.

    problems: of a store that is not sound, in words. repaired, lost: what `repair` mended, and
        (feature, video) that must be extracted again. past_damage: what only older versions use.
    parts_before, parts_after: of those that compaction rewrote. num_removed, removed_bytes: what
        nobody needed any more. free_bytes: left on the disk; None for a store that is on none.
    """

    store: str
    version: int
    num_videos: int
    compared_bytes: int
    problems: tuple[str, ...]
    repaired: tuple[str, ...]
    lost: tuple[tuple[str, str], ...]
    past_damage: tuple[str, ...]
    parts_before: int
    parts_after: int
    num_removed: int
    removed_bytes: int
    free_bytes: int | None

    @property
    def is_sound(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {"is_sound": self.is_sound, **asdict(self)}

    def raise_if_damaged(self) -> None:
        """Raises StoreDamaged when the store is not sound."""
        if self.problems:
            raise StoreDamaged(
                f"{self.store} has {len(self.problems)} problems, the first: {self.problems[0]}",
                hint=f"vlpipe store verify {self.store} --repair",
            )


def care_for_store(
    job: StoreCareJob,
    *,
    progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
) -> StoreCareReport:
    """Verifies every byte; compacts and collects garbage if the store is sound.

    A damaged store is not touched beyond what `job.repair` asks for: what seems to be garbage may
    be what its owner wants to rescue. Writers and readers may be at work meanwhile.
    progress: told the share of the bytes compared. stop: once set, nothing further is begun.
    """

    def note(done: int, of: int) -> None:
        if progress is not None:
            progress(done / of if of else 1.0)

    with FeatureStore.open(job.store) as store:
        store.check_writable()
        checked = store.verify(repair=job.repair, progress=note)
        parts, removed, removed_bytes = (0, 0), 0, 0
        is_stopped = stop is not None and stop.is_set()
        if checked.is_sound and not is_stopped:
            compacted = store.compact()
            parts = compacted.parts_before, compacted.parts_after
            garbage = store.gc(
                job.grace_hours * 3600, retention_s=job.keep_days * 86400, dry_run=False
            )
            kinds = (garbage.parts, garbage.leftovers, garbage.checkpoints, garbage.entries)
            removed, removed_bytes = sum(map(len, kinds)), garbage.num_bytes
        return StoreCareReport(
            store=store.url,
            version=store.version,
            num_videos=checked.num_videos,
            compared_bytes=checked.num_bytes,
            problems=tuple(problem.message for problem in checked.problems),
            repaired=tuple(checked.repaired),
            lost=tuple((feature, video_id) for feature, _, video_id in checked.lost),
            past_damage=tuple(checked.past_damage),
            parts_before=parts[0],
            parts_after=parts[1],
            num_removed=removed,
            removed_bytes=removed_bytes,
            free_bytes=None if "://" in store.url else shutil.disk_usage(store.url).free,
        )
