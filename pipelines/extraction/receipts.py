"""What came of a batch and of a whole extraction: JSON values for summaries and flows."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from vlpipe.pipelines.extraction.planning import Plan

STAGES = ("decode", "network", "write")


class Failure(BaseModel):
    """One video that could not be extracted."""

    model_config = ConfigDict(frozen=True)

    id: str
    features: tuple[str, ...]
    kind: str
    message: str


class VideoReceipt(BaseModel):
    """One video that was stored: rows per feature, media seconds, notes such as `no_audio`.

    replaced: it superseded rows of an earlier file.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    rows: dict[str, int]
    media_s: float
    notes: dict[str, str] = {}
    replaced: bool = False


class Reuse(BaseModel):
    """Results that an extractor computed, and the number of inputs that they stand for."""

    model_config = ConfigDict(frozen=True)

    computed: int
    used: int

    @property
    def share_saved(self) -> float:
        """Share of the network calls that were not needed, 0 to 1."""
        return 1 - self.computed / self.used if self.used else 0.0


class BatchReceipt(BaseModel):
    """The outcome of one batch.

    version: of the store after the commit. stored: what the commit added. kept: videos that
    another writer had stored meanwhile; deleted: that somebody deleted meanwhile. stage_s: seconds
    spent decoding (in all child processes together), in the networks and writing; wall_s: from
    start to commit. reuse: by extractor that uses results again, how many were computed and for
    how many inputs they stand.
    """

    model_config = ConfigDict(frozen=True)

    batch: str
    version: int
    stored: tuple[VideoReceipt, ...]
    kept: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    failed: tuple[Failure, ...]
    num_bytes: int
    stage_s: dict[str, float]
    wall_s: float
    num_frames_decoded: int = 0
    reuse: dict[str, Reuse] = {}
    was_interrupted: bool = False


class ExtractionSummary(BaseModel):
    """The outcome of an extraction. Every selected video is in exactly one of the counts:

    selected = extracted + stored_before + deleted + failed (by id) + failed_before + missing +
    not_reached. left_out: annotation files that could not be read. inactive: features whose new
    generation readers do not get yet, with the reason. activated: features of which readers now get
    this generation instead of another. replaced: videos whose file was another one before.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    dataset: str
    store: str
    version: int
    selected: int
    extracted: int
    stored_before: int
    deleted: int
    failed: tuple[Failure, ...]
    failed_before: tuple[str, ...]
    missing: tuple[str, ...]
    left_out: tuple[str, ...]
    not_reached: int
    features: dict[str, dict[str, Any]]
    media_s: float
    num_bytes: int
    stage_s: dict[str, float]
    wall_s: float
    was_interrupted: bool
    reuse: dict[str, Reuse] = {}
    replaced: tuple[str, ...] = ()
    inactive: dict[str, str] = {}
    activated: dict[str, str] = {}

    @property
    def exit_code(self) -> int:
        """0 all well, 1 some videos failed, 130 interrupted."""
        if self.was_interrupted:
            return 130
        return 1 if self.failed or self.failed_before or self.left_out else 0


def summarise(
    plan: Plan, receipts: Sequence[BatchReceipt], *, version: int, wall_s: float
) -> ExtractionSummary:
    """The summary of a plan of which these batches were run."""
    failed = [
        Failure(id=p.id, features=_feature_names(plan), kind=p.kind, message=p.message)
        for p in plan.problems
    ] + [failure for receipt in receipts for failure in receipt.failed]
    bad_ids = {failure.id for failure in failed} | set(plan.failed_before)
    stored = [video for receipt in receipts for video in receipt.stored]
    extracted = {video.id for video in stored} - bad_ids
    kept = {video_id for receipt in receipts for video_id in receipt.kept} - bad_ids
    deleted = {video_id for receipt in receipts for video_id in receipt.deleted} - bad_ids
    rows: Counter[str] = Counter()
    for video in stored:
        rows.update(video.rows)
    to_do = {task.id for batch in plan.batches for task in batch.tasks}
    stage_s = Counter[str](dict.fromkeys(STAGES, 0.0))
    for receipt in receipts:
        stage_s.update(receipt.stage_s)
    return ExtractionSummary(
        dataset=plan.job.source_name,
        store=plan.job.store,
        version=version,
        selected=len(plan.selected),
        extracted=len(extracted),
        stored_before=len(plan.stored) + len(kept),
        deleted=len(plan.deleted) + len(deleted),
        failed=tuple(failed),
        failed_before=tuple(i for i in plan.failed_before if i not in {f.id for f in failed}),
        replaced=tuple(video.id for video in stored if video.replaced),
        missing=plan.missing,
        left_out=plan.left_out,
        not_reached=len(to_do - extracted - kept - deleted - bad_ids),
        features={
            d.name: {
                "generation": d.generation,
                "rows": rows[d.name],
                "is_untrained": d.is_untrained,
                "weights": d.weights,
            }
            for spec in plan.specs
            for d in plan.definitions[spec.name]
        },
        media_s=sum(video.media_s for video in stored),
        num_bytes=sum(receipt.num_bytes for receipt in receipts),
        stage_s={stage: float(stage_s[stage]) for stage in STAGES},
        wall_s=wall_s,
        reuse=_total_reuse(receipts),
        was_interrupted=any(receipt.was_interrupted for receipt in receipts),
    )


def merge_receipts(batch_id: str, receipts: Sequence[BatchReceipt]) -> BatchReceipt:
    """The receipt of a batch that was run in pieces, one after the other."""
    stage_s = Counter[str]()
    for receipt in receipts:
        stage_s.update(receipt.stage_s)
    return BatchReceipt(
        batch=batch_id,
        version=max(receipt.version for receipt in receipts),
        stored=tuple(video for receipt in receipts for video in receipt.stored),
        kept=tuple(video_id for receipt in receipts for video_id in receipt.kept),
        deleted=tuple(video_id for receipt in receipts for video_id in receipt.deleted),
        failed=tuple(failure for receipt in receipts for failure in receipt.failed),
        num_bytes=sum(receipt.num_bytes for receipt in receipts),
        stage_s=dict(stage_s),
        wall_s=sum(receipt.wall_s for receipt in receipts),
        num_frames_decoded=sum(receipt.num_frames_decoded for receipt in receipts),
        reuse=_total_reuse(receipts),
        was_interrupted=any(receipt.was_interrupted for receipt in receipts),
    )


def _total_reuse(receipts: Sequence[BatchReceipt]) -> dict[str, Reuse]:
    total: dict[str, Reuse] = {}
    for name, reuse in (pair for receipt in receipts for pair in receipt.reuse.items()):
        before = total.get(name, Reuse(computed=0, used=0))
        total[name] = Reuse(
            computed=before.computed + reuse.computed, used=before.used + reuse.used
        )
    return total


def _feature_names(plan: Plan) -> tuple[str, ...]:
    return tuple(d.name for spec in plan.specs for d in plan.definitions[spec.name])
