"""What is left to do: videos of a job against the store's manifest, cut into batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlpipe.pipelines.extraction.batches import Batch, VideoTask, cut_batches
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.stores import FeatureDefinition, FeatureStore
from vlpipe.stores.datasets import Video
from vlpipe.stores.status import Standing

if TYPE_CHECKING:
    from vlpipe.extractors import ExtractorSpec

# An extractor that makes several features commits them together, so that they stand alike; a video
# that was deleted from one of them stays out of all.
_BY_PRECEDENCE: tuple[Standing, ...] = ("deleted", "failed", "absent", "stored")

# Rough sizes of a second of media and of work, only to cut batches of similar length: published
# GIFs run at some 400 kB a second, web video at 1 Mbit a second; a small file costs some 20 ms
# whatever it holds, and a second of video some 50 ms where 15 processes decode for a GPU. A network
# on two CPU cores does some 100 GFLOP a second, on a GPU of a data centre 20,000: batches cut for a
# CPU would hold one video each there, and its decoders would work one at a time.
_GIF_BYTES_PER_SECOND = 400_000
_VIDEO_BYTES_PER_SECOND = 125_000
_CPU_GFLOP_PER_SECOND = 100.0
_GPU_GFLOP_PER_SECOND = 20_000.0
_SECONDS_PER_FILE = 0.02
_DECODE_SHARE = 0.05


@dataclass(frozen=True)
class Problem:
    """A video that cannot be tried at all: `kind` and `message` go to the quarantine."""

    id: str
    kind: str
    message: str


@dataclass(frozen=True)
class Plan:
    """The work of one job.

    selected: ids of all videos of the job. stored: those that have everything already. deleted:
    those that somebody deleted from the store; they stay out unless the job restores them.
    missing: those that the tables name and that are not on disk. failed_before: those in
    quarantine that are not tried again. problems: those that cannot be tried. left_out: annotation
    files that could not be read. batches: the work.
    """

    job: ExtractionJob
    specs: tuple["ExtractorSpec", ...]
    selected: tuple[str, ...]
    stored: tuple[str, ...]
    deleted: tuple[str, ...]
    missing: tuple[str, ...]
    failed_before: tuple[str, ...]
    problems: tuple[Problem, ...]
    left_out: tuple[str, ...]
    batches: tuple[Batch, ...]
    definitions: Mapping[str, tuple[FeatureDefinition, ...]] = field(repr=False)

    @property
    def num_tasks(self) -> int:
        return sum(len(batch.tasks) for batch in self.batches)

    def to_json(self) -> dict[str, Any]:
        """The plan for `--dry-run --json`."""
        return {
            "dataset": self.job.source_name,
            "store": self.job.store,
            "selected": len(self.selected),
            "to_do": self.num_tasks,
            "stored": len(self.stored),
            "deleted": list(self.deleted),
            "missing_files": list(self.missing),
            "failed_before": list(self.failed_before),
            "left_out": list(self.left_out),
            "problems": [vars(problem) for problem in self.problems],
            "batches": [
                {
                    "id": batch.id,
                    "videos": len(batch.tasks),
                    "estimated_s": round(batch.estimated_s, 1),
                }
                for batch in self.batches
            ],
            "features": [
                {
                    "feature": d.name,
                    "generation": d.generation,
                    "extractor": spec.name,
                    "row_shape": list(d.row_shape),
                    "dtype": d.dtype,
                    "is_untrained": d.is_untrained,
                    "weights": d.weights,
                }
                for spec in self.specs
                for d in self.definitions[spec.name]
            ],
        }


def make_plan(job: ExtractionJob, store: FeatureStore | None) -> Plan:
    """The plan of `job` against `store` (None: a store that does not exist yet, so empty)."""
    collection = job.collect()
    videos = collection.videos
    specs = tuple(job.specs())
    definitions = {spec.name: spec.definitions() for spec in specs}
    again: set[Standing] = {"absent"}
    again |= {"failed"} if job.retry_failed else set()
    again |= {"deleted"} if job.restore_deleted else set()
    usable = [v for v in videos if v.problem is None and v.path is not None]
    standings = _Standings(store, definitions, [v.id for v in videos])

    tasks: list[VideoTask] = []
    at_rest: dict[Standing, list[str]] = {"stored": [], "failed": [], "deleted": []}
    for video in usable:
        assert video.path is not None
        changed = standings.changed(video.id, video.path)
        stands = {spec.name: standings.of(video.id, spec.name) for spec in specs}
        lacking = [spec for spec in specs if spec.name in changed or stands[spec.name] in again]
        left = {word for name, word in stands.items() if name not in {s.name for s in lacking}}
        if "failed" in left:
            at_rest["failed"].append(video.id)
        if lacking:
            tasks.append(
                VideoTask(
                    id=video.id,
                    path=video.path,
                    extractors=tuple(spec.name for spec in lacking),
                    estimated_s=estimate_seconds(video.path, lacking),
                    replaced=tuple(n for n in changed if stands[n] == "stored"),
                )
            )
        elif "failed" not in left:
            at_rest["deleted" if "deleted" in left else "stored"].append(video.id)

    generations = sorted(d.generation for ds in definitions.values() for d in ds)
    problems, known_problems = _problems(videos, standings, specs, retry=job.retry_failed)
    return Plan(
        job=job,
        specs=specs,
        selected=tuple(v.id for v in videos),
        stored=tuple(at_rest["stored"]),
        deleted=tuple(at_rest["deleted"]),
        missing=tuple(v.id for v in videos if v.problem is None and v.path is None),
        failed_before=tuple(at_rest["failed"] + known_problems),
        problems=tuple(problems),
        left_out=collection.left_out,
        batches=tuple(
            cut_batches(tasks, seconds=job.batch_seconds, identity=[job.source_name, *generations])
        ),
        definitions=definitions,
    )


def estimate_seconds(path: Path, specs: Sequence["ExtractorSpec"]) -> float:
    """Rough seconds of work for one file, from its size; files that cannot be read count little."""
    try:
        num_bytes = path.stat().st_size
    except OSError:
        return _SECONDS_PER_FILE
    is_gif = path.suffix.lower() == ".gif"
    media_s = num_bytes / (_GIF_BYTES_PER_SECOND if is_gif else _VIDEO_BYTES_PER_SECOND)
    gflop_per_s = sum(map(_gflop_per_second, specs))
    if all(spec.device.startswith("cpu") for spec in specs):
        return _SECONDS_PER_FILE + media_s * gflop_per_s / _CPU_GFLOP_PER_SECOND
    return _SECONDS_PER_FILE + media_s * max(_DECODE_SHARE, gflop_per_s / _GPU_GFLOP_PER_SECOND)


def _gflop_per_second(spec: "ExtractorSpec") -> float:
    """Work in a second of media, with that of its sources."""
    own = spec.extractor.gflop_per_sample * spec.extractor.samples_per_second(spec.config)
    return own + sum(map(_gflop_per_second, spec.sources.values()))


def _problems(
    videos: Sequence[Video],
    standings: "_Standings",
    specs: Sequence["ExtractorSpec"],
    *,
    retry: bool,
) -> tuple[list[Problem], list[str]]:
    """Videos that cannot be tried, split into new ones and ids that are in quarantine already."""
    new: list[Problem] = []
    known: list[str] = []
    for video in videos:
        if video.problem is None:
            continue
        if not retry and all(standings.of(video.id, spec.name) == "failed" for spec in specs):
            known.append(video.id)
        else:
            new.append(Problem(video.id, video.problem_kind or "bad_id", video.problem))
    return new, known


class _Standings:
    """What the store knows of the selected videos, looked up in bulk once per feature."""

    def __init__(
        self,
        store: FeatureStore | None,
        definitions: Mapping[str, Sequence[FeatureDefinition]],
        ids: Sequence[str],
    ) -> None:
        self._found = {
            name: [store.status(definition, ids) for definition in wanted] if store else []
            for name, wanted in definitions.items()
        }

    def of(self, video_id: str, extractor: str) -> Standing:
        """One word for all features of the extractor; the first that applies of these."""
        words = {found[video_id].standing for found in self._found[extractor]}
        for word in _BY_PRECEDENCE:
            if word in words:
                return word
        return "absent"

    def changed(self, video_id: str, path: Path) -> set[str]:
        """The extractors whose rows are of another file than is there now.

        Size and time of change decide if they are equal; if not, the digest does, so that a file
        that was merely copied or touched is not extracted again. A file that cannot be looked at
        counts as the same: that is no reason to lose its rows.
        """
        changed: set[str] = set()
        digest: str | None = None
        for name, features in self._found.items():
            known = next((f[video_id] for f in features if f[video_id].source is not None), None)
            if known is None:
                continue
            try:
                facts = path.stat()
                if (facts.st_size, facts.st_mtime_ns) == (known.source_size, known.source_mtime_ns):
                    continue
                digest = digest or source_digest(path)
            except OSError:
                return set()
            if digest != known.source:
                changed.add(name)
        return changed


def source_digest(path: Path) -> str:
    """First 16 bytes of the SHA-256 of a media file, as 32 hex digits."""
    from vlpipe.extractors.weights.checkpoint import sha256_of

    return sha256_of(path)[:32]
